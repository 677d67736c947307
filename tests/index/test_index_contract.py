"""What holds for every kind of index; a new engine is tested by adding its kind to ``xmodal.index.ENGINES``."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xmodal import index as engines
from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError, SpaceMismatchError
from xmodal.index import ENGINES, Index
from xmodal.index.where import facets, holds, parse_where
from xmodal.search import search

SPACE, DIM, ROWS = "0123456789abcdef", 24, 1500
KINDS = [*sorted(ENGINES), "ivf+int8"]
RECALL_FLOOR = 0.95
GENRES = ("Rock", "jazz", "Folk")


DATABASES = ("milvus", "postgres")
URLS = {}
OPENED = []


def build_index(embeddings, kind):
    kind, _, codes = kind.partition("+")
    settings = {"codes": codes} if codes else {}
    if kind in DATABASES:
        settings = {"url": URLS[kind], "collection": f"c{uuid.uuid4().hex[:12]}"}
    index = engines.build_index(embeddings, kind, **settings)
    OPENED.append(index)
    return index


def load_index(place, **options):
    index = engines.load_index(place, **options)
    OPENED.append(index)
    return index


@pytest.fixture(scope="module", autouse=True)
def closed():
    yield
    while OPENED:
        OPENED.pop().close()


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(rows, seed=0):
    """Like music: many tracks in each of a few corners."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(20, DIM))[rng.integers(20, size=rows)] + 0.5 * rng.normal(size=(rows, DIM)))


def export(rows=ROWS, seed=0, prefix="t", **changes):
    vectors = clustered(rows, seed)
    metadata = [
        {"title": f"Title {row}", "tags": ["piano"] * (row % 2), "genre": GENRES[row % 3], "year": 1950 + row % 70}
        for row in range(rows)
    ]
    arguments = {"ids": [f"{prefix}{row}" for row in range(rows)], "vectors": vectors, "space_id": SPACE}
    return Embeddings(**({**arguments, "metadata": metadata} | changes))


CORPUS = export()
QUERIES = clustered(40, seed=7)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    if request.param in DATABASES:
        URLS[request.param] = request.getfixturevalue(f"{request.param}_url")
    return request.param


@pytest.fixture(scope="module")
def shared(kind):
    """An index that no test changes."""
    return build_index(CORPUS, kind)


@pytest.fixture
def index(kind):
    return build_index(export(120), kind)


def find(index, queries, k=1, **options):
    return index.search(queries, k, space_id=SPACE, **options)


def brute_force(vectors, queries, k):
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def recall(found, truth):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])


def test_every_vector_finds_itself(shared):
    scores, rows = find(shared, CORPUS.vectors)
    np.testing.assert_array_equal(rows[:, 0], np.arange(ROWS))
    np.testing.assert_allclose(scores, 1, atol=1e-5)


def test_the_best_rows_are_found_best_first_with_their_cosines(shared):
    scores, rows = find(shared, QUERIES, 10)
    truth_scores, truth = brute_force(CORPUS.vectors, QUERIES, 10)
    assert recall(rows, truth) >= RECALL_FLOOR
    assert (np.diff(scores, axis=1) <= 0).all()
    cosines = np.einsum("qd,qkd->qk", QUERIES, CORPUS.vectors[rows])
    np.testing.assert_allclose(scores, cosines, atol=1e-6)
    if shared.kind not in ("hnsw", "ivf", *DATABASES):
        np.testing.assert_array_equal(rows, truth)
        np.testing.assert_allclose(scores, truth_scores, atol=1e-6)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_opposite_vectors_come_last_with_their_negative_cosine(kind):
    vector = clustered(1)
    index = build_index(export(2, vectors=np.concatenate([-vector, vector])), kind)
    scores, rows = find(index, vector, 2)
    np.testing.assert_array_equal(rows, [[1, 0]])
    np.testing.assert_allclose(scores, [[1, -1]], atol=1e-6)


def test_equal_scores_keep_the_order_of_the_rows(kind):
    # Whole numbers under the root of 1: every product is exact, whatever the order of the sum.
    vectors = np.tile(np.eye(4, dtype=np.float32), (5, 1))
    index = build_index(Embeddings([str(row) for row in range(20)], vectors, SPACE), kind)
    _, rows = find(index, np.eye(4, dtype=np.float32)[[2]], 20)
    assert rows[0].tolist() == [2, 6, 10, 14, 18] + [row for row in range(20) if row % 4 != 2]


def test_a_query_finds_the_same_alone_and_among_others(shared):
    scores, rows = find(shared, QUERIES, 10)
    for place in (0, 17, 39):
        alone_scores, alone_rows = find(shared, QUERIES[place : place + 1], 10)
        np.testing.assert_array_equal(alone_rows[0], rows[place])
        np.testing.assert_allclose(alone_scores[0], scores[place], atol=1e-6)


def test_searches_from_many_threads_agree_with_one(shared):
    # Different lengths and filters side by side: one call's choices must not reach another's.
    jobs = [(place, k, among) for place in range(40) for k in (1, 7, 60) for among in (None, np.arange(300, 1500))]

    def run(job):
        place, k, among = job
        return find(shared, QUERIES[place : place + 1], k, among=among)[1].tolist()

    if shared.kind in DATABASES:  # each search is a request
        jobs = jobs[::12]
    one_by_one = [run(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, jobs)) == one_by_one


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_search_among_some_rows_returns_only_those_and_the_best_of_them(shared, share):
    among = np.random.default_rng(3).choice(ROWS, int(share * ROWS), replace=False)
    _, rows = find(shared, QUERIES, 5, among=among)
    assert np.isin(rows, among).all()
    truth = np.sort(among)[brute_force(CORPUS.vectors[np.sort(among)], QUERIES, 5)[1]]
    assert recall(rows, truth) >= RECALL_FLOOR


def test_a_search_among_no_rows_finds_nothing(shared):
    assert find(shared, QUERIES, 5, among=[])[1].shape == (40, 0)


@pytest.mark.parametrize("among", [[0, ROWS], [-1]])
def test_rows_that_are_not_there_are_refused(shared, among):
    with pytest.raises(ValueError, match=r"rows from 0 to 1499, got"):
        find(shared, QUERIES, among=among)


def test_ids_and_metadata_belong_to_the_vectors_through_save_load_add_and_remove(kind, tmp_path):
    expected = {}
    rows = 60 if kind in DATABASES else 300  # each look at a row is a request there
    index = build_index(export(rows), kind)
    for part in (export(rows), export(80, 5, prefix="new")):
        for id_, vector, facts in zip(part.ids, part.vectors, part.metadata, strict=True):
            expected[id_] = (vector, facts)

    def check(index):
        assert sorted(index.ids) == sorted(expected)
        _, rows = find(index, np.stack([expected[id_][0] for id_ in index.ids]))
        assert [index.ids[row] for row in rows[:, 0]] == list(index.ids)
        assert index.metadata == [expected[id_][1] for id_ in index.ids]
        np.testing.assert_array_equal(index.vectors(), np.stack([expected[id_][0] for id_ in index.ids]))
        assert [index.ids[row] for row in index.rows_of(index.ids)] == list(index.ids)

    def saved(index):
        index.save(tmp_path / "index")
        return load_index(tmp_path / "index")

    index.add(export(80, 5, prefix="new"))
    check(index)
    check(saved(index))
    # A few at a time, then most: a graph keeps dead nodes for a while and then is built again.
    for which in (slice(10, 40), slice(0, None, 9), slice(0, rows // 2)):
        gone = index.ids[which]
        index.remove(gone)
        for id_ in gone:
            del expected[id_]
        check(index)
        index = saved(index)
        check(index)
    again = export(1, 9, prefix="back")
    index.add(again)
    expected["back0"] = (again.vectors[0], again.metadata[0])
    check(saved(index))


def test_removed_rows_are_never_returned(kind):
    index = build_index(export(400), kind)
    gone = index.ids[::5]
    vectors = index.vectors()[::5]
    index.remove(gone)
    scores, rows = find(index, vectors, 20)
    assert (rows >= 0).all()
    assert not set(gone) & {index.ids[row] for row in rows.ravel()}
    assert (scores[:, 0] < 0.9999).all()


def test_an_id_that_was_removed_can_come_back_with_another_vector(index):
    index.remove(["t3"])
    index.add(export(1, 4, ids=["t3"]))
    assert index.ids[-1] == "t3"
    assert find(index, export(1, 4).vectors)[1].tolist() == [index.rows_of(["t3"]).tolist()]


def test_a_loaded_index_gives_the_same_results_and_remembers_what_it_is(shared, kind, tmp_path):
    shared.save(tmp_path)
    loaded = load_index(tmp_path)
    assert type(loaded) is type(shared)
    assert list(type(loaded).load(tmp_path).ids) == list(Index.load(tmp_path).ids) == CORPUS.ids
    assert (loaded.kind, loaded.space_id, loaded.dim, loaded.settings) == (shared.kind, SPACE, DIM, shared.settings)
    for before, after in zip(find(shared, QUERIES, 10), find(loaded, QUERIES, 10), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_model_and_rows_without_metadata_come_back(kind, tmp_path):
    build_index(export(3, metadata=[], model="models/first"), kind).save(tmp_path)
    loaded = load_index(tmp_path)
    assert loaded.model == "models/first"
    assert loaded.metadata == [{}, {}, {}]


def test_adding_does_not_change_the_export(kind):
    first = export(5)
    index = build_index(first, kind)
    index.add(export(5, 1, prefix="u"))
    index.remove(["t0"])
    assert (len(first), first.ids[0]) == (5, "t0")


def test_an_empty_index_finds_nothing_can_be_saved_and_filled(kind, tmp_path):
    build_index(export(0), kind).save(tmp_path)
    index = load_index(tmp_path)
    scores, rows = find(index, QUERIES, 3)
    assert scores.shape == rows.shape == (40, 0)
    assert index.vectors().shape == (0, DIM)
    index.add(export(4))
    assert find(index, export(4).vectors)[1][:, 0].tolist() == [0, 1, 2, 3]
    index.remove(index.ids)
    index.save(tmp_path)
    assert len(load_index(tmp_path)) == 0


def test_k_beyond_the_index_gives_all_rows_and_no_query_gives_none(index):
    scores, rows = find(index, QUERIES, 1000)
    assert [sorted(found) for found in rows.tolist()] == [list(range(120))] * 40
    assert np.isfinite(scores).all()
    assert find(index, np.empty((0, DIM)), 5)[1].shape == (0, 5)


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(index, k):
    with pytest.raises(ValueError, match=f"at least 1, got k={k}"):
        find(index, QUERIES, k)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.full((1, DIM), np.nan), "row 0 has length nan"),
        (np.full((1, DIM), np.inf), "finite"),
        (np.zeros((1, DIM)), "row 0 has length 0"),
        (2 * QUERIES, "40 of 40 are not"),
        (QUERIES[0], r"matrix \[rows, dim\], got shape \[24\]"),
    ],
)
def test_a_query_that_is_no_unit_vector_is_refused(index, query, message):
    with pytest.raises(ValueError, match=message):
        find(index, query)


def test_a_query_of_another_space_or_dimension_is_refused_with_both_and_the_remedy(index):
    with pytest.raises(SpaceMismatchError, match=r"24-dim vectors of space 0123456789abcdef but .*space feed") as said:
        index.search(QUERIES, 1, space_id="feed")
    assert "xmodal embed" in str(said.value)
    assert "xmodal index build" in str(said.value)
    with pytest.raises(SpaceMismatchError, match="but the query has 12-dim"):
        find(index, unit(QUERIES[:, :12]))


def test_an_export_of_another_space_or_dimension_is_not_added(index):
    with pytest.raises(SpaceMismatchError, match=r"but the export has 24-dim vectors of space feed"):
        index.add(export(2, prefix="u", space_id="feed"))
    with pytest.raises(SpaceMismatchError, match="but the export has 12-dim"):
        index.add(export(2, prefix="u", vectors=unit(clustered(2)[:, :12])))
    assert len(index) == 120


def test_an_id_is_added_once_and_a_refused_export_leaves_no_row(index):
    with pytest.raises(ValueError, match="holds 't119' and 1 more already"):
        index.add(export(3, ids=["new", "t119", "t4"]))
    assert list(index.ids) == export(120).ids
    assert len(index.vectors()) == 120
    with pytest.raises(ValueError, match="holds no 'new'"):
        index.rows_of(["new"])


def test_metadata_that_cannot_be_saved_are_refused_when_they_come_and_leave_no_row(index):
    with pytest.raises(ValueError, match="'odd'"):
        index.add(export(2, prefix="u", metadata=[{"odd": object()}, {}]))
    assert len(index) == len(index.vectors()) == len(index.metadata) == 120
    index.add(export(2, prefix="u"))
    assert index.rows_of(["u1"]).tolist() == [121]


def test_removing_an_unknown_id_is_refused_and_removes_nothing(index):
    with pytest.raises(ValueError, match="holds no 'nobody'"):
        index.remove(["t0", "nobody"])
    assert len(index) == len(index.vectors()) == 120
    index.remove([])
    assert len(index) == 120


def test_vectors_that_were_given_out_stay_when_the_index_changes(index):
    given = index.vectors()
    kept = given.copy()
    index.add(export(2000, 3, prefix="u"))
    np.testing.assert_array_equal(given, kept)
    np.testing.assert_array_equal(index.vectors([7, 3]), kept[[7, 3]])


def test_an_index_of_one_kind_is_not_taken_for_another(kind, tmp_path):
    build_index(export(3), kind).save(tmp_path)
    other = "flat" if kind == "exact" else "exact"
    with pytest.raises(IndexFormatError, match=f"of kind '{kind.partition('+')[0]}', not '{other}'"):
        type(build_index(export(3), other)).load(tmp_path)


@pytest.mark.parametrize(
    "where",
    [
        ["genre=rock"],
        ["genre=Jazz|folk", "tag=piano"],
        ["year=1960..1962"],
        ["year>2015", "genre!=rock"],
        ["title=title 7"],
        ["duration<100"],
    ],
)
def test_a_filter_on_metadata_gives_the_best_of_the_rows_that_fulfil_it(shared, where):
    conditions = parse_where(where)
    among = [row for row, facts in enumerate(CORPUS.metadata) if all(holds(one, *facets(facts)) for one in conditions)]
    np.testing.assert_array_equal(shared.select(where), among)
    _, rows = find(shared, QUERIES, 10, where=where)
    assert rows.shape == (40, min(10, len(among)))
    if among:
        truth = np.array(among)[brute_force(CORPUS.vectors[among], QUERIES, 10)[1]]
        assert recall(rows, truth) >= RECALL_FLOOR


def test_a_filter_that_leaves_ten_rows_returns_ten(shared):
    where = ["year=1957", "tag=piano"]
    left = shared.select(where)[:10]
    assert len(find(shared, QUERIES, 10, where=where, among=left)[1][0]) == len(left) == 10


def test_a_filter_keeps_recall_where_what_it_allows_lies_far_from_the_query(kind):
    # Half of the rows are on the other side of the space: what walks towards the query never meets them.
    near, far = clustered(600, 1), -clustered(600, 1)
    facts = [{"side": "near"}] * 600 + [{"side": "far"}] * 600
    index = build_index(export(1200, vectors=np.concatenate([near, far]), metadata=facts), kind)
    queries = clustered(20, 1)
    _, rows = find(index, queries, 10, where="side=far")
    assert recall(rows, 600 + brute_force(far, queries, 10)[1]) >= RECALL_FLOOR


def test_filter_and_rows_limit_a_search_together(shared):
    among = np.arange(0, ROWS, 7)
    _, rows = find(shared, QUERIES, ROWS, among=among, where="genre=rock")
    assert sorted(rows[0].tolist()) == [row for row in among.tolist() if row % 3 == 0]


def test_updating_replaces_vector_and_metadata_and_adds_what_is_new(kind):
    index = build_index(export(200), kind)
    new = export(3, 8, ids=["t5", "t120", "fresh"], metadata=[{"genre": "polka"}, {}, {"year": 3000}])
    index.update(new)
    assert len(index) == 201
    _, rows = find(index, new.vectors)
    assert [index.ids[row] for row in rows[:, 0]] == new.ids
    assert [index.metadata[row] for row in rows[:, 0]] == new.metadata
    assert [index.ids[row] for row in index.select("genre=polka")] == ["t5"]
    gone = export(200).vectors[[5, 120]]
    assert (find(index, gone)[0] < 0.9999).all()
    with pytest.raises(SpaceMismatchError, match="space feed"):
        index.update(export(2, prefix="u", space_id="feed"))


def test_how_much_one_search_looks_at_changes_nothing_for_the_next(shared):
    before = find(shared, QUERIES, 10)
    wide = find(shared, QUERIES, 10, breadth=1000)
    find(shared, QUERIES, 10, breadth=1)
    after = find(shared, QUERIES, 10)
    np.testing.assert_array_equal(before[1], after[1])
    assert recall(wide[1], brute_force(CORPUS.vectors, QUERIES, 10)[1]) >= 0.999
    with pytest.raises(ValueError, match="breadth must be at least 1, got breadth=0"):
        find(shared, QUERIES, 10, breadth=0)


@pytest.mark.parametrize("kind", ["hnsw", "postgres"], indirect=True, scope="function")
def test_a_graph_is_walked_as_its_size_asks_for(kind, monkeypatch):
    index = build_index(CORPUS, kind)
    usual = find(index, QUERIES, 10)[1]
    seen = []
    module = {"hnsw": "xmodal.index.faiss", "postgres": "xmodal.index.postgres"}[kind]
    # A walk longer than pgvector allows compares all rows there, and 1,000 of 1,500 candidates are as good as all.
    monkeypatch.setattr(f"{module}.walk_breadth", lambda rows: seen.append(rows) or 1_001)
    truth = brute_force(CORPUS.vectors, QUERIES, 10)[1]
    assert recall(find(index, QUERIES, 10)[1], truth) >= max(0.999, recall(usual, truth))
    assert seen == [ROWS]
    find(index, QUERIES, 10, breadth=20)
    assert seen == [ROWS]


def test_a_search_beside_changes_sees_the_index_before_or_after_each(kind):
    index = build_index(export(300), kind)
    extra = export(40, 3, prefix="extra")
    stop = threading.Event()

    def search():
        seen = set()
        while not stop.is_set():
            with index.reading():
                size = len(index)
                scores, rows = find(index, extra.vectors[:2], 3)
                vectors = index.vectors(rows.ravel())
                ids = [index.ids[row] for row in rows.ravel()]
                metadata = [index.metadata[row] for row in rows.ravel()]
            seen.add(size)
            # Ids, metadata and vectors of one row belong together at every moment.
            np.testing.assert_allclose((vectors.reshape(2, 3, -1) * extra.vectors[:2, None]).sum(-1), scores, atol=1e-5)
            assert all(
                ("title" in facts) == (not id_.startswith("extra")) for id_, facts in zip(ids, metadata, strict=True)
            )
        return seen

    extra.metadata = [{}] * 40
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(search) for _ in range(4)]
        for _ in range(6):
            index.add(extra)
            time.sleep(0.01)
            index.remove(extra.ids)
            time.sleep(0.01)
        stop.set()
        sizes = set().union(*(reader.result() for reader in readers))
    assert sizes <= {300, 340}


def test_an_index_opened_in_its_files_gives_the_same_results(shared, tmp_path):
    shared.save(tmp_path)
    opened = load_index(tmp_path, mmap=True)
    for before, after in zip(find(shared, QUERIES, 10), find(opened, QUERIES, 10), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(opened.vectors([3, 5]), CORPUS.vectors[[3, 5]])
    opened.save(tmp_path / "copy")
    assert list(load_index(tmp_path / "copy").ids) == CORPUS.ids
    if shared.kind not in ("exact", *DATABASES):
        with pytest.raises(ValueError, match="opened with mmap=True cannot be changed"):
            opened.remove(["t0"])
    assert len(find(opened, QUERIES, 5)[1]) == 40


def test_an_index_gives_back_what_it_was_built_from(shared):
    again = shared.export()
    np.testing.assert_array_equal(again.vectors, CORPUS.vectors)
    assert (again.ids, again.metadata, again.space_id) == (CORPUS.ids, CORPUS.metadata, CORPUS.space_id)
    assert shared.export([4, 2]).ids == ["t4", "t2"]


def windowed(names, seed=3, **columns):
    """Rows of which some are windows of tracks; a row whose name is None is a track of its own."""
    metadata = [
        {"n": row} | ({} if name is None else {"track": name, "start_seconds": float(100 - row)})
        for row, name in enumerate(names)
    ]
    return export(len(names), seed, metadata=metadata)


@pytest.mark.parametrize(
    "names",
    [
        ["b", "a", None, "B", "a", "b", "ü/1 | 2", None, "a"],  # names that differ by case alone are two
        [None, None, None],
        [1, "1", None, 2, 1],  # a number and a text that shows it are two
    ],
)
def test_the_rows_of_a_track_are_those_that_name_it(kind, names):
    index = build_index(windowed(names), kind)
    tracks = [*dict.fromkeys(name for name in names if name is not None), "none"]

    def agree():
        rows, metadata = index.rows_of(list(index.ids)), list(index.metadata)
        for name, found in zip(tracks, index.rows_of_tracks(tracks), strict=True):
            assert found.tolist() == [
                int(row) for row, facts in zip(rows, metadata, strict=True) if facts.get("track") == name
            ]

    agree()
    index.add(export(2, 9, prefix="new", metadata=[{"track": "a"}, {}]))
    agree()
    index.remove(["t0"])
    agree()
    assert index.rows_of_tracks([]) == []


def test_metadata_of_some_rows_are_what_a_look_at_each_gives(kind):
    index = build_index(windowed([1, "1", None, "a", "a"]), kind)
    index.add(export(3, 8, prefix="more", metadata=[{"n": [1, {"x": None}], "tags": ["é"]}, {}, {"n": "text"}]))
    rows = index.rows_of(["more2", "t3", "more0", "t0", "t3", "more1"])
    assert index.ids_of(rows) == ["more2", "t3", "more0", "t0", "t3", "more1"]
    assert index.facts(rows) == [index.metadata[int(row)] for row in rows]
    for key in ("n", "track", "start_seconds", "tags", "absent"):
        assert index.values(key, rows) == [index.metadata[int(row)].get(key) for row in rows]
    assert (index.facts([]), index.values("n", []), index.ids_of([])) == ([], [], [])
    assert ("t3" in index, "t9" in index, 3 in index) == (True, False, False)


@pytest.mark.parametrize("kind", DATABASES, indirect=True)
def test_the_hits_of_many_queries_ask_a_database_for_ids_and_metadata_once(shared, monkeypatch):
    asked, get = [], shared._database.get
    monkeypatch.setattr(shared._database, "get", lambda rows, field: asked.append(field) or get(rows, field))
    hits = search(shared, QUERIES[:5], 7, space_id=SPACE)
    assert [len(found) for found in hits] == [7] * 5
    assert sorted(asked) == ["id", "metadata", "metadata"], "which track a row is of, and what is shown of the hits"
    assert all(hit.metadata["title"] == f"Title {hit.id.removeprefix('t')}" for found in hits for hit in found)
