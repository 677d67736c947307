"""An index on disk: saved in one step, checked when read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError
from xmodal.index import ENGINES, build_index, folder, load_index

KINDS = sorted({*ENGINES} - {"milvus", "postgres"})


def index_of(prefix, kind="exact", rows=6):
    vectors = np.random.default_rng(len(prefix)).normal(size=(rows, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return build_index(Embeddings([f"{prefix}{row}" for row in range(rows)], vectors, "0123456789abcdef"), kind)


def data_of(place):
    return place / json.loads((place / "index.json").read_text())["data"]


def rewrite(place, **changes):
    """Change index.json and sign it again: what only another version, or a stranger, could do."""
    manifest = {**json.loads((place / "index.json").read_text()), **changes}
    del manifest["sha256"]
    (place / "index.json").write_text(json.dumps({**manifest, "sha256": folder._digest(manifest)}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_save_interrupted_at_any_moment_leaves_the_old_index_or_the_new(kind, tmp_path, monkeypatch):
    place, moments = tmp_path / "index", tmp_path / "moments"
    index_of("old", kind).save(place)
    seen = 0

    def snapshot_around(owner, name):
        step = getattr(owner, name)

        def watched(*args, **kwargs):
            nonlocal seen
            shutil.copytree(place, moments / str(seen))
            seen += 1
            result = step(*args, **kwargs)
            shutil.copytree(place, moments / str(seen))
            seen += 1
            return result

        monkeypatch.setattr(owner, name, watched)

    new = index_of("newer", kind)
    for owner, name in [(new, "_write"), (os, "replace"), (os, "fsync"), (folder.shutil, "rmtree"), (Path, "mkdir")]:
        snapshot_around(owner, name)
    new.save(place)
    monkeypatch.undo()
    found = [load_index(moments / str(moment)).ids[0] for moment in range(seen)]
    assert found == sorted(found, reverse=True), "once the new index is there, it stays"
    assert {*found} == {"old0", "newer0"}


def test_everything_is_on_the_disk_before_the_manifest_names_it(tmp_path, monkeypatch):
    steps = []
    replace = os.replace
    monkeypatch.setattr(folder, "sync", lambda path: steps.append(path))
    monkeypatch.setattr(os, "replace", lambda source, target: (steps.append(Path(target)), replace(source, target)))
    index_of("a").save(tmp_path)
    data = data_of(tmp_path)
    before = steps[: steps.index(tmp_path / "index.json")]
    assert {data, data / "items.parquet", data / "vectors.npy"} <= set(before)
    assert before[-1] == data, "names last, when the bytes are there"


def test_a_process_killed_while_it_writes_leaves_the_old_index_and_the_next_save_cleans_up(tmp_path):
    index_of("old").save(tmp_path)
    code = """
import os, signal, sys
from xmodal.index import load_index
index = load_index(sys.argv[1])
write = index._write
def write_and_die(data):
    write(data)
    os.kill(os.getpid(), signal.SIGKILL)
index._write = write_and_die
index.save(sys.argv[1])
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("data-*"))) == 2
    index = load_index(tmp_path)
    assert index.ids[0] == "old0"
    (tmp_path / ".index.json.0.partial").write_text("half")
    index.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["index.json", data_of(tmp_path).name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_save_that_fails_leaves_the_old_index_and_no_rubbish(kind, tmp_path, monkeypatch):
    index_of("old", kind).save(tmp_path)
    names = sorted(path.name for path in tmp_path.rglob("*"))

    def full(self, mode="r", **options):
        raise OSError(28, "No space left on device")

    fine = index_of("new", kind)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        fine.save(tmp_path)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.rglob("*")) == names
    assert load_index(tmp_path).ids[0] == "old0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("kind", "file"),
    [("exact", "vectors.npy"), ("flat", "vectors.faiss"), ("hnsw", "graph.faiss"), ("ivf", "codes.faiss")],
)
def test_a_full_disk_is_noticed_while_vectors_are_written(kind, file, tmp_path):
    (tmp_path / file).symlink_to("/dev/full")
    with pytest.raises((OSError, RuntimeError)):
        index_of("a", kind)._write(tmp_path)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "data-mine").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("one", "two"):
        index_of(name).save(tmp_path)
    assert (tmp_path / "data-mine").is_dir()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert load_index(tmp_path).ids[0] == "two0"


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_byte_in_any_file_is_found(kind, tmp_path):
    index_of("a", kind).save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        whole = path.read_bytes()
        for place in (0, len(whole) // 3, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(IndexFormatError, match="xmodal index build") as found:
                load_index(tmp_path)
            assert str(path) in str(found.value)
        path.write_bytes(whole)
    assert load_index(tmp_path).ids[0] == "a0"


def test_a_missing_file_is_named(tmp_path):
    index_of("a").save(tmp_path)
    vectors = data_of(tmp_path) / "vectors.npy"
    vectors.unlink()
    with pytest.raises(IndexFormatError, match=r"vectors\.npy: this file of the index is missing"):
        load_index(tmp_path)


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    with pytest.raises(IndexFormatError, match=r"no index here \(no index.json\).*xmodal index build"):
        load_index(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '"text"', "{", '{"format_version": 1}'])
def test_a_json_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(IndexFormatError, match="no index of xmodal or it is damaged"):
        load_index(tmp_path)


def test_another_version_is_refused_with_both_versions(tmp_path):
    index_of("a").save(tmp_path)
    rewrite(tmp_path, format_version=9)
    with pytest.raises(IndexFormatError, match="version 9 but this xmodal reads up to 2"):
        load_index(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "magic"}, "kind must be one of"),
        ({"count": 5}, "6 vectors, 6 ids and a count of 5"),
        ({"dim": 5}, "4 dimensions, 5 promised"),
        ({"settings": {"speed": 11}}, "speed"),
        ({"data": "../elsewhere"}, "no part of an index"),
        ({"files": {}}, "items.parquet|fit together"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_does_not_fit_its_files_is_refused(tmp_path, kind, changes, message):
    index_of("a", kind).save(tmp_path)
    rewrite(tmp_path, **changes)
    if changes == {"files": {}}:
        shutil.rmtree(data_of(tmp_path))
    with pytest.raises(IndexFormatError, match=message):
        load_index(tmp_path)


def test_reading_while_another_process_saves_gives_the_newer_index(tmp_path, monkeypatch):
    index_of("old").save(tmp_path)
    checked_data, saves = folder.checked_data, []

    def save_first(place, manifest):
        if not saves:
            saves.append(index_of("newer").save(tmp_path))  # the old files go between the manifest and the check
        return checked_data(place, manifest)

    monkeypatch.setattr("xmodal.index.engines.checked_data", save_first)
    assert load_index(tmp_path).ids[0] == "newer0"
