"""R@10 against bytes a track: dimensions kept, times how a component is kept.

    python benchmarks/compression.py                                          # a minute, on made pairs
    python benchmarks/compression.py --model demo/model --manifest tracks.csv # a model of yours, its test split
    python benchmarks/compression.py --model ... --manifest ... --heads       # and heads trained on it to be cut

Without a model two linear towers are trained on made pairs: two noisy views of a hidden vector whose components matter
less and less. They are trained twice, with the loss alone and with MatryoshkaLoss around it, and judged on 2,000 pairs
that training did not see. With a model its audio and captions are embedded; whether its first dimensions say most
depends on how it was trained. With --heads what its towers say of the training split, before their projections, is
projected anew: a linear map a side is trained with the loss alone and with MatryoshkaLoss around it, from one start
and on the same batches: what an existing model gains by it in a minute. --folder keeps what the towers said.

float32, float16 and int8 are what ``xmodal embed --dtype`` keeps; pq is product quantisation with half a byte for every
two components, and pq + refine compares its best 160 once more with int8; binary is the sign of each component, asked
with whole queries. The last lines are one JSON object a claim.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import xmodal
from xmodal.audio import windows
from xmodal.data import Track
from xmodal.data.manifests import read_tracks
from xmodal.embedder import Embedder
from xmodal.embeddings import packed, unpacked
from xmodal.losses import InfoNCELoss, MatryoshkaLoss, apply_loss

K, BATCH = 10, 256
Pairs = tuple[torch.Tensor, torch.Tensor]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def recall(scores: np.ndarray, owners: np.ndarray) -> float:
    """Share of texts whose own track is among the first ten; ties count against it."""
    own = scores[np.arange(len(owners)), owners][:, None]
    return float(((scores >= own).sum(axis=1) <= K).mean())


def product_quantised(audio: np.ndarray, half_bytes: int) -> np.ndarray:
    from xmodal.index.faiss import faiss

    codes = faiss.ProductQuantizer(audio.shape[1], half_bytes, 4)
    codes.cp.min_points_per_centroid = 1  # a test split is small; FAISS would say so for every part of the vector
    codes.train(audio)
    decoded: np.ndarray = codes.decode(codes.compute_codes(audio))
    return decoded


def table(
    audio: np.ndarray, texts: np.ndarray, owners: np.ndarray, dims: list[int]
) -> dict[tuple[int, str], tuple[float, float]]:
    """(dimensions, how) -> (bytes a track, R@10)."""
    found = {}
    for dim in dims:
        kept, asked = unit(audio[:, :dim]), unit(texts[:, :dim])
        for dtype, size in (("float32", 4), ("float16", 2), ("int8", 1)):
            scores = asked @ unpacked(packed(kept, dtype)).T
            found[dim, dtype] = (size * dim, recall(scores, owners))
        if dim % 2 == 0:
            coarse = asked @ product_quantised(kept, dim // 2).T
            found[dim, "pq"] = (dim / 4, recall(coarse, owners))
            first = min(16 * K, len(kept))
            best = np.argpartition(-coarse, first - 1, axis=1)[:, :first]
            fine = asked @ unpacked(packed(kept, "int8")).T
            refined = np.full_like(fine, -2.0)
            np.put_along_axis(refined, best, np.take_along_axis(fine, best, 1), 1)
            found[dim, "pq + refine"] = (dim / 4 + dim, recall(refined, owners))
        found[dim, "binary"] = (dim / 8, recall(asked @ unit(np.where(kept >= 0, 1.0, -1.0)).T, owners))
    return found


def made_pairs(count: int, seed: int, width: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    shape = np.random.default_rng(7)
    mix = [shape.standard_normal((width, 192)) / width**0.5 for _ in range(2)]
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, width)) * np.arange(1, width + 1) ** -0.4
    views = [np.tanh((hidden + 0.12 * rng.standard_normal(hidden.shape)) @ one) for one in mix]
    return torch.tensor(views[0]).float(), torch.tensor(views[1]).float()


def trained(
    loss: torch.nn.Module,
    audio: torch.Tensor,
    text: torch.Tensor,
    held: tuple[torch.Tensor, torch.Tensor],
    *,
    dim: int,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Two linear towers, trained on pairs of rows; what they make of the held-out ones."""
    torch.manual_seed(0)
    towers = [torch.nn.Linear(side.shape[1], dim) for side in (audio, text)]
    parameters = [*towers[0].parameters(), *towers[1].parameters(), *loss.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3)
    relevance = torch.eye(BATCH, dtype=torch.bool)
    for _ in range(steps):
        rows = torch.randint(len(audio), (BATCH,))
        optimiser.zero_grad()
        apply_loss(loss, towers[0](audio[rows]), towers[1](text[rows]), relevance).backward()
        optimiser.step()
    with torch.no_grad():
        return tuple(tower(view).numpy() for tower, view in zip(towers, held, strict=True))


def losses(dims: list[int]) -> tuple[tuple[str, torch.nn.Module], ...]:
    alone = ("the loss alone", InfoNCELoss(0.07))
    return alone, ("MatryoshkaLoss", MatryoshkaLoss(InfoNCELoss(0.07), sorted(dims)))


def split_of(manifest: str, split: str) -> list[Track]:
    tracks = [track for track in read_tracks(manifest) if track.captions]
    return [track for track in tracks if track.split == split] or tracks


@torch.inference_mode()
def before_projection(embedder: Embedder, tracks: list[Track], kept: Path | None) -> Pairs:
    """What the towers say of tracks (the mean over their windows) and of their first captions."""
    if kept is not None and kept.exists():
        with np.load(kept) as found:
            return torch.from_numpy(found["audio"]), torch.from_numpy(found["text"])
    model, heard = embedder.model, []
    for track in tracks:
        cut = list(windows(track.audio, model.sample_rate, model.windows))
        waveform = torch.from_numpy(np.stack([window.samples for window in cut]))
        heard.append(model.audio(waveform, torch.tensor([window.valid_samples for window in cut])).mean(dim=0))
    captions = [track.captions[0].text for track in tracks]
    read = [model.text(captions[start : start + 32]) for start in range(0, len(captions), 32)]
    audio, text = torch.stack(heard), torch.cat(read)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, audio=audio.numpy(), text=text.numpy())
    return audio.clone(), text.clone()


def show(name: str, found: dict[tuple[int, str], tuple[float, float]]) -> None:
    kinds = list(dict.fromkeys(kind for _, kind in found))
    print(f"\n{name}: R@{K} (bytes a track)")
    print("  dim  " + "".join(f"{kind:>18}" for kind in kinds))
    for dim in sorted({dim for dim, _ in found}, reverse=True):
        cells = [found.get((dim, kind)) for kind in kinds]
        print(f"  {dim:4} " + "".join(f"{f'{cell[1]:.3f} ({cell[0]:g})' if cell else '':>18}" for cell in cells))


def of_model(args: argparse.Namespace) -> None:
    embedder = xmodal.load(args.model, device="cpu")
    test = split_of(args.manifest, "test")
    audio = embedder.embed_files(test, raise_errors=True).embeddings.vectors
    texts = embedder.embed_texts([track.captions[0].text for track in test])
    dims = [embedder.dim // part for part in (1, 2, 4, 8, 16) if embedder.dim % (2 * part) == 0]
    show(args.model, table(audio, texts, np.arange(len(test)), dims))
    if not args.heads:
        return
    train, held = (
        before_projection(embedder, split_of(args.manifest, split), args.folder and args.folder / f"{split}.npz")
        for split in ("train", "test")
    )
    for name, loss in losses(dims):
        heads = trained(loss, *train, held, dim=embedder.dim, steps=150 if args.quick else 1_500)
        show(f"projected anew, {name}", table(*heads, np.arange(len(test)), dims))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--manifest")
    parser.add_argument("--heads", action="store_true")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where what the towers said is kept")
    args = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    if args.model:
        of_model(args)
        return
    dims, steps = [256, 128, 64, 32, 16], 150 if args.quick else 1_500
    tables = {}
    pairs, held = made_pairs(10_000, 1), made_pairs(2_000, 2)
    for name, loss in losses(dims):
        audio, texts = trained(loss, *pairs, held, dim=256, steps=steps)
        tables[name] = table(audio, texts, np.arange(len(audio)), dims)
        show(name, tables[name])
    alone, nested = tables["the loss alone"], tables["MatryoshkaLoss"]
    for what, ours, peer, goal in (
        (
            "R@10 with 32 of 256 dimensions, MatryoshkaLoss beside the loss alone",
            nested[32, "float32"],
            alone[32, "float32"],
            1.0,
        ),
        (
            "R@10 with all dimensions, MatryoshkaLoss beside the loss alone",
            nested[256, "float32"],
            alone[256, "float32"],
            0.97,
        ),
        ("R@10 in int8 beside float32", nested[256, "int8"], nested[256, "float32"], 0.99),
    ):
        ratio = ours[1] / max(peer[1], 1e-9)
        print(
            json.dumps(
                {
                    "claim": what,
                    "ours": ours[1],
                    "peer": peer[1],
                    "ratio": round(ratio, 3),
                    "goal": goal,
                    "met": ratio >= goal,
                }
            )
        )


if __name__ == "__main__":
    main()
