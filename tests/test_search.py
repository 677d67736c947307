from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.embedder import FilesResult
from xmodal.embeddings import Embeddings
from xmodal.errors import AudioError, SpaceMismatchError
from xmodal.index import ENGINES, build_index
from xmodal.search import MINUS_WEIGHT, Term, combine, query_vector, search

SPACE = "0123456789abcdef"
AXES = {"piano": 0, "drums": 1, "calm": 2, "flute": 3}


def axis(name):
    return np.eye(4, dtype=np.float32)[AXES[name]]


class WordEmbedder:
    """Each word is an axis of its own; a file is what its name says."""

    space_id = SPACE

    def embed_queries(self, texts):
        return np.stack([axis(text) for text in texts])

    def embed_files(self, files, *, ids, raise_errors):
        for file in files:
            if file.stem not in AXES and raise_errors:
                raise AudioError(file, "no audio in it")
        vectors = np.stack([axis(file.stem) for file in files])
        return FilesResult(Embeddings(list(ids), vectors, SPACE), [])


def catalogue(kind="exact"):
    """Three tracks in windows, and one row that belongs to no track."""
    rows = [
        ("one#0", [0.6, 0.8, 0, 0], {"track": "one", "start_seconds": 0.0}),
        ("one#10", [1, 0, 0, 0], {"track": "one", "start_seconds": 10.0}),
        ("one#20", [0.8, 0.6, 0, 0], {"track": "one", "start_seconds": 20.0}),
        ("two#0", [0.28, 0.96, 0, 0], {"track": "two", "start_seconds": 0.0, "title": "Two"}),
        ("three", [0, 0, 1, 0], {"track": "three"}),
        ("alone", [0, 0.6, 0.8, 0], {}),
    ]
    return build_index(
        Embeddings([row[0] for row in rows], [row[1] for row in rows], SPACE, [row[2] for row in rows]), kind
    )


def find(query, k, **options):
    return search(options.pop("index", None) or catalogue(), query[None], k, space_id=SPACE, **options)[0]


@pytest.mark.parametrize("kind", sorted({*ENGINES} - {"milvus", "postgres"}))
def test_hits_are_ranked_rows_with_what_the_index_knows(kind):
    hits = find(axis("drums"), 2, index=catalogue(kind))
    assert [(hit.rank, hit.id, hit.start_seconds) for hit in hits] == [(1, "two#0", 0.0), (2, "one#0", 0.0)]
    assert [hit.score for hit in hits] == pytest.approx([0.96, 0.8])
    assert hits[0].metadata["title"] == "Two"


@pytest.mark.parametrize("kind", sorted({*ENGINES} - {"milvus", "postgres"}))
def test_a_track_in_windows_is_listed_once_at_its_best_moment(kind):
    hits = find(axis("piano"), 4, index=catalogue(kind))
    assert [hit.id for hit in hits] == ["one#10", "two#0", "three", "alone"]
    assert hits[0].start_seconds == 10.0
    assert hits[2].start_seconds is None
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]


def test_every_window_is_listed_when_asked_for():
    assert [hit.id for hit in find(axis("piano"), 3, one_per=None)] == ["one#10", "one#20", "one#0"]
    assert [hit.id for hit in find(axis("drums"), 9, one_per="title")] == [
        "two#0",
        "one#0",
        "one#20",
        "alone",
        "one#10",
        "three",
    ]


def test_many_windows_of_one_track_do_not_hide_the_others():
    ids = [f"long#{row}" for row in range(60)] + ["short"]
    vectors = np.concatenate([np.tile(axis("piano"), (60, 1)), axis("drums")[None]])
    metadata = [{"track": "long"}] * 60 + [{"track": "short"}]
    index = build_index(Embeddings(ids, vectors, SPACE, metadata), "exact")
    assert [hit.id for hit in find(axis("piano"), 2, index=index)] == ["long#0", "short"]
    assert [hit.id for hit in find(axis("piano"), 5, index=index)] == ["long#0", "short"]


def test_each_query_gets_a_list_of_its_own():
    lists = search(catalogue(), np.stack([axis("calm"), axis("piano")]), 1, space_id=SPACE)
    assert [[hit.id for hit in hits] for hits in lists] == [["three"], ["one#10"]]
    assert search(catalogue(), np.empty((0, 4)), 3, space_id=SPACE) == []


def test_a_search_may_be_kept_to_some_rows():
    assert [hit.id for hit in find(axis("piano"), 5, among=[0, 3])] == ["one#0", "two#0"]
    assert find(axis("piano"), 5, among=[]) == []


def test_a_query_of_another_space_is_refused():
    with pytest.raises(SpaceMismatchError, match="space feed"):
        search(catalogue(), axis("piano")[None], 1, space_id="feed")


weights = st.lists(st.floats(-2, 2).filter(lambda weight: abs(weight) > 0.01), min_size=1, max_size=4)


@given(weights)
def test_the_score_of_a_combination_is_the_weighted_sum_of_scores_up_to_one_factor(factors):
    rng = np.random.default_rng(0)
    terms, tracks = rng.normal(size=(2, 4, 6))[:, : len(factors)], rng.normal(size=(9, 6))
    terms = terms[0] / np.linalg.norm(terms[0], axis=1, keepdims=True)
    combined = combine(terms, factors)
    assert np.linalg.norm(combined) == pytest.approx(1, abs=1e-6)
    ratio = (tracks @ combined) / ((tracks @ terms.T) @ factors)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert ratio[0] > 0


def test_a_heavier_term_counts_more_and_a_minus_pushes_away():
    even, heavy = combine(np.eye(2), [1, 1]), combine(np.eye(2), [2, 1])
    assert even[0] == pytest.approx(even[1])
    assert heavy[0] == pytest.approx(2 * heavy[1])
    assert combine(np.eye(2), [1, -1])[1] == pytest.approx(-(0.5**0.5))


@pytest.mark.parametrize(
    ("vectors", "factors", "message"),
    [
        (np.eye(2)[[0, 0]], [1, -1], r"cancel one another \(weights \[1, -1\]\)"),
        (np.array([[1.0, 0.0], [1.0, 1e-7]]), [5, -5], "cancel"),
        (np.eye(2), [0, 0], "cancel"),
        (np.eye(2), [1], "finite weight"),
        (np.eye(2), [1, np.nan], "finite weight"),
        (np.empty((0, 2)), [], "at least one vector"),
        (np.full((1, 2), np.nan), [1], "cancel"),
    ],
)
def test_a_sum_without_direction_is_refused(vectors, factors, message):
    with pytest.raises(ValueError, match=message):
        combine(vectors, factors)


def test_a_query_mixes_words_files_and_vectors_in_any_order():
    terms = [
        Term(Path("flute.wav"), 2.0),
        Term("piano"),
        Term(axis("calm"), 3.0),
        Term("drums", MINUS_WEIGHT),
        Term(Path("piano.wav")),
        Term(Path("piano.wav")),
    ]
    mixed = query_vector(WordEmbedder(), terms)
    np.testing.assert_allclose(mixed, np.array([3, -0.5, 3, 2]) / np.linalg.norm([3, -0.5, 3, 2]), atol=1e-6)


def test_a_query_without_anything_to_look_for_is_refused():
    with pytest.raises(ValueError, match="at least one term of positive weight"):
        query_vector(WordEmbedder(), [Term("drums", MINUS_WEIGHT)])
    with pytest.raises(ValueError, match="at least one term of positive weight"):
        query_vector(WordEmbedder(), [])


def test_an_audio_query_that_cannot_be_decoded_names_the_file():
    with pytest.raises(AudioError, match=r"broken\.wav: no audio in it"):
        query_vector(WordEmbedder(), [Term(Path("broken.wav"))])
