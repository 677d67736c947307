"""``xmodal doctor``: a model and some data in, a diagnosis out."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xmodal.cli.shared import embed_all, load_embedder, print_json, print_line, print_table
from xmodal.data.datasets import evaluation_texts
from xmodal.data.manifests import read_tracks
from xmodal.data.splits import split_tracks
from xmodal.data.tracks import Track
from xmodal.doctor import (
    Finding,
    Report,
    Space,
    examine_file,
    examine_scales,
    examine_space,
    examine_weights,
)
from xmodal.embedder import Embedder
from xmodal.errors import DataError
from xmodal.model import CONFIG_FILE

_MARKS = {"healthy": "✓", "warning": "!", "ill": "✗", "not judged": "–"}


def doctor(args: Namespace) -> int:
    """``xmodal doctor``: print each check with its figure, a verdict and advice; 1 if something is ill."""
    folder = _model_folder(Path(args.model))
    found: list[Finding] = [examine_file(folder, trust=args.trust)]
    facts: dict[str, Any] = {"model": str(folder), "data": str(args.manifest)}
    if found[0].verdict == "ill":  # what does not fit cannot be loaded, and so not be asked
        return _say(Report(found, facts), args)
    tracks = _tracks(args)
    embedder = load_embedder(str(folder), args)
    found += examine_weights(embedder.model.cpu())
    embedder.model.to(embedder.device)
    found += examine_scales(_training_state(folder))
    space, failed = _space(embedder, tracks)
    facts |= {"space_id": embedder.space_id, "tracks": len(space.audio), "texts": len(space.text), "failures": failed}
    found += examine_space(space)
    report = Report(found, facts)
    _draw(space, report, args)
    return _say(report, args)


def _model_folder(given: Path) -> Path:
    """The folder itself, or the model in the folder of a run."""
    inside = given / "model"
    return inside if not (given / CONFIG_FILE).is_file() and (inside / CONFIG_FILE).is_file() else given


def _tracks(args: Namespace) -> list[Track]:
    every = read_tracks(args.manifest, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip")
    tracks = every if args.split == "all" else split_tracks(every)[args.split]
    told = [track for track in tracks if track.captions or track.tags]
    if len(told) < 2:
        raise DataError(
            f"{args.manifest} has {len(told)} tracks with a caption or tag in its {args.split} split and a diagnosis "
            "needs two; choose another --split, or name the columns of tags with --tag-fields"
        )
    # Evenly through the manifest, which is often sorted by label.
    step = len(told) / min(args.most, len(told))
    return [told[int(number * step)] for number in range(min(args.most, len(told)))]


def _space(embedder: Embedder, tracks: Sequence[Track]) -> tuple[Space, int]:
    result = embed_all(embedder, tracks)
    kept = [tracks[int(id_)] for id_ in result.embeddings.ids]
    if len(kept) < 2:
        raise DataError(f"{len(kept)} of {len(tracks)} tracks could be decoded, and a diagnosis needs two")
    texts, relevance = evaluation_texts(kept)
    space = Space(
        audio=torch.from_numpy(result.embeddings.vectors),
        text=torch.from_numpy(embedder.embed_texts(texts)),
        relevance=relevance,
        audio_names=[track.id for track in kept],
        text_names=texts,
    )
    return space, len(result.failures)


def _training_state(folder: Path) -> dict[str, torch.Tensor]:
    """The loss's own parameters, from the newest checkpoint that can be read beside the model; none is no fault."""
    written = (folder.parent / "checkpoints").glob("*.ckpt")
    for path in sorted(written, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError):
            continue  # a run that was stopped while it wrote
        return {name: value for name, value in state.items() if not name.startswith("network.")}
    return {}


def _draw(space: Space, report: Report, args: Namespace) -> None:
    if args.plot is None and args.tensorboard is None:
        return
    from xmodal.doctor.pictures import draw_space, pixels, save_picture

    picture = pixels(draw_space(space, title=f"{report.facts['model']}: {report.verdict}"))
    if args.plot is not None:
        save_picture(picture, args.plot)
    if args.tensorboard is not None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(args.tensorboard)) as writer:
            writer.add_image("doctor", picture, dataformats="HWC")
            for name, value in report.figures().items():
                writer.add_scalar(f"doctor/{name}", value)


def _say(report: Report, args: Namespace) -> int:
    if args.json:
        print_json(report.as_json())
    else:
        _print(report)
    return 1 if report.verdict == "ill" else 0


def _print(report: Report) -> None:
    facts = report.facts
    if "tracks" in facts:
        aside = f", {facts['failures']} files set aside" if facts["failures"] else ""
        print_line(f"{facts['tracks']} tracks, {facts['texts']} texts, space {facts['space_id']}{aside}\n")
    rows = [["", "check", "of", "figure", "what it means"]]
    for finding in report.findings:
        figure = "" if finding.figure is None else f"{finding.figure:.3g}"
        rows.append([_MARKS[finding.verdict], finding.check, finding.about, figure, finding.detail])
    print_table(rows)
    for verdict in ("ill", "warning"):
        for finding in report.of(verdict):
            shown = f" ({'; '.join(finding.examples)})" if finding.examples else ""
            print_line(f"\n{verdict}: {finding.check} of {finding.about}{shown}\n  {finding.advice}")
    counts = {verdict: len(report.of(verdict)) for verdict in ("healthy", "warning", "ill", "not judged")}
    print_line("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
