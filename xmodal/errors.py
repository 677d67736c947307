"""What can go wrong with a user's files, models and indexes, as one small family.

Bad arguments to a function raise :class:`ValueError`. Everything that depends on the outside (a file, a
checkpoint, an index of another space) raises a child of :class:`XmodalError`, whose message is one sentence:
what is wrong, with which file, and what to do. The command line prints that sentence and nothing else.
"""

from __future__ import annotations

from pathlib import Path


class XmodalError(Exception):
    """Root of every error that is the input's fault and not the program's."""


class AudioError(XmodalError):
    """An audio file that cannot give honest samples.

    Attributes:
        path: The file.
        reason: Why it was refused, without the path.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason
        self._place = path  # a Path would make one slash of the two in a URL

    def __reduce__(self) -> tuple[type, tuple[str | Path, str]]:
        # A loader's worker process sends its error home by pickle, which by default calls cls(*args).
        return type(self), (self._place, self.reason)


class AudioTooLargeError(AudioError):
    """An audio file that is longer, or has more channels or a higher rate, than its reader allowed."""


class DataError(XmodalError):
    """A manifest or a corpus that cannot be used: missing columns, missing files, nothing in a split."""


class ModelError(XmodalError):
    """A model folder or checkpoint that cannot be loaded."""


class TrainingError(XmodalError):
    """A run that cannot go on: its loss or a gradient is no number any more."""


class SpaceMismatchError(XmodalError):
    """Vectors of two different embedding spaces were about to be compared."""


class IndexFormatError(XmodalError):
    """An index or an export on disk that is damaged, half-written or of an unknown version."""
