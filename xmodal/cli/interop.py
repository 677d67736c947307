"""The commands that bring models in and take them elsewhere. Each takes the parsed words and returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from xmodal.cli.shared import load_embedder, print_json, print_line, print_table

if TYPE_CHECKING:
    from xmodal.data.tracks import Track


def import_model(args: Namespace) -> int:
    """``xmodal import``: a CLAP model of transformers to a model folder."""
    from xmodal.importers import import_clap

    model = import_clap(args.source)
    space_id = model.save(args.out, card=f"Imported from `{args.source}`, in its own joint space.")
    print_line(f"{args.source}: {model.dim} dimensions at {model.sample_rate} Hz, space {space_id}, in {args.out}")
    return 0


def export_onnx(args: Namespace) -> int:
    """``xmodal export-onnx``: a model to ONNX graphs, with a report of what it costs."""
    from xmodal.data.manifests import read_tracks
    from xmodal.interop.onnx import export_onnx as export
    from xmodal.interop.onnx import parity

    tracks: list[Track] = []
    if args.check is not None:  # read first, so that a bad manifest costs no export
        tracks = read_tracks(args.check, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip")
    embedder = load_embedder(args.model, args)
    export(embedder.model, args.out, precisions=args.precision, overwrite=args.force)
    report = parity(embedder, args.out, args.precision, tracks)
    if args.json:
        print_json([asdict(row) for row in report])
        return 0
    names = list(report[0].recall)
    header = ["precision", "MB", "audio cosine", "text cosine", *names, *(f"{name} change" for name in names)]
    rows = [
        [row.precision, f"{row.megabytes:.1f}", f"{row.audio_cosine:.6f}", f"{row.text_cosine:.6f}"]
        + [f"{row.recall[name][1]:.3f}" for name in names]
        + [f"{row.recall[name][1] - row.recall[name][0]:+.3f}" for name in names]
        for row in report
    ]
    print_table([header, *rows])
    print_line(f"smallest cosine of each vector with the model's; graphs, settings and tokenizer in {args.out}")
    return 0
