"""A query as one line: terms with + and -, each of them words, a file or a stored track.

    "piano" + this.mp3 - "vocals"
    2 * "slow sad piano" - 0.5 * "drums" + id:clip-00178

The rule: terms are separated by a plus or a minus with a blank on both sides, outside of quotes. A term is, after an
optional ``weight *``: ``id:`` and the id of a stored track or row; the path of an audio file, if it ends like one or is
there; otherwise words, with or without quotes. A term without a weight counts 1; after a minus it counts -0.5, because
a full minus would cancel what is wanted as well, and a weight of its own replaces that 0.5. The query's vector is the
weighted sum of the terms' unit vectors, brought back to length 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from xmodal.audio import AUDIO_SUFFIXES
from xmodal.index import Index
from xmodal.search import MINUS_WEIGHT, Term, combine

_PARTS = re.compile(r'((?:"[^"]*"|[^"])*?)(?:(?<=\s)([+-])(?=\s)|$)', re.DOTALL)
_WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*\*\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r'"([^"]*)"')


def parse_query(
    text: str, index: Index | None = None, *, minus_weight: float = -MINUS_WEIGHT, files: bool = True
) -> list[Term]:
    """The terms of one line.

    Args:
        text: Such as ``"piano" + this.mp3 - "vocals"``.
        index: Where ids are looked up; None refuses them.
        minus_weight: What a term without a weight of its own counts after a minus.
        files: Whether a term may be the path of a file; a line from a stranger must not look at this machine's.

    Raises:
        ValueError: If a quote is not closed, a term is empty, or an id is not in the index.
    """
    if text.count('"') % 2:
        raise ValueError(f"a quote is not closed in {text!r}")
    terms, sign, start = [], 1, 0
    while start <= len(text):
        found = _PARTS.match(text, start)
        assert found is not None, "the pattern takes any text"
        terms.append(_term(found[1], sign, text, index, minus_weight, files))
        if found[2] is None:
            break
        sign, start = (1 if found[2] == "+" else -1), found.end()
    return terms


def stored_vector(index: Index, id_: str) -> Term:
    """The term of a stored row, or of a stored track: the mean of its windows.

    Raises:
        ValueError: If the index holds neither.
    """
    with index.reading():
        (rows,) = index.rows_of_tracks([id_])
        if id_ in index or not len(rows):
            rows = index.rows_of([id_])
        vectors = index.vectors(rows)
    return Term(combine(vectors, [1.0] * len(vectors)))


def _term(part: str, sign: int, text: str, index: Index | None, minus_weight: float, files: bool) -> Term:
    part = part.strip()
    weighted = _WEIGHT.fullmatch(part)
    weight = float(weighted[1]) if weighted else 1.0 if sign > 0 else minus_weight
    what = weighted[2].strip() if weighted else part
    if not what or what == '""':
        raise ValueError(f"a term of {text!r} is empty; a plus or a minus needs something on both sides")
    if weight == 0:
        raise ValueError(f"a weight in {text!r} is 0; leave the term out")
    if what.startswith("id:"):
        if index is None:
            raise ValueError(f"{what!r} names a stored track, and there is no index to look in")
        return Term(stored_vector(index, what.removeprefix("id:").strip().strip('"')).what, sign * weight)
    quoted = _QUOTED.fullmatch(what)
    if files and quoted is None and _is_file(what):
        return Term(Path(what).expanduser(), sign * weight)
    return Term(quoted[1] if quoted else what, sign * weight)


def _is_file(what: str) -> bool:
    path = Path(what).expanduser()
    try:
        return path.suffix.lower() in AUDIO_SUFFIXES or path.is_file()
    except OSError:  # a long text is no path
        return False
