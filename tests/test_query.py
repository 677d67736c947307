"""A query on one line: what its terms are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xmodal.embeddings import Embeddings
from xmodal.index import build_index
from xmodal.query import parse_query

SPACE = "0123456789abcdef"


def said(text, **how):
    return [(term.what, term.weight) for term in parse_query(text, **how)]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("slow sad piano", [("slow sad piano", 1)]),
        ('"piano" + this.mp3 - "vocals"', [("piano", 1), (Path("this.mp3"), 1), ("vocals", -0.5)]),
        ('2 * "slow - not fast" - 0.7*"drums"', [("slow - not fast", 2), ("drums", -0.7)]),
        ("hip-hop + 80s - lo-fi", [("hip-hop", 1), ("80s", 1), ("lo-fi", -0.5)]),
        ('lyrics: "by the sea" tags: jazz', [('lyrics: "by the sea" tags: jazz', 1)]),
        ('"a file.mp3 in words"', [("a file.mp3 in words", 1)]),
        ('"song.mp3"', [("song.mp3", 1)]),
        (".5*a\n+  b", [("a", 0.5), ("b", 1)]),
    ],
)
def test_terms_are_words_files_and_weights(text, terms):
    assert said(text) == terms


def test_the_weight_of_a_bare_minus_can_be_set():
    assert said("a - b - 2*c", minus_weight=0.25) == [("a", 1), ("b", -0.25), ("c", -2)]


def test_an_existing_file_is_a_file_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("noise").write_bytes(b"x")
    assert said("noise + noises") == [(Path("noise"), 1), ("noises", 1)]


def test_a_stored_track_is_its_row_or_the_mean_of_its_windows():
    rows = np.eye(3, dtype=np.float32)
    index = build_index(
        Embeddings(["t@0", "t@10", "alone"], rows, SPACE, [{"track": "t"}, {"track": "t"}, {}]), "exact"
    )
    first, second, third = parse_query("id:t + 3 * id:t@10 - id:alone", index)
    np.testing.assert_allclose(first.what, [0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    np.testing.assert_allclose(second.what, rows[1])
    assert (second.weight, third.weight) == (3, -0.5)
    with pytest.raises(ValueError, match="the index holds no 'x'"):
        parse_query("id:x", index)
    with pytest.raises(ValueError, match="there is no index to look in"):
        parse_query("id:x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"piano', "a quote is not closed"),
        ("a + ", "is empty; a plus or a minus needs something on both sides"),
        ("", "is empty"),
        ('a - ""', "is empty"),
        ("0 * a", "is 0; leave the term out"),
    ],
)
def test_what_says_nothing_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_query(text)


def test_a_line_from_a_stranger_names_no_file_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "here").write_text("")
    monkeypatch.chdir(tmp_path)
    assert [term.what for term in parse_query("here + song.mp3", files=False)] == ["here", "song.mp3"]
    assert all(isinstance(term.what, Path) for term in parse_query("here + song.mp3"))
