"""The commands that put words to files, and make ready for it. Each returns the exit code."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from xmodal.audio import find_audio
from xmodal.cli.shared import embed_all, load_embedder, print_json, print_line, print_table
from xmodal.cli.tag_outputs import print_csv, tags_line, write_curves, write_into_files, write_reasons
from xmodal.data.manifests import read_tracks
from xmodal.data.splits import split_tracks
from xmodal.data.tracks import Track
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.errors import DataError, SpaceMismatchError
from xmodal.evaluation import few_shot_curve, label_matrix
from xmodal.evaluation import probe as run_probe
from xmodal.evaluation.judge import vocabulary_of
from xmodal.metrics import Reliability
from xmodal.tagging import (
    NULL_PROMPTS,
    Calibration,
    EnrolledTags,
    TagScorer,
    Vocabulary,
    calibrate_to_prior,
    enrol,
    fit_calibration,
    read_vocabulary,
    vocabulary_from_json,
    vocabulary_to_json,
    with_enrolled,
)

_TOP = 5


def tag(args: Namespace) -> int:
    """``xmodal tag``: files to the words of a vocabulary that fit them."""
    if args.write and args.calibration is None and args.prior is None:
        raise ValueError("--write puts only likely tags into files; say what is likely with --calibration or --prior")
    fitted = None if args.calibration is None else Calibration.load(args.calibration)
    vocabulary = _vocabulary(args.tags, fitted)
    files = [path for given in args.files for path in (find_audio(given) if given.is_dir() else [given])]
    embedder = load_embedder(args.model, args)
    reference = _reference(args, embedder)
    scorer = make_scorer(
        vocabulary, embedder, None if reference is None else reference.vectors, args.languages, args.null_prompts
    )
    if args.enrolled is not None:
        scorer = with_enrolled(scorer, EnrolledTags.load(args.enrolled, embedder.space_id))
    calibration = _calibration(args, fitted, scorer, embedder, reference)
    rows = embed_all(embedder, files).embeddings
    if not len(rows):
        return 1
    described = _describe(scorer, calibration, rows.vectors, args.k)
    paths = [files[int(id_)] for id_ in rows.ids]
    found = [{"path": str(path), "tags": tags} for path, tags in zip(paths, described, strict=True)]
    if args.json:
        print_json(found)
    elif args.csv:
        print_csv(found)
    else:
        print_table([["file", "tags"], *zip(map(str, paths), map(tags_line, described), strict=True)])
    if args.curves is not None:
        write_curves(embedder, scorer, calibration, paths, found, args.curves)
    if args.why is not None:
        write_reasons(embedder, scorer, paths, found, args.why)
    return write_into_files(paths, found, args.undo) if args.write else 0


def make_scorer(
    vocabulary: Vocabulary,
    embedder: Embedder,
    reference: np.ndarray | None = None,
    languages: Sequence[str] = (),
    null_prompts: bool = False,
) -> TagScorer:
    """The scorer that the options ask for."""
    return TagScorer(
        vocabulary,
        embedder.embed_texts,
        reference=reference,
        languages=languages,
        null_prompts=NULL_PROMPTS if null_prompts else (),
    )


def _reference(args: Namespace, embedder: Embedder) -> Embeddings | None:
    if args.reference is None:
        return None
    reference = Embeddings.load(args.reference)
    if reference.space_id != embedder.space_id:
        raise SpaceMismatchError(
            f"{args.reference} holds vectors of space {reference.space_id} but the model makes those of space "
            f"{embedder.space_id}; make it again with: xmodal embed AUDIO --model {args.model} --out {args.reference}"
        )
    return reference


def _vocabulary(tags: str | None, fitted: Calibration | None) -> Vocabulary:
    if tags is not None:
        return read_vocabulary(tags)
    if fitted is None:
        raise ValueError('say which tags: --tags "a, b", --tags FILE, or a --calibration that brings its own')
    return vocabulary_from_json(fitted.report["vocabulary"])


def _calibration(
    args: Namespace,
    fitted: Calibration | None,
    scorer: TagScorer,
    embedder: Embedder,
    reference: Embeddings | None,
) -> Calibration | None:
    if fitted is not None:
        ours = {"null prompts": args.null_prompts, "reference": reference is not None}
        theirs = {name: fitted.report.get(name, False) for name in ours}
        if theirs != ours:
            said = ", ".join(f"{name}: {'yes' if value else 'no'}" for name, value in theirs.items())
            raise ValueError(f"{args.calibration} was fitted with other scores ({said}); score in the same way")
        return fitted.for_tags(scorer.tags, embedder.space_id)
    if args.prior is None:
        return None
    if reference is None:
        raise ValueError(
            "--prior needs a catalogue to know which scores are high; give its vectors with --reference FILE.parquet"
        )
    return calibrate_to_prior(scorer.score(reference.vectors), args.prior, scorer.tags, embedder.space_id)


def _describe(
    scorer: TagScorer, calibration: Calibration | None, vectors: np.ndarray, top: int | None
) -> list[list[dict[str, Any]]]:
    """For each track its tags, best first: all of them or ``top``; with a calibration those that are not ruled out."""
    score = scorer.score(vectors)
    if calibration is None:
        best = score.argsort(dim=1, descending=True, stable=True)[:, : top or _TOP].tolist()
        return [[_entry(scorer, row, column) for column in columns] for row, columns in zip(score, best, strict=True)]
    probability = scorer.vocabulary.with_parents(calibration.probabilities(score))
    given = calibration.decide(probability)
    described = []
    for row, columns in enumerate(probability.argsort(dim=1, descending=True, stable=True).tolist()):
        kept = [column for column in columns if int(given[row, column]) != 0][:top]
        described.append(
            [
                _entry(scorer, score[row], column)
                | {"probability": float(probability[row, column]), "sure": int(given[row, column]) == 1}
                for column in kept
            ]
        )
    return described


def _entry(scorer: TagScorer, score: torch.Tensor, column: int) -> dict[str, Any]:
    return {"tag": scorer.tags[column], "kind": scorer.kinds[column], "score": float(score[column])}


def tag_undo(args: Namespace) -> int:
    """``xmodal tag undo``: files get the tags back that they had."""
    from xmodal.tagging.write import undo_tags

    done, kept = undo_tags(args.undo)
    for sentence in kept:
        sys.stderr.write(f"xmodal: {sentence}\n")
    print_line(f"{done} files have their old tags again")
    return 1 if kept else 0


def tag_fit(args: Namespace) -> int:
    """``xmodal tag fit``: probabilities and thresholds from a labelled manifest."""
    from xmodal.tag_plots import plot_reliability

    tracks = _labelled(args)
    embedder = load_embedder(args.model, args)
    vocabulary = vocabulary_of(tracks) if args.tags is None else read_vocabulary(args.tags)
    if vocabulary is None:
        raise DataError(f"the tracks of {args.manifest} have no tags; name the columns with --tag-fields A,B")
    reference = _reference(args, embedder)
    scorer = make_scorer(
        vocabulary, embedder, None if reference is None else reference.vectors, args.languages, args.null_prompts
    )
    result = embed_all(embedder, tracks)
    kept = [tracks[int(id_)] for id_ in result.embeddings.ids]
    if not kept:
        return 1
    labels, valid = scorer.vocabulary.labels_of_tracks(kept)
    score = scorer.score(result.embeddings.vectors)
    calibration = fit_calibration(
        score,
        labels,
        scorer.tags,
        embedder.space_id,
        valid=valid,
        groups=_groups(kept),
        method=args.method,
        folds=args.folds,
        max_error=args.max_error,
        seed=args.seed,
    )
    calibration.report.update(
        {
            "manifest": str(args.manifest),
            "model": str(args.model),
            "null prompts": args.null_prompts,
            "reference": reference is not None,
            "vocabulary": vocabulary_to_json(vocabulary),
        }
    )
    calibration.save(args.out)
    if args.plot is not None:
        held_out = calibration.report["held-out reliability"]
        curve = Reliability(**{name: torch.tensor(values) for name, values in held_out.items()})
        plot_reliability(curve, args.plot, title=f"{len(kept)} tracks, each held out once")
    if args.json:
        print_json(calibration.report)
        return 0
    report = calibration.report
    rows = [["held out", "value"]]
    rows += [[f"log loss, {name}", f"{value:.4f}"] for name, value in report["held-out log loss"].items()]
    rows += [
        [name, f"{report[key]:.4f}"]
        for name, key in (
            ("log loss of the base rates alone", "held-out log loss of base rates"),
            ("Brier score", "held-out Brier score"),
            ("calibration error", "held-out calibration error"),
            ("macro F1 at the thresholds", "held-out macro F1"),
            ("share of pairs decided", "decided"),
            ("share wrong among them", "wrong among decided"),
        )
    ]
    print_line(f"{len(kept)} tracks, {len(scorer.tags)} tags, {report['folds']} folds, method {calibration.method}\n")
    print_table(rows)
    print_line(f"\n{args.out}")
    return 0


def tag_enrol(args: Namespace) -> int:
    """``xmodal tag enrol``: a tag from example files."""
    embedder = load_embedder(args.model, args)
    files = [path for given in args.files for path in (find_audio(given) if given.is_dir() else [given])]
    known = EnrolledTags(embedder.space_id)
    if args.into.exists():
        known = EnrolledTags.load(args.into, embedder.space_id)
    reference = _reference(args, embedder)
    rows = embed_all(embedder, files).embeddings
    if not len(rows):
        return 1
    text = None
    if not args.no_text:
        vocabulary = Vocabulary([args.name] if args.kind is None else {args.kind: [args.name]})
        text = TagScorer(vocabulary, embedder.embed_texts).vectors[0]
    made = enrol(
        args.name,
        rows.vectors,
        text,
        reference=None if reference is None else reference.vectors,
        prior=args.text_weight,
        kind=args.kind,
        example_ids=[str(files[int(id_)]) for id_ in rows.ids],
    )
    known.with_tag(made).save(args.into)
    print_line(f"{args.name!r} is enrolled from {len(rows)} files in {args.into}")
    return 0


def tag_forget(args: Namespace) -> int:
    """``xmodal tag forget``: take an enrolled tag out again."""
    read = json.loads(args.source.read_text("utf-8")) if args.source.is_file() else {}
    known = EnrolledTags.load(args.source, read.get("space_id", "") if isinstance(read, dict) else "")
    known.without(args.name).save(args.source)
    print_line(f"{args.name!r} is no longer in {args.source}")
    return 0


def probe(args: Namespace) -> int:
    """``xmodal probe``: what frozen vectors know of one kind of tag."""
    from xmodal.tag_plots import plot_few_shots

    tracks = [track for track in _labelled(args) if track.tags.get(args.kind)]
    if not tracks:
        raise DataError(f"no track of {args.manifest} has tags of kind {args.kind!r}; name another with --kind")
    embedder = load_embedder(args.model, args)
    result = embed_all(embedder, tracks)
    kept = [tracks[int(id_)] for id_ in result.embeddings.ids]
    names, labels = label_matrix([track.tags for track in kept], args.kind)
    vectors, groups = result.embeddings.vectors, _groups(kept)
    found = [
        run_probe(vectors, labels, kind=kind, groups=groups, folds=args.folds, seed=args.seed) for kind in args.probes
    ]
    curve = None
    if args.curve is not None:
        text = TagScorer({args.kind: names}, embedder.embed_texts).vectors
        curve = few_shot_curve(vectors, labels, text=text, groups=groups, shots=args.shots, seed=args.seed)
        plot_few_shots(curve, args.curve, title=f"{args.kind}: {len(kept)} tracks, {curve.tags} tags")
    if args.json:
        facts = {"model": str(args.model), "space_id": embedder.space_id, "manifest": str(args.manifest)}
        shots = None if curve is None else asdict(curve)
        print_json({**facts, "kind": args.kind, "probes": [each.to_dict() for each in found], "curve": shots})
        return 0
    print_line(f"{len(kept)} tracks, {len(names)} labels of kind {args.kind!r}, space {embedder.space_id}\n")
    for each in found:
        print_table(each.table())
        print_line("")
    if curve is not None:
        rows = [["mAP after examples", *map(str, curve.shots)]]
        rows += [[way, *(f"{value:.3f}" for value in values)] for way, values in curve.mean.items()]
        rows += [["text alone", *[f"{curve.text:.3f}"] * len(curve.shots)]] if curve.text is not None else []
        print_table(rows)
        print_line(f"\n{args.curve}")
    return 0


def _labelled(args: Namespace) -> list[Track]:
    every = read_tracks(args.manifest, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip")
    tracks = every if args.split == "all" else split_tracks(every)[args.split]
    if not tracks:
        raise DataError(f"{args.manifest} has no tracks in its {args.split} split; choose another with --split, or all")
    return list(tracks)


def _groups(tracks: Sequence[Track]) -> torch.Tensor:
    names = [track.group or track.artist or track.id for track in tracks]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([place[name] for name in names])
