"""Late interaction: a track keeps several vectors, a query has several, and every part of the query finds its best.

    score(query, track) = mean over the query's vectors q of max over the track's vectors v of cosine(q, v)

This is the MaxSim of ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832), with a mean for its sum, so that scores of
long and short queries are cosines alike. With one query vector it is what :func:`xmodal.search.search` does with
``one_per``. A track's vectors are rows of an index that share a value of ``metadata["track"]``: its windows, or the
groups of lines of its lyrics that ``xmodal embed --lyrics`` writes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from xmodal.index import Index
from xmodal.search import Hit


def max_similarity(
    queries: Float[np.ndarray, "parts dim"], vectors: Float[np.ndarray, "rows dim"], owner: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, " owners"]:
    """The score of one query, of several vectors, for every owner of vectors.

    Args:
        queries: Unit vectors of the parts of the query, at least one.
        vectors: Unit vectors of all owners.
        owner: The owner of each vector: every number from 0 to the largest at least once.

    Raises:
        ValueError: If there is no part, the shapes do not fit, or an owner has no vector.
    """
    if queries.ndim != 2 or not len(queries) or vectors.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"parts and rows must be of one dim, at least one part, got {queries.shape} and {vectors.shape}"
        )
    if owner.shape != (len(vectors),):
        raise ValueError(f"each of {len(vectors)} vectors needs an owner, got {owner.shape}")
    if not len(vectors):
        return np.zeros(0)
    order = np.argsort(owner, kind="stable")
    owners, starts = np.unique(owner[order], return_index=True)
    if owners[0] != 0 or owners[-1] != len(owners) - 1:
        raise ValueError("every owner from 0 to the largest needs a vector; number them without gaps")
    cosines = queries.astype(np.float64) @ vectors[order].T.astype(np.float64)
    best: np.ndarray = np.maximum.reduceat(cosines, starts, axis=1).mean(axis=0)
    return best


def late_search(
    index: Index,
    queries: Float32[np.ndarray, "parts dim"],
    k: int,
    *,
    space_id: str,
    one_per: str = "track",
    depth: int = 1000,
) -> list[Hit]:
    """The ``k`` tracks that answer all parts of one query best.

    The tracks of the ``depth`` rows nearest to each part are scored with all of their rows; a track that is among
    them for no part is not found, so with an index of at most ``depth`` rows the answer is exact.

    Args:
        index: Rows of several vectors a track.
        queries: Unit vectors of the parts of one query.
        k: Length of the list.
        space_id: Identity of the space of the query.
        one_per: The key of the metadata that names the track; rows without it stand alone.
        depth: Rows to take from the index for each part.

    Returns:
        Hits whose score is the mean over the parts, best first; id, metadata and moment are those of the track's row
        that is nearest to any part.

    Raises:
        ValueError: If ``k`` or ``depth`` is below 1.
        SpaceMismatchError: If the query is of another space or dimension than the index.
    """
    if k < 1 or depth < 1:
        raise ValueError(f"k and depth must be at least 1, got {k} and {depth}")
    _, nearest = index.search(queries, min(max(depth, k), len(index)), space_id=space_id)
    names = [metadata.get(one_per) for metadata in index.metadata]
    # A row without the key is a track of its own, under a name that no text can have.
    keys = [(row, None) if name is None else (None, str(name)) for row, name in enumerate(names)]
    wanted = {keys[row] for row in np.unique(nearest).tolist() if row >= 0}
    rows = np.asarray([row for row, key in enumerate(keys) if key in wanted], dtype=np.int64)
    if not len(rows):
        return []
    number = {key: place for place, key in enumerate(dict.fromkeys(keys[row] for row in rows.tolist()))}
    owner = np.asarray([number[keys[row]] for row in rows.tolist()])
    vectors = index.vectors(rows)
    scores = max_similarity(queries, vectors, owner)
    nearness = (queries @ vectors.T).max(axis=0)
    order = np.argsort(-scores, kind="stable")[:k].tolist()
    nearest_of = [mine[nearness[mine].argmax()] for mine in (np.flatnonzero(owner == place) for place in order)]
    best = rows[nearest_of]
    return [
        Hit(rank, id_, float(scores[place]), facts, facts.get("start_seconds"))
        for rank, (place, id_, facts) in enumerate(
            zip(order, index.ids_of(best), index.facts(best), strict=True), start=1
        )
    ]
