"""Swapping indexes under those who search, and comparing two."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_index_folder import rewrite

from xmodal.cli import main
from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError, SpaceMismatchError
from xmodal.index import build_index, load_index
from xmodal.index.compare import compare
from xmodal.index.database import split_address
from xmodal.index.swap import LiveIndex, swap_in


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def export(rows=60, dim=8, seed=0, space="a" * 16, prefix="t"):
    vectors = unit(np.random.default_rng(seed).normal(size=(rows, dim)))
    return Embeddings([f"{prefix}{row}" for row in range(rows)], vectors, space)


@pytest.mark.parametrize("kind", ["exact", "flat", "hnsw", "ivf"])
def test_readers_go_on_through_a_swap_and_then_see_the_new_space(kind, tmp_path):
    old, new = export(), export(80, 12, 1, "b" * 16, "n")
    build_index(old, kind).save(tmp_path / "live")
    build_index(new, kind).save(tmp_path / "new")
    live = LiveIndex(tmp_path / "live", every_seconds=0)
    stop = threading.Event()

    def read():
        seen = []
        while not stop.is_set():
            index = live.current
            mine = old if index.space_id == old.space_id else new
            _, rows = index.search(mine.vectors[:5], 1, space_id=mine.space_id)
            assert [index.ids[row] for row in rows[:, 0]] == mine.ids[:5]
            seen.append(index.space_id)
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        before = live.current
        swap_in(tmp_path / "new", tmp_path / "live")
        while live.current.space_id != new.space_id:
            pass
        stop.set()
        for reader in readers:
            seen = reader.result()
            assert seen == sorted(seen), "nobody goes back to the old one"
    assert before.search(old.vectors[:1], 1, space_id=old.space_id)[1].tolist() == [[0]], "who holds it may go on"
    assert load_index(tmp_path / "live").ids == load_index(tmp_path / "new").ids == new.ids


def test_a_swap_into_a_new_place_and_a_second_one(tmp_path):
    for number in range(2):
        build_index(export(seed=number, prefix=f"n{number}-")).save(tmp_path / "new")
        swap_in(tmp_path / "new", tmp_path / "live")
        shutil.rmtree(tmp_path / "new")
        assert load_index(tmp_path / "live").ids[0] == f"n{number}-0"
    assert len(list((tmp_path / "live").glob("data-*"))) == 1


def test_a_damaged_index_is_not_swapped_in(tmp_path):
    build_index(export()).save(tmp_path / "live")
    build_index(export(prefix="n")).save(tmp_path / "new")
    vectors = next((tmp_path / "new").glob("data-*/vectors.faiss"))
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IndexFormatError, match="its bytes are not those that were saved"):
        swap_in(tmp_path / "new", tmp_path / "live")
    assert load_index(tmp_path / "live").ids[0] == "t0"


def test_an_index_whose_parts_do_not_fit_together_is_not_swapped_in(tmp_path):
    build_index(export()).save(tmp_path / "live")
    build_index(export(prefix="n")).save(tmp_path / "new")
    rewrite(tmp_path / "new", count=5)  # every byte is as it was written
    with pytest.raises(IndexFormatError, match="a count of 5"):
        swap_in(tmp_path / "new", tmp_path / "live")
    assert load_index(tmp_path / "live").ids[0] == "t0"


def test_places_that_cannot_be_swapped_are_refused(tmp_path):
    build_index(export()).save(tmp_path / "new")
    with pytest.raises(ValueError, match="the same folder"):
        swap_in(tmp_path / "new", tmp_path / "new")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no index"):
        swap_in(tmp_path / "new", tmp_path / "other")


def test_an_index_that_breaks_in_its_place_leaves_readers_with_the_old_one_and_the_reason(tmp_path):
    build_index(export()).save(tmp_path)
    live = LiveIndex(tmp_path, every_seconds=0)
    (tmp_path / "index.json").write_text("{")
    assert live.current.ids[0] == "t0"
    assert "damaged" in str(live.error)
    build_index(export(prefix="n")).save(tmp_path)
    assert (live.current.ids[0], live.error) == ("n0", None)


def test_an_index_agrees_with_itself_and_with_a_turned_copy(tmp_path):
    first = export(100, 16)
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(16, 16)))[0]
    second = Embeddings(first.ids[::-1], unit(first.vectors @ turned)[::-1], "b" * 16)
    found = compare(build_index(first), build_index(second), k=5)
    assert (found.overlap, found.shared, found.only_first, found.only_second) == (1.0, 100, 0, 0)
    assert found.correlation == pytest.approx(1, abs=1e-6)


def test_overlap_and_correlation_are_those_of_lists_made_by_hand():
    first, second = export(40, 6, 0), export(50, 6, 1, "b" * 16)
    found = compare(build_index(first), build_index(second), k=7, queries=15)
    assert (found.shared, found.only_first, found.only_second, len(found.answers)) == (40, 0, 10, 15)
    sides = [first.vectors, second.vectors[:40]]
    for one in found.answers:
        place = first.ids.index(one.query)
        cosines = [side @ side[place] for side in sides]
        lists = [[row for row in np.argsort(-scores) if row != place][:7] for scores in cosines]
        assert one.overlap == pytest.approx(len({*lists[0]} & {*lists[1]}) / 7)
        either = sorted({*lists[0], *lists[1]})
        assert one.correlation == pytest.approx(spearmanr(cosines[0][either], cosines[1][either])[0], abs=1e-3)
    worst = found.worst(3)
    assert worst[0].overlap == min(one.overlap for one in found.answers)


def test_two_indexes_without_common_ids_are_not_compared():
    with pytest.raises(ValueError, match="0 ids in common"):
        compare(build_index(export()), build_index(export(prefix="x")))


def run(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_commands_change_compare_swap_and_move(tmp_path, capsys):
    first, more = export(30), export(5, seed=4, prefix="more")
    first.metadata = [{"genre": ("rock", "jazz")[row % 2]} for row in range(30)]
    first.save(tmp_path / "first.parquet")
    more.save(tmp_path / "more.parquet")
    index = tmp_path / "index"
    assert run(capsys, "index", "build", tmp_path / "first.parquet", "--out", index)[0] == 0
    assert run(capsys, "index", "add", index, tmp_path / "more.parquet")[1].startswith("30 vectors before, 35 now")
    code, _, err = run(capsys, "index", "add", index, tmp_path / "more.parquet")
    assert (code, "holds 'more0' and 4 more already; remove or update it" in err) == (2, True)
    assert "35 vectors before, 35 now" in run(capsys, "index", "update", index, tmp_path / "more.parquet")[1]
    assert "35 vectors before, 19 now" in run(capsys, "index", "remove", index, "more0", "--where", "genre=rock")[1]
    assert "19 vectors before, 5 now" in run(capsys, "index", "update", index, tmp_path / "more.parquet", "--prune")[1]
    assert run(capsys, "index", "build", tmp_path / "first.parquet", "--out", tmp_path / "new")[0] == 0
    code, out, _ = run(capsys, "index", "swap", tmp_path / "new", index)
    assert (code, out.startswith("30 vectors of 8 dimensions")) == (0, True)
    code, out, _ = run(capsys, "index", "compare", index, tmp_path / "new", "--json", "-k", 3)
    assert (json.loads(out)["overlap"], json.loads(out)["queries"]) == (1.0, 30)
    assert "overlap@10 1.000" in run(capsys, "index", "compare", index, tmp_path / "new")[1]
    assert run(capsys, "index", "move", index, "--out", tmp_path / "moved", "--kind", "hnsw")[0] == 0
    moved = load_index(tmp_path / "moved")
    assert (moved.kind, list(moved.ids), moved.metadata) == ("hnsw", first.ids, first.metadata)


@pytest.mark.parametrize("engine", ["postgres", "milvus"])
def test_the_same_commands_work_on_a_database(engine, request, collection, tmp_path, capsys):
    url = request.getfixturevalue(f"{engine}_url")
    url += f"{'&' if '?' in url else '?'}collection={collection}"
    first, more = export(30), export(5, seed=4, prefix="more")
    first.save(tmp_path / "first.parquet")
    more.save(tmp_path / "more.parquet")
    build = ("index", "build", tmp_path / "first.parquet", "--engine", url, "--out", tmp_path / "pointer")
    assert run(capsys, *build)[0] == 0
    code, _, err = run(capsys, *build)
    assert (code, "holds a collection" in err) == (2, True)
    assert "30 vectors before, 35 now" in run(capsys, "index", "add", url, tmp_path / "more.parquet")[1]
    facts = json.loads(run(capsys, "index", "info", tmp_path / "pointer", "--json")[1])
    assert (facts["kind"], facts["count"], facts["settings"]["collection"]) == (engine, 35, collection)
    code, out, err = run(capsys, "search", "--like", "t3", "--index", url, "-k", 1, "--json")
    assert (code, json.loads(out)["hits"][0]["id"]) == (0, "t3")
    assert run(capsys, "index", "move", url, "--out", tmp_path / "files")[0] == 0
    files = load_index(tmp_path / "files")
    assert list(files.ids) == [*first.ids, *more.ids]
    np.testing.assert_allclose(files.vectors(), np.concatenate([first.vectors, more.vectors]), atol=1e-6)
    index = load_index(url)
    index.drop_collection()
    index.close()
    code, _, err = run(capsys, "index", "info", url)
    assert (code, "there is no collection" in err) == (2, True)


@pytest.mark.usefixtures("needs_milvus")
def test_a_collection_in_a_file_is_there_for_the_next_process(tmp_path):
    export(30).save(tmp_path / "a.parquet")
    url, folder = f"milvus://{tmp_path}/rows.db?collection=mine", tmp_path / "pointer"
    for words in (
        ["build", str(tmp_path / "a.parquet"), "--engine", url, "--out", str(folder)],
        ["remove", str(folder), "t4"],
        ["info", url, "--json"],
    ):  # fmt: skip
        code = f"from xmodal.cli import main; raise SystemExit(main(['index', *{words!r}]))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 29


@pytest.mark.parametrize("engine", ["postgres", "milvus"])
def test_a_new_space_in_a_database_is_compared_and_swapped_in_under_readers(
    engine, request, collection, tmp_path, capsys
):
    url = request.getfixturevalue(f"{engine}_url")
    parts = {"live": export(40), "newer": export(50, 12, 1, "b" * 16)}
    for name, part in parts.items():
        part.save(tmp_path / f"{name}.parquet")
        address = f"{url}{'&' if '?' in url else '?'}collection={collection}_{name}"
        build = ("index", "build", tmp_path / f"{name}.parquet", "--engine", address, "--out", tmp_path / name)
        assert run(capsys, *build)[0] == 0
    code, out, _ = run(capsys, "index", "compare", tmp_path / "live", tmp_path / "newer", "--json", "--queries", 8)
    found = json.loads(out)
    expected = compare(build_index(parts["live"], "exact"), build_index(parts["newer"], "exact"), queries=8)
    assert (code, found["shared"], found["only_second"], found["queries"]) == (0, 40, 10, 8)
    assert found["overlap"] == pytest.approx(expected.overlap)
    assert found["rank_correlation"] == pytest.approx(expected.correlation, abs=1e-3)

    live = LiveIndex(tmp_path / "live", every_seconds=0)
    before = live.current
    assert (before.kind, before.space_id) == (engine, "a" * 16)
    code, _, err = run(capsys, "index", "swap", tmp_path / "newer", address)
    assert (code, "folders are swapped" in err, "index build" in err) == (2, True, True)
    assert not list(tmp_path.glob("*:*"))
    code, out, _ = run(capsys, "index", "swap", tmp_path / "newer", tmp_path / "live")
    assert (code, out.startswith("50 vectors of 12 dimensions, space bbbbbbbbbbbbbbbb")) == (0, True)
    after = live.current
    assert (after.space_id, after.collection) == ("b" * 16, f"{collection}_newer")
    query = parts["newer"].vectors[:3]
    rows = after.search(query, 1, space_id=after.space_id)[1][:, 0]
    assert [after.ids[row] for row in rows] == ["t0", "t1", "t2"]
    old = before.search(parts["live"].vectors[:1], 1, space_id=before.space_id)[1]
    assert before.ids[old[0, 0]] == "t0", "who holds the old one may go on until its collection is dropped"
    with pytest.raises(
        SpaceMismatchError, match=f"space {'b' * 16} but the query has 8-dim vectors of space {'a' * 16}"
    ):
        after.search(parts["live"].vectors[:1], 1, space_id="a" * 16)
    before.drop_collection()
    assert len(load_index(tmp_path / "live")) == 50
    for index in (before, after):
        index.close()


def test_a_collection_gets_one_graph_with_its_first_rows(postgres_url, collection):
    psycopg = pytest.importorskip(
        "psycopg", reason="PostgreSQL is spoken to through it: pip install 'xmodal[postgres]'"
    )
    index = build_index(export(30), "postgres", url=postgres_url, collection=collection)
    index.add(export(5, seed=4, prefix="more"))
    index.close()
    with psycopg.connect(postgres_url) as connection:
        made = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = %s", [f"xmodal_{collection}"])
        assert sum("USING hnsw" in definition for (definition,) in made.fetchall()) == 1
    connection.close()
    again = load_index(f"{postgres_url}{'&' if '?' in postgres_url else '?'}collection={collection}")
    again.drop_collection()
    again.close()


def test_what_an_address_says_besides_the_collection_stays_as_it_was_written():
    server = "postgresql://me@host/db?host=/var/run&options=-c%20work_mem%3D1GB"
    assert split_address(f"{server}&collection=tracks") == (server, "tracks")


def test_an_address_of_something_else_or_with_a_password_is_refused(tmp_path, capsys):
    export(3).save(tmp_path / "a.parquet")
    code, _, err = run(capsys, "index", "info", "redis://host/0")
    assert (code, "milvus://... or postgresql://..." in err) == (2, True)
    secret = "postgresql://user:secret@host/db"
    code, _, err = run(capsys, "index", "build", tmp_path / "a.parquet", "--engine", secret)
    assert (code, "never keeps a password" in err, "secret" in err) == (2, True, False)
