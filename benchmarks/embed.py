"""Hours of audio embedded in an hour, beside the loops that people write, and beside what the machine can do.

    python benchmarks/embed.py                  # three minutes
    python benchmarks/embed.py --quick          # under a minute
    python benchmarks/embed.py --folder DIR     # keeps the files that are made, for the next time
    python benchmarks/embed.py --tower Cnn14 --files 8 --turns 1   # a network that costs more than decoding

Everything embeds the same files with the same weights on the same cores, in turns:

* xmodal: ``Embedder.iterate_windows``, as ``xmodal embed`` runs it;
* a loop over files: ``librosa.load``, a log-mel in numpy (``transformers.audio_utils``, as ``ClapFeatureExtractor``
  computes it; for a CLAP model that class itself), the network; needs librosa;
* a ``torch.utils.data.DataLoader`` with as many worker processes as cores, which decode and cut files as xmodal does;
  the main process runs front end and network.

``--tower Clap`` is an HTSAT of the published size (``ClapConfig``) with random weights, which ``xmodal import`` reads.

Two bounds: the slower of decoding alone and the model alone, each with all cores (what a pipeline can reach where the
model runs on a device of its own), and the time of both one after the other (what it can reach where both need the
same cores). Beside the rates stand the seconds of processor time, of all threads and workers, that an hour of audio
takes, which hardly depend on what else the machine does. The last lines are one JSON object a claim.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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
from xmodal.importers import import_clap
from xmodal.lanes import in_threads
from xmodal.model import TwoTower
from xmodal.towers import ClapAudioTower, Cnn10, Cnn14, HashedBagOfWordsTower, MobileCnn

RATE = 44_100
CNNS = {"MobileCnn": MobileCnn, "Cnn10": Cnn10, "Cnn14": Cnn14}


def model_of(tower: str) -> TwoTower:
    torch.manual_seed(0)
    if tower in CNNS:
        return TwoTower(CNNS[tower](), HashedBagOfWordsTower(64, 16), dim=256).eval()
    with tempfile.TemporaryDirectory() as folder:
        write_clap(folder)
        return import_clap(folder)


def write_clap(folder: str) -> None:
    """A CLAP of random weights as transformers publishes it: the audio side whole, a text side of two words."""
    from tokenizers import Tokenizer, models
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", "slow", "piano"))}
    special = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), words, strict=False))
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    text = {"vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ClapModel(ClapConfig(text_config=text | {"intermediate_size": 32, "max_position_embeddings": 66})).save_pretrained(
        folder
    )


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
    size = max(1, min(embedder.batch_size, len(cut) // (4 * usable_cores())))  # so that no core waits for another
    batches = [cut[start : start + size] for start in range(0, len(cut), size)]

    def run(places):
        for place in places:
            embedder.embed_windows(batches[place])
            yield place

    list(in_threads(run, len(batches), usable_cores(), room=4, name="model", torch_threads=1))


def front_end_in_numpy(model: TwoTower) -> Callable[[list[np.ndarray]], torch.Tensor]:
    """From the windows of a file to what the network takes, as code around a published model does it."""
    if isinstance(model.audio, ClapAudioTower):
        extractor = model.audio.extractor
        return lambda cut: extractor(cut, sampling_rate=model.sample_rate, return_tensors="pt")["input_features"]
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    end = model.audio.front_end
    area = "slaney" if end.unit_area else None
    filters = mel_filter_bank(
        end.n_fft // 2 + 1, end.bands, end.f_min, end.f_max, end.sample_rate, norm=area, mel_scale=end.mel_scale
    )
    hann = window_function(end.n_fft, "hann")

    def log_mel(samples: np.ndarray) -> np.ndarray:
        decibels = spectrogram(
            samples.astype(np.float64),
            hann,
            frame_length=end.n_fft,
            hop_length=end.hop,
            power=2.0,
            pad_mode="constant",
            mel_filters=filters,
            log_mel="dB",
        )
        return (np.maximum(decibels - end.full_scale_db, end.floor_db) - end.mean_db) / end.std_db

    return lambda cut: torch.from_numpy(np.stack([log_mel(samples) for samples in cut])).float()


def network(model: TwoTower, features: torch.Tensor) -> np.ndarray:
    if isinstance(model.audio, ClapAudioTower):
        vectors = model.audio.encoder(input_features=features).audio_embeds
        return torch.nn.functional.normalize(vectors, dim=-1).numpy()
    return model.embed_audio_features(features).numpy()


@torch.inference_mode()
def file_loop(model: TwoTower, paths: list[Path]) -> np.ndarray:
    import librosa

    front_end = front_end_in_numpy(model)
    pooled = []
    for path in paths:
        samples, _ = librosa.load(path, sr=model.sample_rate, mono=True)
        starts = model.windows.starts(len(samples), model.sample_rate)
        vectors = network(model, front_end([samples[start : start + model.window_samples] for start in starts]))
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


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time of this process and its workers."""
    begun, used = time.perf_counter(), processor_seconds()
    run()
    return time.perf_counter() - begun, processor_seconds() - used


def processor_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tower", choices=(*CNNS, "Clap"), default="MobileCnn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--files", type=int)
    parser.add_argument("--turns", type=int, help="each in turn, so often; the median counts")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--formats", default="mp3,flac")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the files are made, and found again")
    parser.add_argument("--make-only", action="store_true", help="make the files and leave measuring to a later call")
    args = parser.parse_args()
    files, turns = args.files or (8 if args.quick else 24), args.turns or (1 if args.quick else 3)
    embedder = Embedder(model_of(args.tower), device=args.device, batch_size=args.batch_size)
    claims = []
    for suffix in args.formats.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            paths = corpus(folder, suffix, files, 60.0)
            if not args.make_only:
                claims += measured(embedder, paths, turns, f"{args.tower}, {suffix}")
    for one in claims:
        print(json.dumps(one))


def measured(embedder: Embedder, paths: list[Path], turns: int, what: str) -> list[dict[str, object]]:
    model, long = embedder.model, hours(paths)
    reference = ours(embedder, paths[:4])
    cut = [window for path in paths for window in windows(path, model.sample_rate, model.windows)]
    runs: dict[str, Callable[[], object]] = {
        "xmodal": lambda: ours(embedder, paths),
        "decoding alone": lambda: decoding_alone(model, paths),
        "model alone": lambda: model_alone(embedder, cut),
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
        runs[name] = partial(run, model, paths)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(turns):
        for name in list(runs) if turn % 2 == 0 else reversed(runs):
            found[name].append(timed(runs[name]))
    clock, busy = (
        {name: statistics.median(turn[which] for turn in each) / long for name, each in found.items()}
        for which in (0, 1)
    )
    print(
        f"\n{what}, {long:.2f} hours of audio, {usable_cores()} cores, {torch.get_num_threads()} threads of torch, "
        f"{embedder.device}, median of {turns} turns:\n"
        f"  {'':16} hours of audio an hour, processor seconds an hour of audio"
    )
    for name, seconds in clock.items():
        print(f"  {name:16} {3600 / seconds:23,.0f}, {busy[name]:33.2f}", flush=True)
    rates = {name: 1 / seconds for name, seconds in clock.items()}
    mine = rates["xmodal"]
    slower = min(rates["decoding alone"], rates["model alone"])
    both = 1 / (clock["decoding alone"] + clock["model alone"])
    claims = [
        claim(f"{what}: share of the slower of decoding and model alone", mine, slower, 0.9),
        claim(f"{what}: share of decoding and model sharing the cores", mine, both, 0.9),
        claim(f"{what}: beside a DataLoader", mine, rates["DataLoader"], 1.3),
    ]
    if "loop over files" in rates:
        claims.append(claim(f"{what}: beside a loop over files", mine, rates["loop over files"], 3.0))
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
