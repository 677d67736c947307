"""A model and an index that answer together: loaded, checked, and in use until another takes their place."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve.catalogue import Catalogue
from serve.library import Library
from serve.settings import Settings
from serve.tagger import Tagger, make_tagger
from xmodal.embedder import Embedder, load
from xmodal.errors import ModelError, SpaceMismatchError
from xmodal.index import Index, load_index

_PROBES = 16
_SAME = 1e-3  # a stored vector finds itself to float32; an index of codes by a little less


@dataclass(frozen=True)
class Deployed:
    """What answers requests; nothing of it changes while it is in use.

    Attributes:
        embedder: The model, looked at as the index was made.
        index: The vectors.
        catalogue: The tracks in it.
        library: The folders from which audio may be played.
        tagger: The vocabulary, if there is one.
        model_place: Where the model was loaded from.
        index_place: Where the index lies.
    """

    embedder: Embedder
    index: Index
    catalogue: Catalogue
    library: Library
    tagger: Tagger | None
    model_place: str
    index_place: str

    @property
    def space_id(self) -> str:
        """The space of model and index."""
        return self.embedder.space_id

    @property
    def name(self) -> str:
        """What the model is called: its id on a hub, else its folder's name and that of the folder around it."""
        path = Path(self.model_place)
        return "/".join(path.resolve().parts[-2:]) if path.exists() else self.model_place


def deploy(settings: Settings, *, model: str | None, index: str, before: Deployed | None = None) -> Deployed:
    """Load a model and an index and check that they answer.

    Args:
        settings: How to load.
        model: The model folder; None for the one that the index names.
        index: The index.
        before: What is in use: its model is taken over if it is the same.

    Raises:
        XmodalError: If one of the two cannot be loaded, they do not fit together, or they fail the self-check.
        ValueError: If a setting does not fit them.
    """
    opened = load_index(index, mmap=settings.mmap)
    place = model if model is not None else opened.model
    if place is None:
        raise ModelError(f"{index} does not say which model made it; name it with --model DIR")
    if model is None and not Path(place).exists():
        raise ModelError(f"the model that made {index} is no longer at {place}; say where with --model DIR")
    embedder = load(place, device=settings.device, trust=settings.trust, view=opened.view)
    if before is not None and before.space_id == embedder.space_id:
        embedder = before.embedder  # one copy in memory
    if (embedder.space_id, embedder.dim) != (opened.space_id, opened.dim):
        raise SpaceMismatchError(
            f"the index holds {opened.dim}-dim vectors of space {opened.space_id} but the model makes "
            f"{embedder.dim}-dim vectors of space {embedder.space_id}; name the model that made the index, or embed "
            "and index again"
        )
    if not len(opened):
        raise ModelError("the index holds no tracks; build it from an export that has some")
    catalogue = Catalogue(opened)
    check(embedder, opened, catalogue)
    library = Library(settings.library or _folders(catalogue.folders))
    tagger = make_tagger(settings, embedder, catalogue, str(place), str(index))
    return Deployed(embedder, opened, catalogue, library, tagger, str(place), str(index))


def check(embedder: Embedder, index: Index, catalogue: Catalogue) -> None:
    """Refuse a model and an index that would not answer rightly.

    Raises:
        ModelError: If a stored vector does not find itself, or a text gets no unit vector.
    """
    rows = catalogue.first_row[catalogue.spread(_PROBES)]
    vectors = np.asarray(index.vectors(rows), np.float32)
    scores, found = index.search(vectors, 1, space_id=embedder.space_id)
    for row, score, best in zip(rows.tolist(), scores[:, 0].tolist(), found[:, 0].tolist(), strict=True):
        if best != row and not score > 1 - _SAME:  # an exact copy of it is as good
            raise ModelError(
                f"the index does not find its own row {row} (its best is row {best} with {score:.3f}); build it again"
            )
    text = embedder.embed_texts(["calm piano"])[0]
    if text.shape != (embedder.dim,) or not abs(float(np.linalg.norm(text)) - 1) < _SAME:
        raise ModelError("the model gives a text no unit vector; its weights are damaged")


def _folders(folders: Iterable[str]) -> list[Path]:
    """The folders of the tracks as few: of each top folder the deepest that holds them all. Those gone are left out."""
    relative = any(not os.path.isabs(folder) for folder in folders)
    groups: dict[str, list[str]] = {}
    for folder in map(os.path.normpath, folders):
        if os.path.isabs(folder):
            groups.setdefault("/".join(folder.split("/")[:2]), []).append(folder)
    found = [Path(os.path.commonpath(group)) for group in groups.values()]
    return [folder for folder in [*found, *([Path.cwd()] if relative else [])] if folder.is_dir()]
