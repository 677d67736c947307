"""``xmodal demo``: the whole path on music that is composed on the spot, from silence to a ranked answer.

It composes a corpus, trains the small audio tower against a frozen MiniLM, judges the model on held-out compositions
described in held-out wording, exports and indexes their vectors, asks six questions, tags three clips with words
that no caption used, and draws pictures. Everything but the clips themselves stays in the output folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xmodal import plots
from xmodal.data import Track
from xmodal.data.datasets import evaluation_texts
from xmodal.data.demo import UNSEEN_WORDS, build_corpus, prompts
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.evaluation import (
    RetrievalResult,
    TagResult,
    evaluate_retrieval,
    evaluate_tags,
)
from xmodal.evaluation.methods import methods_of_run
from xmodal.index import Index, build_index
from xmodal.search import search
from xmodal.tagging import TagScorer
from xmodal.training import Cli, config_folder, run, run_folder, show_log

QUESTIONS = (
    "a slow sad cello melody without any drums",
    "fast cheerful banjo folk tune",
    "heavy metal with screaming distorted guitars",
    "dreamy ambient synthesizer pads, nothing else happening",
    "smoky jazz club, saxophone and double bass",
    "playful marimba, short bouncy notes",
)
_TAGGED_CLIPS = 3


@dataclass
class Judged:
    """How the held-out clips were judged, by the name of the method.

    Attributes:
        tracks: The held-out clips.
        vectors: Their vectors in the model's space.
        retrieval: Whole captions in held-out wording.
        tags: Queries that name one tag by its own name.
        worded_tags: Queries that name one tag in held-out wording, each on its own.
    """

    tracks: list[Track]
    vectors: np.ndarray
    retrieval: dict[str, RetrievalResult]
    tags: dict[str, TagResult]
    worded_tags: dict[str, TagResult]


def main(args: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = _options().parse_args(args)
    # Without a terminal rich assumes 80 columns, in which the tables would not fit.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    started = time.monotonic()
    out: Path = options.keep or options.out
    out.mkdir(parents=True, exist_ok=True)
    corpus = out / "corpus"

    with _step(console, f"Composing {options.clips:,} clips of music and the words for them"):
        manifest = _compose(console, corpus, options)
    with _step(console, "Training two towers: a small CNN hears, a frozen MiniLM reads"), _only_warnings():
        cli = run(_training_words(manifest, out, options))
    with _step(console, "Embedding the held-out clips and judging the model on them"):
        model = out / "model"
        cli.model.network.save(model, overwrite=True)
        embedder = Embedder(cli.model.network, source=model)
        judged = _judge(cli, embedder)
        _print_figures(console, judged)
    with _step(console, "Exporting the vectors and building the index"):
        index = _export(judged, embedder, out)
    _ask(console, embedder, index)
    correct = _tag_with_new_words(console, embedder, judged)
    with _step(console, "Drawing"):
        pictures = _draw(judged, embedder, run_folder(cli.trainer) / "metrics.csv", out)
    results = {
        "clips": options.clips,
        "space_id": embedder.space_id,
        "retrieval": {name: result.to_dict() for name, result in judged.retrieval.items()},
        "tags": {name: result.to_dict() for name, result in judged.tags.items()},
        "tags_in_held_out_words": {name: result.to_dict() for name, result in judged.worded_tags.items()},
        "unseen_words": correct,
        "seconds": round(time.monotonic() - started, 1),
    }
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if options.keep is None:
        shutil.rmtree(corpus)
    _print_ending(console, out, pictures, options, time.monotonic() - started)
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmodal demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where the results go (default: demo)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put the results here and leave the clips there too")
    parser.add_argument("--clips", type=int, default=4000, help="how many clips to compose (default: 4000)")
    parser.add_argument("--epochs", type=int, help="how long to train (default: what configs/demo.yaml says)")
    parser.add_argument("--seed", type=int, default=0, help="another seed composes other music (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes that compose (default: 2)")
    return parser


def _compose(console: Console, corpus: Path, options: argparse.Namespace) -> Path:
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("clips", total=options.clips)
        report = build_corpus(
            corpus,
            clips=options.clips,
            seed=options.seed,
            workers=options.workers,
            progress=lambda done, _total: bar.update(task, completed=done),
        )
    return report.manifest


def _training_words(manifest: Path, out: Path, options: argparse.Namespace) -> list[str]:
    configs = config_folder()
    words = ["fit", "--config", str(configs / "base.yaml"), "--config", str(configs / "demo.yaml")]
    words += ["--data.manifest", str(manifest), "--runs", str(out / "runs"), "--name", "demo"]
    words += ["--trainer.enable_model_summary", "false"]
    if options.epochs is not None:
        words += ["--trainer.max_epochs", str(options.epochs)]
        # The config looks at the validation set every third epoch; a shorter run must look at its last.
        words += ["--trainer.check_val_every_n_epoch", str(min(options.epochs, 3))]
    return words


def _judge(cli: Cli, embedder: Embedder) -> Judged:
    """Whole captions in held-out wording and queries of one tag, beside two baselines that train no tower."""
    tracks = cli.datamodule.read()["test"]
    captions, relevance = evaluation_texts(tracks, captions_per_track=1)
    by_kind = _tags_by_kind(tracks)
    methods = methods_of_run(cli, embedder, tracks)
    retrieval, tags, worded = {}, {}, {}
    for method in methods:
        retrieval[method.name] = evaluate_retrieval(method.audio, method.embed_texts(captions), relevance)
        scorer = TagScorer(by_kind, method.embed_texts)
        labels, valid = scorer.vocabulary.labels_of_tracks(tracks)
        tags[method.name] = evaluate_tags(method.audio, scorer.vectors, labels, scorer.tags, valid=valid)
        queries = [
            (text, column)
            for column, (tag, kind) in enumerate(zip(scorer.tags, scorer.kinds, strict=True))
            for text in prompts(tag, kind or "", "test")
        ]
        texts, columns = [text for text, _ in queries], [column for _, column in queries]
        worded[method.name] = evaluate_tags(
            method.audio, method.embed_texts(texts), labels[:, columns], texts, valid=valid[:, columns]
        )
    return Judged(tracks, np.asarray(methods[0].audio), retrieval, tags, worded)


def _tags_by_kind(tracks: Sequence[Track]) -> dict[str, list[str]]:
    """Every tag of the tracks, under the first kind that has it."""
    kinds: dict[str, list[str]] = {}
    seen: set[str] = set()
    for track in tracks:
        for kind, tags in track.tags.items():
            new = [tag for tag in tags if tag not in seen]
            seen.update(new)
            kinds.setdefault(kind, []).extend(new)
    return {kind: sorted(tags) for kind, tags in kinds.items() if tags}


def _print_figures(console: Console, judged: Judged) -> None:
    first = judged.retrieval["xmodal"].text_to_audio
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("", no_wrap=True)
    for heading in (*judged.retrieval, "chance"):
        table.add_column(heading, justify="right")
    rows: list[tuple[str, list[float]]] = []
    # A small corpus has no ten candidates; then the longest list that there is stands for R@10.
    lists = [name for name in first.values if name.startswith(("R@", "mAP@")) and name != "R@5"]
    for name in (*lists, "MedR"):
        values = [result.text_to_audio.values[name] for result in judged.retrieval.values()]
        rows.append((f"sentence finds its clip: {name}", [*values, first.chance[name]]))
    back = [result.audio_to_text.values["R@1"] for result in judged.retrieval.values()]
    rows.append(("clip finds its sentence: R@1", [*back, judged.retrieval["xmodal"].audio_to_text.chance["R@1"]]))
    for title, group in (("one tag", judged.tags), ("one tag, new words", judged.worded_tags)):
        for name, shown in (("ROC-AUC", "ROC-AUC"), ("PR-AUC", "mAP")):
            chance = group["xmodal"].chance[name]
            rows.append((f"{title}: {shown}", [*(result.values[name] for result in group.values()), chance]))
    for label, values in rows:
        table.add_row(label, *(f"{value:.1f}" if "MedR" in label else f"{value:.3f}" for value in values))
    console.print(
        f"\n  {len(judged.tracks)} compositions that training never heard, described in words it never read:\n"
    )
    with console.capture() as printed:
        console.print(Padding(table, (0, 0, 0, 2), expand=False))
    # rich fills cells up with blanks, which would stay in a file.
    console.print(Text.from_ansi("\n".join(line.rstrip() for line in printed.get().splitlines())), "", sep="\n")


def _export(judged: Judged, embedder: Embedder, out: Path) -> Index:
    embeddings = Embeddings(
        ids=[track.id for track in judged.tracks],
        vectors=judged.vectors,
        space_id=embedder.space_id,
        metadata=[{"path": str(track.path), "title": track.id, "tags": _words(track)} for track in judged.tracks],
        model=embedder.source,
    )
    embeddings.save(out / "embeddings.parquet")
    index = build_index(embeddings)
    index.save(out / "index")
    return index


def _ask(console: Console, embedder: Embedder, index: Index) -> None:
    answers = search(index, embedder.embed_texts(list(QUESTIONS)), 5, space_id=embedder.space_id)
    for question, hits in zip(QUESTIONS, answers, strict=True):
        console.print(f"\n  [bold]“{question}”[/bold]")
        for hit in hits:
            _print_beside(console, f"  {hit.rank}.  {hit.score:.2f}  {hit.id}  ", _enumerated(hit.metadata["tags"]))


def _tag_with_new_words(console: Console, embedder: Embedder, judged: Judged) -> dict[str, dict[str, float]]:
    """Tag clips with words that stand in no caption; say how often the first word of each kind is right."""
    kind_of = {tag: kind for kind, tags in _tags_by_kind(judged.tracks).items() for tag in tags}
    words: dict[str, list[str]] = {}
    for word, tag in UNSEEN_WORDS.items():
        if tag in kind_of:
            words.setdefault(kind_of[tag], []).append(word)
    words = {kind: names for kind, names in words.items() if len(names) > 1}
    scorer = TagScorer(words, embedder.embed_texts, reference=judged.vectors)
    console.print(
        "\n  Three clips, tagged with words that are in no caption ([green]✓[/green] right, [red]✗[/red] wrong):"
    )
    for track in judged.tracks[:: len(judged.tracks) // _TAGGED_CLIPS][:_TAGGED_CLIPS]:
        vector = judged.vectors[judged.tracks.index(track)]
        marks = []
        for kind in words:
            if kind in track.tags:
                word = scorer.rank_tags(vector, top=1, kind=kind)[0][0]
                right = UNSEEN_WORDS[word] in track.tags[kind]
                marks.append(f"{kind}: {word} {'[green]✓[/green]' if right else '[red]✗[/red]'}")
        console.print()
        _print_beside(console, f"  [bold]{track.id}[/bold]  ", _enumerated(_words(track)))
        _print_beside(console, "    ", marks, gap="   ")
    return _first_word_right(scorer, judged, words)


def _first_word_right(
    scorer: TagScorer, judged: Judged, words: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """By kind: share of all clips whose nearest new word is right, and what always naming one at random would get."""
    figures = {}
    score = scorer.score(judged.vectors)
    for kind, names in words.items():
        columns = [scorer.tags.index(name) for name in names]
        rows = [row for row, track in enumerate(judged.tracks) if kind in track.tags]
        own = [judged.tracks[row].tags[kind] for row in rows]
        right = torch.tensor([[UNSEEN_WORDS[name] in tags for name in names] for tags in own])
        best = score[rows][:, columns].argmax(dim=1)
        hit = right[torch.arange(len(rows)), best].float()
        figures[kind] = {"right": float(hit.mean()), "chance": float(right.float().mean()), "clips": len(rows)}
    return figures


def _draw(judged: Judged, embedder: Embedder, metrics_csv: Path, out: Path) -> list[Path]:
    styles = [track.tags["style"][0] for track in judged.tracks]
    names = sorted(set(styles))
    means = np.stack([judged.vectors[[style == name for style in styles]].mean(axis=0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    asked = TagScorer({"style": names}, embedder.embed_texts).vectors.numpy()
    pictures = [out / "map.png", out / "similarity.png", out / "training.png"]
    plots.plot_map(judged.vectors, styles, pictures[0], title="Held-out clips in the joint space", legend="style")
    plots.plot_similarity(
        means @ asked.T,
        [f"{name} clips" for name in names],
        [f"“{name}”" for name in names],
        pictures[1],
        title="Mean clip of each style against the words",
    )
    plots.plot_curves(metrics_csv, pictures[2], title="Training")
    return pictures


def _print_ending(
    console: Console, out: Path, pictures: Sequence[Path], options: argparse.Namespace, seconds: float
) -> None:
    console.print(f"\n  Done in {seconds:.0f} s. Pictures:")
    program = "xmodal" if shutil.which("xmodal") else _from_here(Path(sys.executable).parent / "xmodal")
    further = [
        f'{program} search "gloomy church organ" --index {out / "index"}',
        f"{program} embed YOUR_MUSIC --model {out / 'model'} --out mine.parquet",
        f'{program} tag SONG.mp3 --model {out / "model"} --tags "happy, sad, piano, guitar"',
    ]
    if options.keep is None:
        further.append(f"{program} demo --keep DIR     the same, and leaves the clips to listen to")
    # Paths and commands are there to be copied, so a long one is left to the terminal to break.
    console.print("\n".join(f"    {picture}" for picture in pictures), soft_wrap=True)
    console.print("\n  Next:")
    console.print("\n".join(f"    {command}" for command in further), soft_wrap=True)


def _words(track: Track) -> list[str]:
    return [tag for tags in track.tags.values() for tag in tags]


def _enumerated(words: Sequence[str]) -> list[str]:
    return [f"{word}," for word in words[:-1]] + list(words[-1:])


def _print_beside(console: Console, lead: str, parts: Sequence[str], gap: str = " ") -> None:
    """A lead, and beside it parts that are never broken; a further line begins in the column where the first did."""
    column = Text.from_markup(lead).cell_len
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}{gap}{part}" if lines else part
        if lines and column + Text.from_markup(longer).cell_len <= console.width:
            lines[-1] = longer
        else:
            lines.append(part)
    console.print(lead + f"\n{' ' * column}".join(lines), soft_wrap=True)


def _from_here(path: Path) -> Path:
    """A path as one would type it in this folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def _only_warnings() -> Iterator[None]:
    """What a run tells those who set it up is not for those who only look on."""
    loggers = [logging.getLogger(name) for name in ("xmodal", "pytorch_lightning", "lightning_fabric")]
    show_log()
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    console.print(f"\n[bold]{what}[/bold]")
    started = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - started:.0f} s[/dim]")
