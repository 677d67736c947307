"""From a model to vectors of files and texts: the embedding contract.

The vector of a file depends on the file and the model alone. Files are cut by the model's fixed window policy,
windows of many files share batches, and a file's vector is pooled from its unit window vectors by the model's rule
(by default their mean, each weighted by how much of it is audio). Batch mates, order, the number of threads and how the
network is laid out for inference change a component by at most 1e-6, the rounding of float32 matrix products.

A file that cannot be decoded gets no vector: it is set aside with its reason, and the job goes on.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from xmodal.audio import Window, WindowPolicy, windows
from xmodal.data.tracks import Track, readable_path, track_metadata
from xmodal.embeddings import Embeddings
from xmodal.errors import AudioError
from xmodal.hub import fetch
from xmodal.lanes import in_threads
from xmodal.model import TwoTower
from xmodal.text import FIELD_PROMPTS, names_fields, parse_fields, split_lines, write_fields
from xmodal.towers.folding import folded
from xmodal.view import Pooling, View, pool

_LYRIC_LINES = 4
_WINDOWS_A_PASS_ON_CPU = 4


@dataclass
class FilesResult:
    """What became of a list of files.

    Attributes:
        embeddings: One unit vector per file that could be decoded, in the order given.
        failures: The files that could not, each with its reason.
    """

    embeddings: Embeddings
    failures: list[AudioError]


@dataclass(frozen=True)
class FileWindows:
    """One file's windows in the joint space.

    Attributes:
        vectors: ``[windows, dim]``, unit.
        start_seconds: Where each window starts in the file.
        weights: Share of each window that is audio and not padding, in (0, 1].
        energies: Sum of squared samples of each window.
        end_seconds: Where in the file the last window's audio ends.
        pooling: How :meth:`pooled` makes one vector of them.
        top_windows: How many windows the pooling ``top_k`` keeps.
    """

    vectors: np.ndarray
    start_seconds: tuple[float, ...]
    weights: np.ndarray
    energies: np.ndarray
    end_seconds: float
    pooling: Pooling = "mean"
    top_windows: int = 3

    def pooled(self) -> np.ndarray:
        """The file's vector ``[dim]`` (see :func:`xmodal.view.pool`)."""
        return pool(self.vectors, self.weights, self.energies, self.pooling, self.top_windows)


Outcome = FileWindows | AudioError


class Embedder:
    """A model ready to embed, on a device.

    Args:
        model: The model; it is put in evaluation mode and moved.
        device: Where to compute: "cpu", "cuda", "mps" ...; None for the first accelerator there is, else the CPU.
        batch_size: Windows or texts to a forward pass. It changes speed, not vectors.
        workers: Threads: on a CPU each of them decodes and embeds, beside an accelerator they decode. None for the
            cores that this process may use.
        source: Where the model was loaded from, for messages and stamps.
        view: How to look at the model, where it differs from what the model says (pooling, hop, dimensions).
    """

    def __init__(
        self,
        model: TwoTower,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        workers: int | None = None,
        source: str | Path | None = None,
        view: View | Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.device = torch.device(device) if device is not None else _best_device()
        self.view = View.of(view).as_json()
        self.model = (model.viewed(self.view) if self.view else model).eval().to(self.device)
        self.batch_size = batch_size
        self.workers = workers or usable_cores()
        self.source = None if source is None else str(source)
        self.space_id = self.model.space_id()
        self._folded: tuple[tuple[tuple[int, int], ...], TwoTower] | None = None

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self.model.dim

    @property
    def _windows_a_pass(self) -> int:
        # A core's cache holds what a few windows need between two layers; an accelerator wants them all at once.
        return _WINDOWS_A_PASS_ON_CPU if self.device.type == "cpu" else self.batch_size

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors ``[texts, dim]``, float32, in the order given.

        Raises:
            ValueError: If ``texts`` is one string instead of a list, or a text has no visible character.
        """
        if isinstance(texts, str):
            raise ValueError("embed_texts takes a list of texts, got one string; wrap it in a list")
        for position, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"text {position} is empty; a vector of no words would mean nothing")
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        # Texts of like length share a batch, so that little is padding.
        order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        with torch.inference_mode():
            for first in range(0, len(order), self.batch_size):
                rows = order[first : first + self.batch_size]
                vectors[rows] = self.model.embed_text([texts[row] for row in rows]).cpu().numpy()
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors ``[texts, dim]`` of queries, which may name fields: ``lyrics: "…" tags: jazz, slow``.

        The rule is that of :func:`xmodal.text.parse_fields`. A text tower that reads fields reads the query as it is.
        For any other, each field is a text of its own in its prompt (:data:`xmodal.text.FIELD_PROMPTS`), lyrics are
        the normalised mean of their groups of lines, and the query is the normalised sum of its fields' unit vectors.

        Raises:
            ValueError: As :meth:`embed_texts`; and if the fields of a query cancel one another.
        """
        if isinstance(texts, str):
            raise ValueError("embed_queries takes a list of texts, got one string; wrap it in a list")
        if self.model.text.reads_fields:
            return self.embed_texts(texts)
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        plain = [number for number, text in enumerate(texts) if not names_fields(text)]
        vectors[plain] = self.embed_texts([texts[number] for number in plain])
        for number in sorted(set(range(len(texts))) - set(plain)):
            fields = [
                self.embed_lyrics(value)[1] if field == "lyrics" else self.embed_texts([_prompted(field, value)])
                for field, value in parse_fields(texts[number]).items()
            ]
            vectors[number] = _direction(
                np.stack([_direction(vector, texts[number]) for vector in fields]), texts[number]
            )
        return vectors

    def embed_lyrics(self, lyrics: str, *, lines: int | None = None) -> tuple[list[str], np.ndarray]:
        """The groups of lines of a text of lyrics, and the unit vector ``[groups, dim]`` of each.

        One vector for each group, and not one for all, is what late interaction needs (:mod:`xmodal.late`).

        Args:
            lyrics: Lines; an empty line ends a group.
            lines: Lines to a group; None for those of the text tower, or 4 if it knows nothing of lyrics.

        Raises:
            ValueError: If there are no words, or ``lines`` is below 1.
        """
        known = getattr(self.model.text, "lines", _LYRIC_LINES)
        groups = split_lines(lyrics, known if lines is None else lines)
        named = self.model.text.reads_fields
        return groups, self.embed_texts(
            [write_fields({"lyrics": group}) if named else _prompted("lyrics", group) for group in groups]
        )

    def embed_files(
        self,
        files: Sequence[str | Path | Track],
        *,
        ids: Sequence[str] | None = None,
        raise_errors: bool = False,
        progress: Any = None,
    ) -> FilesResult:
        """One unit vector for each audio file or track, also where the view keeps a vector for each window.

        Args:
            files: Paths, or tracks (whose ``start_seconds`` and ``end_seconds`` are kept to).
            ids: A name for each; by default a track's id, or the path as given.
            raise_errors: Raise the first file's error instead of setting the file aside.
            progress: Called with the number of files finished so far after each.

        Raises:
            ValueError: If two ids are equal or their number differs from the files'.
            AudioError: If ``raise_errors`` is on and a file cannot be decoded.
        """
        names = [_name(file) for file in files] if ids is None else [str(name) for name in ids]
        if len(names) != len(files):
            raise ValueError(f"{len(files)} files need as many ids, got {len(names)}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the id {twice!r} is used twice; every file needs an id of its own")
        vectors: dict[int, np.ndarray] = {}
        failures: list[tuple[int, AudioError]] = []
        for done, (position, outcome) in enumerate(self.iterate_windows(files), start=1):
            if isinstance(outcome, AudioError):
                if raise_errors:
                    raise outcome
                failures.append((position, outcome))
            else:
                vectors[position] = outcome.pooled()
            if progress is not None:
                progress(done)
        kept = sorted(vectors)
        stacked = np.stack([vectors[position] for position in kept]) if kept else np.zeros((0, self.dim), np.float32)
        embeddings = Embeddings(
            ids=[names[position] for position in kept],
            vectors=stacked,
            space_id=self.space_id,
            metadata=[_metadata(files[position]) for position in kept],
            model=self.source,
            view=self.view,
        )
        return FilesResult(embeddings, [error for _, error in sorted(failures, key=lambda failure: failure[0])])

    def iterate_windows(self, files: Sequence[str | Path | Track]) -> Iterator[tuple[int, Outcome]]:
        """Embed every window of every file, in bounded memory however long the files are.

        Yields:
            ``(position in files, windows or the error)`` as files finish, each position once.
        """
        # A core that decodes, computes features and runs the network for its own files waits for nobody, where threads
        # that share one operation wait for the slowest; but few files would leave cores without work.
        if self.device.type == "cpu" and self.workers > 1 and len(files) >= 2 * self.workers:
            yield from in_threads(
                lambda positions: self._embed(_read(files, positions, self.model)),
                len(files),
                self.workers,
                room=16,
                name="embed",
                torch_threads=1,
            )
        else:
            yield from self._embed(_decode(files, self.model, self.workers))

    def _embed(self, items: Iterable[tuple[int, Window | AudioError | None]]) -> Iterator[tuple[int, Outcome]]:
        """Windows of files, and the end of each (None or an error), to what became of each file."""
        batch: list[tuple[int, Window]] = []
        full = min(self.batch_size, self._windows_a_pass)
        pending: dict[int, _Pending] = {}

        def finished(position: int) -> Iterator[tuple[int, Outcome]]:
            state = pending[position]
            if state.ended and state.waiting == 0:
                del pending[position]
                yield position, state.error if state.error is not None else state.windows(self.model)

        def flush() -> Iterator[tuple[int, Outcome]]:
            vectors = self.embed_windows([window for _, window in batch])
            for (position, window), vector in zip(batch, vectors, strict=True):
                pending[position].add(window, vector, self.model.sample_rate)
            positions = dict.fromkeys(position for position, _ in batch)
            batch.clear()
            for position in positions:
                yield from finished(position)

        for position, item in items:
            state = pending.setdefault(position, _Pending())
            if isinstance(item, Window):
                state.waiting += 1
                batch.append((position, item))
                if len(batch) == full:
                    yield from flush()
            else:
                state.ended, state.error = True, item
                yield from finished(position)
        if batch:
            yield from flush()

    # A decorator and not a block inside the generator above, where it would stay on for the caller between two items.
    @torch.inference_mode()
    def embed_windows(self, batch: Sequence[Window]) -> Float32[np.ndarray, "windows dim"]:
        """Unit vectors of windows of any files, by one forward pass.

        Args:
            batch: At least one window, cut by the model's policy (``model.windows``) at its ``sample_rate``.
        """
        waveform = torch.from_numpy(np.stack([window.samples for window in batch])).to(self.device)
        valid = torch.tensor([window.valid_samples for window in batch], device=self.device)
        parts = zip(waveform.split(self._windows_a_pass), valid.split(self._windows_a_pass), strict=True)
        model = self._for_inference()
        return torch.cat([model.embed_audio(*part).float() for part in parts]).cpu().numpy()

    def _for_inference(self) -> TwoTower:
        """The model with its audio tower folded (:mod:`xmodal.towers.folding`), made when it is first asked for.

        On a CPU alone: an accelerator rounds products to few bits by itself, and other weights round otherwise. A model
        whose weights have changed since is folded again.
        """
        model = self.model
        if self.device.type != "cpu" or not isinstance(model, TwoTower) or model.audio.training:
            return model
        weights = (*model.audio.parameters(), *model.audio.buffers())
        if any(weight.is_inference() for weight in weights):
            return model  # nobody counts their changes
        state = tuple((id(weight), weight._version) for weight in weights)
        known = self._folded  # threads that come at once each fold it, to the same
        if known is None or known[0] != state:
            other = copy.copy(model)
            other._modules = {**model._modules, "audio": folded(model.audio)}
            known = self._folded = (state, other)
        return known[1]

    def file_of(self, parts: Sequence[Window], vectors: Float32[np.ndarray, "windows dim"]) -> FileWindows:
        """One file's windows, in order, with the vectors that :meth:`embed_windows` gave them."""
        state = _Pending()
        for window, vector in zip(parts, vectors, strict=True):
            state.add(window, vector, self.model.sample_rate)
        return state.windows(self.model)


def load(
    folder: str | Path,
    *,
    device: str | None = None,
    trust: bool = False,
    view: View | Mapping[str, Any] | None = None,
    batch_size: int = 32,
    workers: int | None = None,
) -> Embedder:
    """Load a model folder, ready to embed.

    Args:
        folder: What training wrote, or :meth:`TwoTower.save`; or the id of a model on the Hugging Face Hub.
        device: "cpu", "cuda" ...; None for the first accelerator there is, else the CPU.
        trust: Allow the model's config to name classes from outside xmodal.
        view: How to look at the model; an index that was made with a view knows it (``index.view``).
        batch_size: As for :class:`Embedder`.
        workers: As for :class:`Embedder`.

    Raises:
        ModelError: If the folder is no model or is damaged.
    """
    folder = fetch(folder)
    model = TwoTower.load(folder, trust=trust)
    return Embedder(model, device=device, batch_size=batch_size, workers=workers, source=folder, view=view)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Pending:
    """A file on its way: windows in, vectors out, and whether the decoder is done with it."""

    vectors: list[np.ndarray] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    end_seconds: float = 0.0
    waiting: int = 0
    ended: bool = False
    error: AudioError | None = None

    def add(self, window: Window, vector: np.ndarray, sample_rate: int) -> None:
        self.vectors.append(vector)
        self.starts.append(window.start_seconds)
        self.weights.append(window.valid_samples / len(window.samples))
        self.energies.append(float(np.dot(window.samples, window.samples)))  # what lies beyond the audio is zero
        self.end_seconds = window.start_seconds + window.valid_samples / sample_rate
        self.waiting -= 1

    def windows(self, model: TwoTower) -> FileWindows:
        return FileWindows(
            np.stack(self.vectors),
            tuple(self.starts),
            np.asarray(self.weights),
            np.asarray(self.energies),
            self.end_seconds,
            model.pooling,
            model.top_windows,
        )


def _read(
    files: Sequence[str | Path | Track], positions: Iterable[int], model: TwoTower
) -> Iterator[tuple[int, Window | AudioError | None]]:
    """Decode files one after the other.

    Yields ``(position, window)`` for each window of a file in order, then ``(position, None)`` or ``(position,
    error)`` once for its end.
    """
    for position in positions:
        end: AudioError | None = None
        try:
            for window in _file_windows(files[position], model.sample_rate, model.windows):
                yield position, window
        except AudioError as error:
            end = error
        yield position, end


def _decode(
    files: Sequence[str | Path | Track], model: TwoTower, workers: int
) -> Iterator[tuple[int, Window | AudioError | None]]:
    """As :func:`_read`, in threads (libsndfile and soxr leave the interpreter free), files mixed."""
    return in_threads(lambda positions: _read(files, positions, model), len(files), workers, room=16, name="decode")


def _file_windows(file: str | Path | Track, sample_rate: int, policy: WindowPolicy) -> Iterable[Window]:
    if isinstance(file, Track):
        return windows(file.audio, sample_rate, policy, start_seconds=file.start_seconds, end_seconds=file.end_seconds)
    return windows(file, sample_rate, policy)


def _name(file: str | Path | Track) -> str:
    return file.id if isinstance(file, Track) else str(file)


def _metadata(file: str | Path | Track) -> dict[str, Any]:
    return track_metadata(file) if isinstance(file, Track) else {"path": readable_path(file)}


def _prompted(field: str, value: str) -> str:
    return FIELD_PROMPTS[field].replace("{}", value)


def _direction(vectors: np.ndarray, text: str) -> np.ndarray:
    """The normalised sum of unit vectors."""
    total = vectors.sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise ValueError(f"the fields of the query {text!r} cancel one another; leave one out")
    return np.asarray(total / length, dtype=np.float32)


def _best_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator if accelerator is not None else torch.device("cpu")
