"""From a model to vectors of files and texts: the embedding contract.

The vector of a file depends on the file and the model alone. Files are cut by the model's fixed window policy,
windows of many files share batches, and a file's vector is the normalised mean of its unit window vectors, each
weighted by how much of it is audio. Batch mates, order and the number of decoding threads change a component
by at most 1e-6, the rounding of float32 matrix products.

A file that cannot be decoded gets no vector: it is set aside with its reason, and the job goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmodal.audio import Window, WindowPolicy, windows
from xmodal.data.tracks import Track
from xmodal.embeddings import Embeddings
from xmodal.errors import AudioError
from xmodal.hub import fetch
from xmodal.model import TwoTower


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
    """

    vectors: np.ndarray
    start_seconds: tuple[float, ...]
    weights: np.ndarray

    def pooled(self) -> np.ndarray:
        """The file's vector ``[dim]``: the normalised weighted mean of its windows."""
        mean = (self.vectors * self.weights[:, None]).sum(axis=0, dtype=np.float64)
        # Two opposite windows cancel; then no direction is right, and the first window's is as good as any.
        length = np.linalg.norm(mean)
        vector = mean / length if length > 1e-6 else self.vectors[0]
        return np.asarray(vector, dtype=np.float32)


class Embedder:
    """A model ready to embed, on a device.

    Args:
        model: The model; it is put in evaluation mode and moved.
        device: Where to compute: "cpu", "cuda", "mps" ...; None for the first accelerator there is, else the CPU.
        batch_size: Windows or texts to a forward pass. It changes speed, not vectors.
        workers: Decoding threads.
        source: Where the model was loaded from, for messages and stamps.
    """

    def __init__(
        self,
        model: TwoTower,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        workers: int = 2,
        source: str | Path | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.device = torch.device(device) if device is not None else _best_device()
        self.model = model.eval().to(self.device)
        self.batch_size = batch_size
        self.workers = workers
        self.source = None if source is None else str(source)
        self.space_id = model.space_id()

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self.model.dim

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

    def embed_files(
        self,
        files: Sequence[str | Path | Track],
        *,
        ids: Sequence[str] | None = None,
        raise_errors: bool = False,
        progress: Any = None,
    ) -> FilesResult:
        """Unit vectors of audio files or of tracks.

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
        )
        return FilesResult(embeddings, [error for _, error in sorted(failures, key=lambda failure: failure[0])])

    def iterate_windows(self, files: Sequence[str | Path | Track]) -> Iterator[tuple[int, FileWindows | AudioError]]:
        """Embed every window of every file, in bounded memory however long the files are.

        Yields:
            ``(position in files, windows or the error)`` as files finish, each position once.
        """
        batch: list[tuple[int, Window]] = []
        pending: dict[int, _Pending] = {}

        def finished(position: int) -> Iterator[tuple[int, FileWindows | AudioError]]:
            state = pending[position]
            if state.ended and state.waiting == 0:
                del pending[position]
                yield position, state.error if state.error is not None else state.windows()

        def flush() -> Iterator[tuple[int, FileWindows | AudioError]]:
            vectors = self._embed_batch([window for _, window in batch])
            for (position, window), vector in zip(batch, vectors, strict=True):
                pending[position].add(window, vector)
            positions = dict.fromkeys(position for position, _ in batch)
            batch.clear()
            for position in positions:
                yield from finished(position)

        for position, item in _decode(files, self.model.sample_rate, self.model.windows, self.workers):
            state = pending.setdefault(position, _Pending())
            if isinstance(item, Window):
                state.waiting += 1
                batch.append((position, item))
                if len(batch) == self.batch_size:
                    yield from flush()
            else:
                state.ended, state.error = True, item
                yield from finished(position)
        if batch:
            yield from flush()

    # A decorator and not a block inside the generator above, where it would stay on for the caller between two items.
    @torch.inference_mode()
    def _embed_batch(self, batch: Sequence[Window]) -> np.ndarray:
        waveform = torch.from_numpy(np.stack([window.samples for window in batch])).to(self.device)
        valid = torch.tensor([window.valid_samples for window in batch], device=self.device)
        return self.model.embed_audio(waveform, valid).float().cpu().numpy()


def load(folder: str | Path, *, device: str | None = None, trust: bool = False, **settings: Any) -> Embedder:
    """Load a model folder, ready to embed.

    Args:
        folder: What training wrote, or :meth:`TwoTower.save`; or the id of a model on the Hugging Face Hub.
        device: "cpu", "cuda" ...; None for the first accelerator there is, else the CPU.
        trust: Allow the model's config to name classes from outside xmodal.
        **settings: ``batch_size`` and ``workers`` of :class:`Embedder`.

    Raises:
        ModelError: If the folder is no model or is damaged.
    """
    folder = fetch(folder)
    return Embedder(TwoTower.load(folder, trust=trust), device=device, source=folder, **settings)


@dataclass
class _Pending:
    """A file on its way: windows in, vectors out, and whether the decoder is done with it."""

    vectors: list[np.ndarray] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    waiting: int = 0
    ended: bool = False
    error: AudioError | None = None

    def add(self, window: Window, vector: np.ndarray) -> None:
        self.vectors.append(vector)
        self.starts.append(window.start_seconds)
        self.weights.append(window.valid_samples / len(window.samples))
        self.waiting -= 1

    def windows(self) -> FileWindows:
        return FileWindows(np.stack(self.vectors), tuple(self.starts), np.asarray(self.weights))


def _decode(
    files: Sequence[str | Path | Track], sample_rate: int, policy: WindowPolicy, workers: int
) -> Iterator[tuple[int, Window | AudioError | None]]:
    """Decode in threads (libsndfile and soxr leave the interpreter free) through a queue of bounded length.

    Yields ``(position, window)`` for each window of a file in order, then ``(position, None)`` or ``(position,
    error)`` once for its end.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for position in range(len(files)):
        waiting.put(position)
    ready: queue.Queue[tuple[int, Window | BaseException | None]] = queue.Queue(maxsize=16 * workers)
    stop = threading.Event()

    def put(item: tuple[int, Window | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        while not stop.is_set():
            try:
                position = waiting.get_nowait()
            except queue.Empty:
                return
            end: BaseException | None = None
            try:
                for window in _file_windows(files[position], sample_rate, policy):
                    if not put((position, window)):
                        return
            except BaseException as error:  # carried to the caller's thread, which raises what is no AudioError
                end = error
            put((position, end))

    threads = [threading.Thread(target=work, name=f"decode-{n}", daemon=True) for n in range(min(workers, len(files)))]
    for thread in threads:
        thread.start()
    try:
        ended = 0
        while ended < len(files):
            position, item = ready.get()
            if isinstance(item, BaseException) and not isinstance(item, AudioError):
                raise item
            if not isinstance(item, Window):
                ended += 1
            yield position, item
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _file_windows(file: str | Path | Track, sample_rate: int, policy: WindowPolicy) -> Iterable[Window]:
    if isinstance(file, Track):
        return windows(file.audio, sample_rate, policy, start_seconds=file.start_seconds, end_seconds=file.end_seconds)
    return windows(file, sample_rate, policy)


def _name(file: str | Path | Track) -> str:
    return file.id if isinstance(file, Track) else str(file)


def _metadata(file: str | Path | Track) -> dict[str, Any]:
    if not isinstance(file, Track):
        return {"path": str(file)}
    known: dict[str, Any] = {
        "path": str(file.path),
        "title": file.title,
        "artist": file.artist,
        "album": file.album,
        "tags": sorted(file.all_tags),
        "start_seconds": file.start_seconds or None,
        "end_seconds": file.end_seconds,
    }
    return {name: value for name, value in known.items() if value not in (None, [])}


def _best_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator if accelerator is not None else torch.device("cpu")
