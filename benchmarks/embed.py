"""Hours of audio embedded in an hour, beside the loops that people write, and beside what the machine can do.

    python benchmarks/embed.py                  # three minutes
    python benchmarks/embed.py --quick          # under a minute
    python benchmarks/embed.py --folder DIR     # keeps the files that are made, for the next time

Everything embeds the same files with the same weights on the same cores:

* xmodal: ``Embedder.iterate_windows``, as ``xmodal embed`` runs it;
* a loop over files: ``librosa.load``, a log-mel in numpy (``transformers.audio_utils``, as ``ClapFeatureExtractor``
  computes it), the network; needs librosa;
* a ``torch.utils.data.DataLoader`` with as many worker processes as cores, which decode and cut files as xmodal does;
  the main process runs front end and network.

Two bounds: the slower of decoding alone and the model alone, each with all cores (what a pipeline can reach where the
model runs on a device of its own), and the time of both one after the other (what it can reach where both need the
same cores). Beside the rates stand the seconds of processor time, of all threads and workers, that an hour of audio
takes, which hardly depend on what else the machine does. The last lines are one JSON object a claim.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

from xmodal.audio import windows
from xmodal.embedder import Embedder, usable_cores
from xmodal.lanes import in_threads
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn

RATE = 44_100


def corpus(folder: Path, suffix: str, files: int, seconds: float) -> list[Path]:
    """Stereo music-like files: chords with noise, of different lengths."""
    paths = [folder / f"{seconds:g}-{number:03d}.{suffix}" for number in range(files)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        time_axis = np.arange(round(RATE * seconds * rng.uniform(0.8, 1.2))) / RATE
        chord = sum(np.sin(2 * np.pi * pitch * time_axis) for pitch in rng.uniform(80, 2000, 6)) / 12
        stereo = np.stack([chord, np.roll(chord, 300)], axis=1) + 0.02 * rng.standard_normal((len(time_axis), 2))
        soundfile.write(path, stereo.astype(np.float32), RATE)
    return paths


def hours(paths: list[Path]) -> float:
    return sum(soundfile.info(path).duration for path in paths) / 3600


def ours(embedder: Embedder, paths: list[Path]) -> np.ndarray:
    found = dict(embedder.iterate_windows(paths))
    return np.stack([found[place].pooled() for place in range(len(paths))])


def decoding_alone(model: TwoTower, paths: list[Path]) -> None:
    def read(places):
        for place in places:
            for _ in windows(paths[place], model.sample_rate, model.windows):
                pass
            yield place

    list(in_threads(read, len(paths), usable_cores(), room=4, name="decode"))


def model_alone(embedder: Embedder, cut: list) -> None:
    """The network over windows that are in memory already, spread over the cores as in xmodal."""
    batches = [cut[start : start + embedder.batch_size] for start in range(0, len(cut), embedder.batch_size)]

    def run(places):
        for place in places:
            embedder.embed_windows(batches[place])
            yield place

    list(in_threads(run, len(batches), usable_cores(), room=4, name="model", torch_threads=1))


@torch.inference_mode()
def file_loop(model: TwoTower, paths: list[Path]) -> np.ndarray:
    import librosa
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    end = model.audio.front_end
    filters = mel_filter_bank(end.n_fft // 2 + 1, end.bands, end.f_min, end.f_max, end.sample_rate, mel_scale="htk")
    hann = window_function(end.n_fft, "hann")
    pooled = []
    for path in paths:
        samples, _ = librosa.load(path, sr=model.sample_rate, mono=True)
        window = model.window_samples
        starts = model.windows.starts(len(samples), model.sample_rate)
        features = []
        for start in starts:
            mel = spectrogram(
                samples[start : start + window].astype(np.float64),
                hann,
                frame_length=end.n_fft,
                hop_length=end.hop,
                power=2.0,
                pad_mode="constant",
                mel_filters=filters,
                log_mel="dB",
            )
            level = np.maximum(mel - end.full_scale_db, end.floor_db)
            features.append((level - end.mean_db) / end.std_db)
        vectors = model.embed_audio_features(torch.from_numpy(np.stack(features)).float()).numpy()
        mean = vectors.mean(axis=0)
        pooled.append(mean / np.linalg.norm(mean))
    return np.stack(pooled)


class Files(torch.utils.data.Dataset):
    def __init__(self, model: TwoTower, paths: list[Path]) -> None:
        self.rate, self.policy, self.paths = model.sample_rate, model.windows, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([w.samples for w in windows(self.paths[place], self.rate, self.policy)]))


@torch.inference_mode()
def loader_loop(model: TwoTower, paths: list[Path]) -> np.ndarray:
    loader = torch.utils.data.DataLoader(Files(model, paths), batch_size=None, num_workers=usable_cores())
    pooled = []
    for waveform in loader:
        vectors = model.embed_audio(waveform).numpy()
        mean = vectors.mean(axis=0)
        pooled.append(mean / np.linalg.norm(mean))
    return np.stack(pooled)


def timed(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The shortest time of several runs, and the least processor time, of this process and its workers."""
    times, busy = [], []
    for _ in range(repeats):
        begun, used = time.perf_counter(), processor_seconds()
        run()
        times.append(time.perf_counter() - begun)
        busy.append(processor_seconds() - used)
    return min(times), min(busy)


def processor_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--files", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--formats", default="mp3,flac")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the files are made, and found again")
    parser.add_argument("--make-only", action="store_true", help="make the files and leave measuring to a later call")
    args = parser.parse_args()
    files, repeats = args.files or (8 if args.quick else 24), 1 if args.quick else 2
    torch.manual_seed(0)
    model = TwoTower(MobileCnn(), HashedBagOfWordsTower(64, 16), dim=256).eval()
    embedder = Embedder(model, device=args.device, batch_size=args.batch_size)
    claims = []
    for suffix in args.formats.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            paths = corpus(folder, suffix, files, 60.0)
            if not args.make_only:
                claims += measured(embedder, paths, repeats, suffix)
    for one in claims:
        print(json.dumps(one))


def measured(embedder: Embedder, paths: list[Path], repeats: int, suffix: str) -> list[dict[str, object]]:
    model, long = embedder.model, hours(paths)
    reference = ours(embedder, paths[:4])
    cut = [window for path in paths for window in windows(path, model.sample_rate, model.windows)]
    found = {
        "xmodal": timed(lambda: ours(embedder, paths), repeats),
        "decoding alone": timed(lambda: decoding_alone(model, paths), repeats),
        "model alone": timed(lambda: model_alone(embedder, cut), repeats),
    }
    peers = {"DataLoader": loader_loop}
    try:
        import librosa  # noqa: F401
    except ImportError:
        print("librosa is not installed: the loop over files is left out")
    else:
        peers["loop over files"] = file_loop
    for name, run in peers.items():
        same = run(model, paths[:4])
        assert ((same * reference).sum(axis=1) > 0.999).all(), f"{name} embeds something else"
        found[name] = timed(partial(run, model, paths), repeats)
    rates = {name: long / seconds for name, (seconds, _) in found.items()}
    slower = min(rates["decoding alone"], rates["model alone"])
    both = 1 / (1 / rates["decoding alone"] + 1 / rates["model alone"])
    print(
        f"\n{suffix}, {long:.2f} hours of audio, {usable_cores()} cores, {torch.get_num_threads()} threads of torch, "
        f"{embedder.device}:\n  {'':16} hours of audio an hour, processor seconds an hour of audio"
    )
    for name, rate in rates.items():
        print(f"  {name:16} {3600 * rate:23,.0f}, {found[name][1] / long:33.2f}", flush=True)
    mine = rates["xmodal"]
    claims = [
        claim(f"{suffix}: share of the slower of decoding and model alone", mine, slower, 0.9),
        claim(f"{suffix}: share of decoding and model sharing the cores", mine, both, 0.9),
        claim(f"{suffix}: beside a DataLoader", mine, rates["DataLoader"], 1.3),
    ]
    if "loop over files" in rates:
        claims.append(claim(f"{suffix}: beside a loop over files", mine, rates["loop over files"], 3.0))
    return claims


def claim(what: str, ours: float, peer: float, goal: float) -> dict[str, object]:
    ratio = ours / peer
    return {
        "claim": f"audio hours an hour, {what}",
        "ours": round(3600 * ours),
        "peer": round(3600 * peer),
        "ratio": round(ratio, 3),
        "goal": goal,
        "met": bool(ratio >= goal),
    }


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
