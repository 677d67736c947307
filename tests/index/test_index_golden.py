"""Indexes and exports that older versions wrote are still read, and give what they gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from write_golden import GOLDEN, SPACE, corpus

from xmodal.embeddings import Embeddings
from xmodal.index import load_index

FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def test_every_version_and_engine_has_its_files():
    assert {"v1-exact", "v1-flat", "v1-hnsw", "v2-exact", "v2-flat", "v2-hnsw", "v2-ivf"} <= set(FOLDERS)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_an_index_of_an_older_version_gives_what_it_gave(name, mmap):
    index, before = load_index(GOLDEN / name, mmap=mmap), corpus()
    kept = [row for row in range(len(before)) if row != 3]
    assert (index.kind, index.space_id, index.model) == (name.partition("-")[2], SPACE, "models/first")
    assert list(index.ids) == [before.ids[row] for row in kept]
    assert index.metadata == [before.metadata[row] for row in kept]
    np.testing.assert_array_equal(index.vectors(), before.vectors[kept])
    scores, rows = index.search(before.vectors[kept], 1, space_id=SPACE)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(kept)))
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_an_index_of_an_older_version_can_be_changed_and_saved_in_the_present_one(tmp_path):
    shutil.copytree(GOLDEN / "v1-hnsw", tmp_path / "index")
    index = load_index(tmp_path / "index")
    index.remove(["t5"])
    index.save(tmp_path / "index")
    assert "t5" not in load_index(tmp_path / "index").ids


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.parquet")), ids=lambda path: Path(path).stem)
def test_an_export_of_an_older_version_is_read(path):
    found, before = Embeddings.load(path), corpus()
    assert (found.ids, found.metadata, found.space_id) == (before.ids, before.metadata, before.space_id)
    np.testing.assert_allclose(found.vectors, before.vectors, atol=0.01)
