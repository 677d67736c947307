"""How fast audio comes to the model, and how long a training step waits for it.

    python benchmarks/loading.py --quick
    python benchmarks/loading.py

Real recordings (../shared/audio, or --recordings) are joined into files of 30 s and 4 min and written as mp3, flac and
wav. Three loaders then make batches of log-mels of random 10-s windows with two worker processes each:

* ours: ``TrainingSet`` over ``WindowSet``: seek, decode the window, resample, log-mel;
* full decoding: what a torch ``DataLoader`` over ``torchaudio.load`` does, which is torchcodec's whole file, then the
  cut, resampling of the cut alone (many resample the whole file) and the same log-mel; soundfile stands in where
  torchcodec is not there;
* datasets: the ``Audio`` feature of Hugging Face ``datasets``, which decodes and resamples the file, then the same.

On a machine that others use, ``--clock cpu`` counts CPU seconds of one process instead. The peers' decoder is no
dependency of xmodal: ``pip install torchcodec`` (a build that fits torch) and FFmpeg's libraries, in an environment of
their own.

The second part trains the mobile CNN on 10-s windows and looks how much of the time of a step is waiting for data: with
log-mels kept in memory and on disk, with samples kept on disk, and with every window decoded. For the last it also says
what two cores cannot go below: the processor time of a step and of decoding its windows, over two.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytorch_lightning as pl
import soundfile
import soxr
import torch
from pytorch_lightning.profilers import SimpleProfiler
from torch.utils.data import DataLoader, Dataset

from xmodal.audio import IsolatedDecoder, WindowPolicy, find_audio, load, probe
from xmodal.data import Caption, Track, write_tracks
from xmodal.data.datasets import TrainingSet
from xmodal.data.loaders import ResumableLoader
from xmodal.data.module import AudioTextData
from xmodal.data.samplers import ShuffledBatches
from xmodal.data.windows import WindowSet
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower, LogMel, MobileCnn
from xmodal.training import AlignmentModule

RATE, WINDOW, BATCH, WORKERS = 44_100, 10.0, 8, 2
STEP_WINDOWS = 64
CACHES = ("memory", "disk", "samples", "none")
LENGTHS = {"30 s": 30, "4 min": 240}
KINDS = ("mp3", "flac", "wav")


def make_files(recordings: Path, folder: Path, kinds: tuple[str, ...], lengths: dict[str, int], count: int) -> None:
    """``count`` stereo files of every kind and length, each of other recordings, looped where they do not reach."""
    sources = find_audio(recordings)
    rng = np.random.default_rng(0)
    for number in range(count):
        missing = [(k, n) for k in kinds for n in lengths.values() if not path_of(folder, k, n, number).exists()]
        if not missing:
            continue
        parts: list[np.ndarray] = []
        for source in rng.permutation(np.array(sources, dtype=object)):
            parts.append(load(source, RATE, duration_seconds=30.0))
            if sum(map(len, parts)) > 60 * RATE:
                break
        mono = np.resize(np.concatenate(parts), max(lengths.values()) * RATE)
        stereo = np.stack([mono, np.roll(mono, 300)], axis=1)
        for kind, seconds in missing:
            write(path_of(folder, kind, seconds, number), stereo[: seconds * RATE])


def path_of(folder: Path, kind: str, seconds: int, number: int) -> Path:
    return folder / f"{kind}-{seconds}-{number}.{kind}"


def write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".mp3":
        soundfile.write(path, samples, RATE)
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp3", rate=RATE)
        stream.layout, stream.bit_rate = "stereo", 192_000
        for first in range(0, len(samples), 1152):
            block = np.ascontiguousarray(samples[first : first + 1152].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class FullDecoding(Dataset):
    """The whole file, a random cut of it, its log-mel."""

    def __init__(self, files: list[str], peer: str) -> None:
        self.files, self.peer, self.mel = files, peer, LogMel()
        self.table = None
        if peer == "datasets":
            import datasets

            self.table = datasets.Dataset.from_dict({"audio": files})
            self.table = self.table.cast_column("audio", datasets.Audio(sampling_rate=self.mel.sample_rate))

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, number: int) -> torch.Tensor:
        place = number % len(self.files)
        if self.table is not None:
            decoder = self.table[place]["audio"]
            mono, rate = decoder["array"], decoder["sampling_rate"]
            mono = mono.mean(0) if mono.ndim == 2 else mono
        elif self.peer == "torchcodec":
            from torchcodec.decoders import AudioDecoder

            whole = AudioDecoder(self.files[place]).get_all_samples()
            mono, rate = whole.data.mean(0).numpy(), whole.sample_rate
        else:
            samples, rate = soundfile.read(self.files[place], dtype="float32", always_2d=True)
            mono = samples.mean(axis=1)
        start = np.random.default_rng(number).integers(max(len(mono) - round(WINDOW * rate), 0) + 1)
        cut = mono[start : start + round(WINDOW * rate)]
        if rate != self.mel.sample_rate:
            cut = soxr.resample(cut, rate, self.mel.sample_rate)
        return self.mel(torch.from_numpy(np.ascontiguousarray(cut, dtype=np.float32))[None])[0]


def ours(files: list[str]) -> DataLoader:
    order, pairs = ShuffledBatches(), our_pairs(files, IsolatedDecoder())
    order.prepare([pairs.tracks[row] for row in pairs.rows], batch_size=BATCH)
    return ResumableLoader(pairs, order, workers=WORKERS, position=dict)


def our_pairs(files: list[str], decoder: IsolatedDecoder | None) -> TrainingSet:
    # Several tracks a file, so that an epoch is longer than the measurement.
    tracks = [
        Track(id=f"{copy}-{n}", path=file, captions=(Caption("music"),))
        for copy in range(4000 // len(files))
        for n, file in enumerate(files)
    ]
    known = {track.audio: probe(track.audio) for track in tracks[: len(files)]}
    return TrainingSet(WindowSet(tracks, MobileCnn(), WindowPolicy(WINDOW), decoder=decoder, facts=known))


def peer(files: list[str], name: str) -> DataLoader:
    return DataLoader(FullDecoding(files, name), batch_size=BATCH, num_workers=WORKERS, shuffle=True)


def audio_seconds_per_second(loader: DataLoader, seconds: float) -> float:
    """Once the workers run and what they had made ahead is used up."""
    batches = iter(loader)
    for _ in range(2 * WORKERS + 1):
        next(batches)
    begun, made = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds or made == 0:
        next(batches)
        made += BATCH
    return made * WINDOW / (time.perf_counter() - begun)


def audio_seconds_per_cpu_second(make: Callable[[int], object], seconds: float) -> float:
    """In this process and on one thread, by the process's own clock: others on the machine do not disturb it."""
    make(0)
    begun, made = time.process_time(), 0
    while time.process_time() - begun < seconds or made == 0:
        made += 1
        make(made)
    return made * WINDOW / (time.process_time() - begun)


def waiting_share(files: list[str], folder: Path, cache: str, steps: int, workers: int) -> dict[str, float]:
    """Of the time of a training step of the mobile CNN, what was spent waiting for its batch; its processor time."""
    # All steps are of one epoch, so that batches are made ahead as in a large corpus.
    copies = math.ceil((steps + 6) * STEP_WINDOWS / 0.9 / len(files))
    tracks = [
        Track(
            id=f"{copy}-{n}", path=file, captions=(Caption(f"text {n}"),), tags={"k": (f"tag {n % 7}",)}, split="train"
        )
        for copy in range(copies)
        for n, file in enumerate(files)
    ]
    write_tracks(tracks, folder / "tracks.jsonl")
    data = AudioTextData(
        str(folder / "tracks.jsonl"),
        batch_size=STEP_WINDOWS,
        workers=workers,
        cache=cache,
        cache_folder=str(folder / "cache"),
        validation=0.1,
        test=0.0,
    )
    # Texts cost next to nothing here, so that nothing hides the waiting.
    module = AlignmentModule(MobileCnn(), HashedBagOfWordsTower(), InfoNCELoss())
    profiler, clock = _Silent(), _ProcessorClock()
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_steps=steps + 2,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        profiler=profiler,
        callbacks=[clock],
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)
    took = profiler.recorded_durations
    waited = took["[_TrainingEpochLoop].train_dataloader_next"][2:]
    worked = took["run_training_batch"][2:]
    share = sum(waited) / (sum(waited) + sum(worked))
    step_ms = 1000 * (sum(waited) + sum(worked)) / len(worked)
    return {"share": share, "step_ms": step_ms, "processor_ms": 1000 * (clock.ends[-1] - clock.ends[1]) / steps}


def decoding_ms(files: list[str], seconds: float) -> float:
    """Processor time of a step's windows: decoding, resampling, log-mel, collating, in one process without workers."""
    pairs = our_pairs(files, None)
    rate = audio_seconds_per_cpu_second(lambda n: pairs.__getitems__([(n, 0)]), seconds)
    return 1000 * STEP_WINDOWS * WINDOW / rate


class _ProcessorClock(pl.Callback):
    """Processor time of this process at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.process_time())


class _Silent(SimpleProfiler):
    def describe(self) -> None:
        """Its table is not what is asked for here."""


def claim(name: str, ours: float, peer: float | None, ratio: float, goal: float | None, met: bool | None) -> None:
    print(json.dumps({"claim": name, "ours": ours, "peer": peer, "ratio": ratio, "goal": goal, "met": met}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4-minute mp3 and one cache alone, shorter")
    parser.add_argument("--recordings", type=Path, default=Path(__file__).resolve().parents[2] / "shared/audio/ccmusic")
    parser.add_argument("--folder", type=Path, help="where the files are written and found again")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--part", choices=["loading", "waiting"], help="one part alone")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: one process, no workers, on a machine in use"
    )
    parser.add_argument("--cache", action="append", choices=CACHES, help="of the second part; all unless told")
    parser.add_argument("--workers", type=int, default=WORKERS, help="of the second part")
    parser.add_argument("--only-files", action="store_true", help="write the files and measure nothing")
    options = parser.parse_args()
    if not options.recordings.is_dir():
        raise SystemExit(f"{options.recordings} is no folder of recordings; name one with --recordings")
    if options.clock == "cpu":
        torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    kinds = ("mp3",) if options.quick else KINDS
    lengths = {"4 min": 240} if options.quick else LENGTHS
    count = 1 if options.quick else 8
    seconds = options.seconds or (2.0 if options.quick else 6.0)
    full = "torchcodec" if _there("torchcodec.decoders") else "soundfile"
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "audio"
        make_files(options.recordings, folder, kinds, lengths, count)
        make_files(options.recordings, folder, ("mp3",), {"30 s": 30}, count)
        if options.only_files:
            return
        claims: list[tuple] = []
        if options.part != "waiting":
            claims += measure_loading(folder, full, kinds, lengths, count, seconds, options.clock)
        if options.part != "loading":
            caches = options.cache or (["samples"] if options.quick else list(CACHES))
            claims += measure_waiting(folder, Path(scratch), count, caches, options.workers, 6 if options.quick else 20)
    for one in claims:
        claim(*one)


def measure_loading(
    folder: Path, full: str, kinds: tuple[str, ...], lengths: dict[str, int], count: int, seconds: float, clock: str
) -> list[tuple]:
    peers = [full, *(["datasets"] if full == "torchcodec" and _there("datasets") else [])]
    claims = []
    unit = f"audio-seconds per {'CPU-' if clock == 'cpu' else ''}second"
    print(f"{unit + ', 10-s windows':40}{'ours':>9}" + "".join(f"{name:>22}" for name in peers))
    for length, wanted in lengths.items():
        for kind in kinds:
            files = [str(path_of(folder, kind, wanted, number)) for number in range(count)]
            if clock == "cpu":
                pairs = our_pairs(files, None)
                own = audio_seconds_per_cpu_second(lambda n, pairs=pairs: pairs.__getitems__([(n, 0)]), seconds)
            else:
                own = audio_seconds_per_second(ours(files), seconds)
            line = f"{kind + ' of ' + length:40}{own:9.0f}"
            for name in peers:
                if clock == "cpu":
                    theirs = audio_seconds_per_cpu_second(FullDecoding(files, name).__getitem__, seconds)
                else:
                    theirs = audio_seconds_per_second(peer(files, name), seconds)
                line += f"{theirs:13.0f} ({own / theirs:5.1f}×)"
                goal = 5.0 if (kind, length) == ("mp3", "4 min") else None
                title = f"{unit} from {kind} of {length}, against {name}"
                met = None if goal is None else own / theirs >= goal
                claims.append((title, round(own), round(theirs), round(own / theirs, 2), goal, met))
            print(line, flush=True)
    return claims


def measure_waiting(
    folder: Path, scratch: Path, count: int, caches: list[str], workers: int, steps: int
) -> list[tuple]:
    print(f"\nshare of a training step of the mobile CNN ({STEP_WINDOWS} windows of 10 s, bf16) spent waiting for data")
    files = [str(path_of(folder, "mp3", 30, number)) for number in range(count)]
    claims = []
    for cache in caches:
        found = waiting_share(files, scratch, cache, steps // 2 if cache == "none" else steps, workers)
        print(f"  cache: {cache:8} {found['share']:7.1%}   of {found['step_ms']:.0f} ms", flush=True)
        share = round(found["share"], 4)
        goal, met = (None, None) if cache == "none" else (0.05, share <= 0.05)
        claims.append((f"share of a training step spent waiting, cache: {cache}", share, None, share, goal, met))
        if cache == "none":
            step, decoding = found["processor_ms"], decoding_ms(files, 4.0)
            least = (step + decoding) / 2
            print(
                f"    processor time: step {step:.0f} ms, its windows {decoding:.0f} ms; two cores need {least:.0f} ms "
                f"in all, of which {max(0.0, 1 - step / least):.0%} is waiting if the step has a core to itself"
            )
            title = "step that decodes its windows, ms, beside the least that two cores need"
            claims.append(
                (title, round(found["step_ms"]), round(least), round(found["step_ms"] / least, 3), None, None)
            )
    return claims


def _there(module: str) -> bool:
    try:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return False
        __import__(module)
    except (ImportError, OSError, RuntimeError):  # torchcodec without FFmpeg's libraries
        return False
    return True


if __name__ == "__main__":
    main()
