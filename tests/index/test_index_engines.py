"""What only some engines do: the choice between them, the exact scan, the graph's settings and dead nodes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError
from xmodal.index import build_index, engines, load_index
from xmodal.index.base import walk_breadth
from xmodal.index.exact import scan, scan_single, top_k

SPACE = "0123456789abcdef"


def export(rows, dim=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return Embeddings(
        [f"t{row}" for row in range(rows)], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), SPACE
    )


def test_auto_compares_every_row_of_a_small_catalogue_and_takes_the_graph_for_a_large_one(monkeypatch):
    assert build_index(export(20)).kind == "flat"
    monkeypatch.setattr(engines, "FLAT_LIMIT", 19)
    assert build_index(export(20)).kind == "hnsw"


def test_the_rule_of_auto_looks_at_size_and_memory():
    gigabytes = 2**30
    assert engines.choose(50_000, 512, 64 * gigabytes)[0] == "flat"
    assert engines.choose(50_001, 512, 64 * gigabytes)[0] == "hnsw"
    assert engines.choose(1_000_000, 512, 16 * gigabytes)[0] == "hnsw"
    assert engines.choose(1_000_000, 512, 4 * gigabytes)[0] == "ivf"
    assert engines.choose(10_000_000, 512, 512 * gigabytes)[0] == "ivf"
    assert engines.machine_memory() > 2**28


def test_lists_and_codes_are_learned_again_when_there_are_four_times_as_many_rows():
    index = build_index(export(100), "ivf")
    assert index._codes.nlist == 2
    index.add(renamed(export(299, seed=1), "u"))
    assert index._codes.nlist == 2
    index.add(renamed(export(2, seed=2), "v"))
    assert (index._codes.nlist, index._codes.ntotal) == (10, 401)
    assert index.search(export(5).vectors, 1, space_id=SPACE)[1].ravel().tolist() == [0, 1, 2, 3, 4]


def test_codes_of_half_bytes_find_what_whole_vectors_find():
    corpus, queries = export(2000, 32), export(50, 32, seed=1).vectors
    truth = build_index(corpus, "exact").search(queries, 10, space_id=SPACE)
    index = build_index(corpus, "ivf", codes="pq", refine=60)
    assert type(index._codes).__name__ == "IndexIVFPQFastScan"
    scores, rows = index.search(queries, 10, space_id=SPACE, breadth=1000)
    assert (rows == truth[1]).mean() > 0.9
    np.testing.assert_allclose(scores[rows == truth[1]], truth[0][rows == truth[1]], atol=1e-6)


def test_an_index_of_codes_that_lost_some_is_refused(tmp_path):
    index = build_index(export(50), "ivf")
    index._codes = build_index(export(49), "ivf")._codes
    index.save(tmp_path)
    with pytest.raises(IndexFormatError, match="49 codes of 50 vectors"):
        load_index(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"codes": "int4"}, "codes must be int8 or pq, got 'int4'"), ({"probes": 0}, "probes must be at least 1, got 0")],
)
def test_settings_that_make_no_inverted_file_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_index(export(5), "ivf", **settings)


def renamed(embeddings, prefix):
    embeddings.ids = [f"{prefix}{id_}" for id_ in embeddings.ids]
    return embeddings


def test_an_unknown_kind_or_setting_is_refused():
    with pytest.raises(ValueError, match=r"one of auto, exact, flat, hnsw, ivf.*, got 'hsnw'"):
        build_index(export(3), "hsnw")
    with pytest.raises(TypeError, match="link"):
        build_index(export(3), "hnsw", link=3)
    with pytest.raises(ValueError, match="links=1"):
        build_index(export(3), "hnsw", links=1)


def test_the_package_does_not_import_faiss_until_it_is_used():
    code = (
        "import sys; from xmodal.index import build_index; from xmodal.embeddings import Embeddings; "
        "build_index(Embeddings(['a'], [[1.0, 0.0]], 's'), 'exact'); print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Few values, so that there are many ties, also across the cut at k.
tied = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.sampled_from([-1.0, -0.5, 0.0, 0.5])
)


@settings(deadline=None, max_examples=150)
@given(tied, st.data())
def test_top_k_is_a_stable_sort_cut_at_k(scores, data):
    k = data.draw(st.integers(1, scores.shape[1]))
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best, columns = top_k(scores, k)
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, axis=1))


@pytest.mark.parametrize("k", [0, 4])
def test_top_k_outside_the_candidates_is_refused(k):
    with pytest.raises(ValueError, match=f"from 1 to the 3 candidates, got k={k}"):
        top_k(np.zeros((2, 3), np.float32), k)


def test_a_scan_in_blocks_is_the_scan_in_one(monkeypatch):
    vectors, queries = export(100).vectors, export(7, seed=1).vectors
    whole = scan(vectors, queries, 9)
    monkeypatch.setattr("xmodal.index.exact._BLOCK_ROWS", 13)
    monkeypatch.setattr("xmodal.index.exact._BLOCK_SCORES", 250)
    for part, expected in zip(scan(vectors, queries, 9), whole, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_indexes_answer_as_before_beside_a_library_that_changes_what_faiss_does():
    code = """
import numpy as np
from xmodal.embeddings import Embeddings
from xmodal.index import build_index

vectors = np.random.default_rng(0).normal(size=(6_000, 16))
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
embeddings = Embeddings([str(row) for row in range(len(vectors))], vectors, "s" * 16)
queries = embeddings.vectors[:50]

def answers():
    found = []
    for kind in ("flat", "hnsw", "ivf"):
        index = build_index(embeddings, kind)
        for among in (None, np.arange(5_000)):
            found += index.search(queries, 5, space_id="s" * 16, among=among)
    return found

before = answers()
import faiss.contrib.torch_utils
after = answers()
print(*[np.array_equal(*pair) for pair in zip(before, after, strict=True)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    # Scores and ids of three kinds of index, over all rows and over some.
    assert done.stdout.split() == ["True"] * 12, done.stderr


def test_more_allowed_rows_than_are_copied_together_are_a_mask_of_the_flat_search(monkeypatch):
    monkeypatch.setattr("xmodal.index.faiss._SMALL_SCAN", 10)
    embeddings, queries, among = export(600), export(5, seed=1).vectors, np.arange(1, 600, 2)
    scores, rows = build_index(embeddings, "flat").search(queries, 7, space_id=SPACE, among=among)
    best, expected = scan(embeddings.vectors, queries, 7, among)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, best, atol=1e-6)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), rows=st.integers(1, 40), queries=st.integers(1, 7))
def test_a_scan_block_by_block_finds_what_a_scan_at_once_does(data, rows, queries):
    # Small whole numbers: their products are exact in either precision, and many are equal.
    cells = st.integers(-2, 2)
    vectors = data.draw(arrays(np.float32, (rows, 2), elements=cells))
    asked = data.draw(arrays(np.float32, (queries, 2), elements=cells))
    among = data.draw(
        st.none() | st.sets(st.integers(0, rows - 1), min_size=1).map(lambda some: np.array(sorted(some)))
    )
    k = data.draw(st.integers(1, rows if among is None else len(among)))
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("_BLOCK_ROWS", 5), ("_BLOCK_QUERIES", 3), ("_FIRST_ROWS", 2)):
            patch.setattr(f"xmodal.index.exact.{name}", size)
        scores, found = scan_single(vectors, asked, k, among)
    best, expected = scan(vectors, asked, k, among)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, best)


@pytest.mark.parametrize("queries", [3, 4, 30])
def test_few_and_many_queries_of_all_rows_find_the_same(monkeypatch, queries):
    monkeypatch.setattr("xmodal.index.faiss._SMALL_SCAN", 10)
    embeddings, asked = export(9_000), export(queries, seed=1).vectors
    for kind, removed in (("flat", 0), ("hnsw", 5)):  # a graph compares all rows when it is asked for many
        index = build_index(embeddings, kind, **({"links": 4, "ef_construction": 4} if kind == "hnsw" else {}))
        index.remove(index.ids[:removed])
        scores, rows = index.search(asked, 1_000, space_id=SPACE)
        best, expected = scan(index.vectors(), asked, 1_000)
        np.testing.assert_allclose(scores, best, atol=1e-6)
        # Rows may only change places where their scores are the same up to rounding.
        np.testing.assert_allclose((index.vectors()[rows] * asked[:, None]).sum(axis=2), best, atol=1e-6)
        assert np.mean(rows == expected) > 0.99


def test_a_walk_is_longer_in_a_larger_graph():
    assert [walk_breadth(rows) for rows in (10, 200_000, 1_000_000, 2_000_000, 10**8)] == [64, 64, 250, 500, 512]
    index = build_index(export(50), "hnsw")
    assert index.settings["ef_search"] is None


def test_copies_of_a_vector_score_exactly_the_same_wherever_they_are():
    vector = export(1, 96).vectors
    vectors = np.concatenate([export(500, 96, seed=2).vectors, vector, export(37, 96, seed=3).vectors, vector, vector])
    scores, rows = scan(vectors, vector, 3)
    assert rows.tolist() == [[500, 538, 539]]
    assert len(set(scores[0].tolist())) == 1


def test_the_graph_keeps_its_settings_on_disk(tmp_path):
    index = build_index(export(50), "hnsw", links=6, ef_construction=20, ef_search=11)
    index.save(tmp_path)
    assert load_index(tmp_path).settings == {"links": 6, "ef_construction": 20, "ef_search": 11}


def test_a_search_never_writes_to_the_graph():
    index = build_index(export(600), "hnsw", ef_search=5)
    before = index._graph.hnsw.efSearch
    index.search(export(3, seed=1).vectors, 40, space_id=SPACE)
    index.search(export(3, seed=1).vectors, 4, space_id=SPACE, among=range(0, 600, 2))
    assert index._graph.hnsw.efSearch == before


def test_looking_at_more_candidates_finds_more():
    corpus, queries = export(3000, 32), export(100, 32, seed=1).vectors
    truth = build_index(corpus, "exact").search(queries, 10, space_id=SPACE)[1]

    def recall(ef_search):
        rows = build_index(corpus, "hnsw", links=4, ef_construction=20, ef_search=ef_search).search(
            queries, 10, space_id=SPACE
        )[1]
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])

    assert recall(20) + 0.1 < recall(400)


def test_the_graph_is_built_again_when_a_quarter_of_its_nodes_is_dead():
    index = build_index(export(100), "hnsw")
    index.remove(index.ids[:25])
    assert (len(index), index._graph.ntotal) == (75, 100)
    index.remove(index.ids[:1])
    assert (len(index), index._graph.ntotal) == (74, 74)


def test_a_walk_that_ends_early_is_answered_by_comparing_every_row(monkeypatch):
    corpus = export(300)
    index = build_index(corpus, "hnsw")

    class Lost:
        """A graph whose walks find one row only."""

        def __init__(self, graph):
            self.graph = graph

        def __getattr__(self, name):
            return getattr(self.graph, name)

        def search(self, queries, k, params):
            scores, slots = self.graph.search(queries, k, params=params)
            scores[1:, 1:], slots[1:, 1:] = -np.inf, -1
            return scores, slots

    queries = export(5, seed=1).vectors
    truth = build_index(corpus, "exact").search(queries, 6, space_id=SPACE)[1]
    monkeypatch.setattr("xmodal.index.faiss.stored", lambda index: corpus.vectors)
    index._graph = Lost(index._graph)
    np.testing.assert_array_equal(index.search(queries, 6, space_id=SPACE)[1], truth)
