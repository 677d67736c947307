"""Exports: what is in them, what a second run does again, and every format read back by the tool it is for."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch

from xmodal.data.manifests import read_tracks
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError
from xmodal.export import export, job
from xmodal.export.formats import read_export
from xmodal.index import build_index
from xmodal.model import TwoTower


def embedding(embedder, view):
    return Embedder(embedder.model, device="cpu", source=embedder.source, view=view)


@pytest.fixture
def embedded(monkeypatch):
    """The names of the tracks whose audio was really embedded."""
    names = []
    iterate = Embedder.iterate_windows
    monkeypatch.setattr(
        Embedder, "iterate_windows", lambda self, files: (names.extend(f.id for f in files), iterate(self, files))[1]
    )
    return names


def same(first, second):
    assert (first.ids, first.metadata, first.space_id) == (second.ids, second.metadata, second.space_id)
    np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "windows"])
@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_an_export_stopped_anywhere_goes_on_where_it_was(
    embedder, tones, tmp_path, monkeypatch, embedded, pooling, out
):
    monkeypatch.setattr(job, "PART_PIECES", 2)
    embedder = embedding(embedder, {"pooling": pooling})
    tracks = read_tracks(tones(tmp_path / "audio", 9, {4}))
    whole = export(embedder, tracks, tmp_path / "whole.parquet")
    assert whole.embedded == 8
    done = 0

    def stop(count):
        nonlocal done
        done += count
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(embedder, tracks, tmp_path / out, advance=stop)
    assert not (tmp_path / out).exists()
    embedded.clear()
    counts = []
    report = export(embedder, tracks, tmp_path / out, advance=counts.append)
    assert (len(embedded), report.embedded) == (3, 3), "what was finished before the stop is not done again"
    assert sum(counts) == report.files == 9
    assert (report.failed, report.rows) == (whole.failed, whole.rows) == (1, whole.rows)
    same(Embeddings.load(tmp_path / "whole.parquet"), Embeddings.load(tmp_path / out))
    assert (tmp_path / f"{out}.failures.jsonl").read_text() == whole.failures.read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("pooling", ["mean", "windows"])
@pytest.mark.parametrize(("out", "dtype"), [("out.parquet", "float32"), ("out", "float16"), ("out", "int8")])
def test_a_second_run_embeds_only_what_is_new_or_changed(embedder, tones, tmp_path, embedded, pooling, out, dtype):
    embedder = embedding(embedder, {"pooling": pooling})
    folder = tones(tmp_path / "audio", 6)
    export(embedder, read_tracks(folder), tmp_path / out, dtype=dtype)
    before = Embeddings.load(tmp_path / out)
    embedded.clear()
    times = os.stat(folder / "02.wav")
    soundfile.write(folder / "02.wav", 0.1 * np.sin(np.arange(5000) / 3), 8000)
    os.utime(folder / "02.wav", ns=(times.st_atime_ns, times.st_mtime_ns))  # only the content tells
    (folder / "03.wav").rename(folder / "moved.wav")
    (folder / "04.wav").unlink()
    shutil.copy(folder / "00.wav", folder / "copy.wav")
    os.utime(folder / "05.wav")  # touched, not changed
    soundfile.write(folder / "new.wav", 0.2 * np.sin(np.arange(7000) / 5), 8000)
    tracks = read_tracks(folder)
    report = export(embedder, tracks, tmp_path / out, dtype=dtype)
    assert sorted(embedded) == ["02.wav", "new.wav"]
    assert report.embedded == 2
    export(embedder, tracks, tmp_path / f"fresh-{out}", dtype=dtype)
    now, fresh = Embeddings.load(tmp_path / out), Embeddings.load(tmp_path / f"fresh-{out}")
    same(now, fresh)
    at, was = (
        now.ids.index(next(i for i in now.ids if i.startswith("moved"))),
        before.ids.index(next(i for i in before.ids if i.startswith("03"))),
    )
    np.testing.assert_array_equal(now.vectors[at], before.vectors[was])
    embedded.clear()
    export(embedder, tracks, tmp_path / out, dtype=dtype)
    assert embedded == []


@pytest.mark.parametrize(
    ("format", "dtype"),
    [("npy", "float32"), ("npy", "int8"), ("safetensors", "float16"), ("webdataset", "float32"), ("datasets", "int8")],
)
def test_a_second_run_takes_over_the_rows_of_every_format(embedder, tones, tmp_path, embedded, format, dtype):
    embedder, out = embedding(embedder, {"pooling": "windows"}), tmp_path / "out"
    folder = tones(tmp_path / "audio", 4)
    first = export(embedder, read_tracks(folder), out, format=format, dtype=dtype, shard_rows=2)
    before, kept = read_export(out)
    assert (len(before), kept, before.space_id, before.view) == (first.rows, dtype, embedder.space_id, embedder.view)
    assert before.vectors.std(axis=0).max() > 0.01
    embedded.clear()
    (folder / "03.wav").unlink()
    soundfile.write(folder / "new.wav", 0.2 * np.sin(np.arange(7000) / 5), 8000)
    report = export(embedder, read_tracks(folder), out, format=format, dtype=dtype)
    assert embedded == ["new.wav"]
    assert report.embedded == 1
    export(embedder, read_tracks(folder), tmp_path / "fresh", format=format, dtype=dtype)
    same(read_export(out)[0], read_export(tmp_path / "fresh")[0])
    for shard in (path for path in out.glob("shard-*") if path.suffix != ".jsonl"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    with pytest.raises(IndexFormatError, match="damaged"):
        read_export(out)
    embedded.clear()
    export(embedder, read_tracks(folder), out, format=format, dtype=dtype)
    assert len(embedded) == 4


@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_vectors_that_were_rounded_are_not_taken_over_as_finer_ones(embedder, tones, tmp_path, embedded, out):
    tracks = read_tracks(tones(tmp_path / "audio", 3))
    counts = []
    for dtype in ("int8", "float16", "float32", "float16", "int8"):
        embedded.clear()
        report = export(embedder, tracks, tmp_path / out, dtype=dtype)
        assert read_export(tmp_path / out)[1] == dtype
        counts.append((len(embedded), report.embedded))
    assert counts == [(3, 3), (3, 3), (3, 3), (0, 0), (3, 3)]


def test_another_model_or_view_makes_everything_again(embedder, model_folder, tones, tmp_path, embedded):
    tracks, out = read_tracks(tones(tmp_path / "audio", 3)), tmp_path / "out.parquet"
    export(embedder, tracks, out)
    other = TwoTower.load(model_folder)
    with torch.no_grad():
        next(other.audio_projection.parameters()).neg_()
    for changed in (Embedder(other, device="cpu"), embedding(embedder, {"hop_seconds": 0.25})):
        embedded.clear()
        export(changed, tracks, out)
        assert len(embedded) == 3
        assert Embeddings.load(out).space_id == changed.space_id != embedder.space_id


def test_a_failure_is_tried_again_by_the_next_export(embedder, tones, tmp_path, embedded):
    folder, out = tones(tmp_path / "audio", 3, {1}), tmp_path / "out"
    assert export(embedder, read_tracks(folder), out).failed == 1
    embedded.clear()
    assert export(embedder, read_tracks(folder), out).failed == 1
    assert embedded == ["01.wav"]


def test_a_file_that_cannot_be_read_is_set_aside(embedder, tones, tmp_path):
    folder = tones(tmp_path / "audio", 3)
    tracks = read_tracks(folder)
    (folder / "01.wav").unlink()
    report = export(embedder, tracks, tmp_path / "out.parquet")
    assert (report.failed, report.rows) == (1, 2)
    said = json.loads(report.failures.read_text())
    assert (said["id"], "cannot be read" in said["reason"]) == ("01.wav", True)


def test_a_damaged_output_or_part_is_made_again(embedder, tones, tmp_path, embedded):
    tracks, out = read_tracks(tones(tmp_path / "audio", 3)), tmp_path / "out.parquet"
    out.write_bytes(b"PAR1 nonsense")
    parts = tmp_path / ".out.parquet.parts" / embedder.space_id
    parts.mkdir(parents=True)
    (parts / "part-0.arrow").write_bytes(b"ARROW1 nonsense")
    (parts / ".part-1.arrow.0.partial").write_bytes(b"half")
    export(embedder, tracks, out)
    assert len(Embeddings.load(out)) == len(embedded) == 3
    assert not parts.parent.exists()


def test_shards_have_the_order_of_the_tracks_and_one_schema(embedder, tones, tmp_path):
    import pyarrow.dataset

    folder = tones(tmp_path / "audio", 7)
    rows = [{"path": f"audio/{n:02d}.wav", "id": f"t{n}", **({"year": 1990} if n == 6 else {})} for n in range(7)]
    (tmp_path / "tracks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracks = read_tracks(tmp_path / "tracks.jsonl")
    export(embedder, tracks, tmp_path / "out", shard_rows=3)
    manifest = json.loads((tmp_path / "out" / "embeddings.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [3, 3, 1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["embeddings.json", *(name for shard in manifest["shards"] for name in shard["files"])]
    )
    loaded = Embeddings.load(tmp_path / "out")
    assert loaded.ids == [f"t{n}" for n in range(7)]
    assert [facts.get("year") for facts in loaded.metadata] == [None] * 6 + [1990]
    files = [str(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert pyarrow.dataset.dataset(files).to_table()["year"].to_pylist() == [None] * 6 + [1990]
    assert build_index(loaded).select("year=1990").tolist() == [6]
    assert all(path.exists() for path in folder.iterdir())


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 1e-3), ("int8", 0.02)])
def test_fewer_bytes_stay_near_the_vectors(embedder, tones, tmp_path, dtype, error):
    tracks = read_tracks(tones(tmp_path / "audio", 4))
    export(embedder, tracks, tmp_path / "out", dtype=dtype)
    export(embedder, tracks, tmp_path / "whole.parquet")
    table = next((tmp_path / "out").glob("*.parquet"))
    import pyarrow.parquet

    kind = pyarrow.parquet.read_schema(table).field("vector").type
    assert (
        str(kind.value_type)
        .replace("halffloat", "float16")
        .replace("float", "float32")
        .replace("float3216", "float16"),
        kind.list_size,
    ) == (dtype, 16)
    found, whole = Embeddings.load(tmp_path / "out").vectors, Embeddings.load(tmp_path / "whole.parquet").vectors
    assert ((found * whole).sum(axis=1) >= 1 - error - 1e-6).all()


def read_npy(out, stem):
    return np.load(out / f"{stem}.npy", allow_pickle=False), lines(out / f"{stem}.jsonl")


def read_safetensors(out, stem):
    from safetensors.numpy import load_file

    return load_file(out / f"{stem}.safetensors")["vectors"], lines(out / f"{stem}.jsonl")


def read_webdataset(out, stem):
    import io

    import webdataset

    rows = list(webdataset.WebDataset(str(out / f"{stem}.tar"), shardshuffle=False))
    return np.stack([np.load(io.BytesIO(row["npy"])) for row in rows]), [json.loads(row["json"]) for row in rows]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("format", ["npy", "safetensors", "webdataset"])
def test_other_tools_read_the_same_vectors_ids_and_metadata(embedder, tones, tmp_path, format, dtype):
    embedder = embedding(embedder, {"pooling": "windows"})
    tracks, out = read_tracks(tones(tmp_path / "audio", 4)), tmp_path / "out"
    export(embedder, tracks, out, format=format, dtype=dtype, shard_rows=3)
    export(embedder, tracks, tmp_path / "parquet", dtype=dtype)
    whole = Embeddings.load(tmp_path / "parquet")
    read = {"npy": read_npy, "safetensors": read_safetensors, "webdataset": read_webdataset}[format]
    shards = json.loads((out / "embeddings.json").read_text())["shards"]
    parts = [read(out, shard["files"][0].partition(".")[0]) for shard in shards]
    vectors = np.concatenate([part[0] for part in parts])
    facts = [row for part in parts for row in part[1]]
    assert vectors.dtype == dtype
    assert [row["id"] for row in facts] == whole.ids
    assert [row["start_seconds"] for row in facts] == [row["start_seconds"] for row in whole.metadata]
    wide = vectors.astype(np.float32)
    np.testing.assert_allclose(wide / np.linalg.norm(wide, axis=1, keepdims=True), whole.vectors, atol=1e-3)
    with pytest.raises(IndexFormatError, match=f"in the format '{format}', for other tools"):
        Embeddings.load(out)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_hugging_face_datasets_reads_the_folder(embedder, tones, tmp_path, dtype):
    datasets = pytest.importorskip("datasets", reason="reading it needs: pip install 'xmodal[datasets]'")
    tracks, out = read_tracks(tones(tmp_path / "audio", 5)), tmp_path / "out"
    export(embedder, tracks, out, format="datasets", dtype=dtype, shard_rows=2)
    export(embedder, tracks, tmp_path / "whole.parquet", dtype=dtype)
    whole = Embeddings.load(tmp_path / "whole.parquet")
    found = datasets.load_from_disk(str(out))
    assert list(found["id"]) == whole.ids
    assert list(found["path"]) == [facts["path"] for facts in whole.metadata]
    vectors = np.asarray(list(found["vector"]), np.float32)
    np.testing.assert_allclose(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), whole.vectors, atol=1e-3)
    del found
    export(embedder, tracks, out)
    assert not (out / "state.json").exists(), "the folder is of one format"


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("a.parquet", {"format": "npy"}, r"ending in \.parquet cannot be npy"),
        ("a", {"format": "csv"}, "must be one of parquet, npy"),
        ("a", {"shard_rows": 0}, "shard_rows must be at least 1"),
        ("file", {}, "file is a file; name a folder"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_embedded(
    embedder, tones, tmp_path, embedded, out, options, message
):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=message):
        export(embedder, read_tracks(tones(tmp_path / "audio", 1)), tmp_path / out, **options)
    assert embedded == []


def test_two_tracks_with_one_id_are_refused_before_anything_is_embedded(embedder, tones, tmp_path):
    tracks = read_tracks(tones(tmp_path / "audio", 1)) * 2
    with pytest.raises(ValueError, match="id of its own"):
        export(embedder, tracks, tmp_path / "a.parquet")


def test_what_a_manifest_says_of_a_track_is_kept_and_can_be_filtered_by(embedder, tones, tmp_path):
    tones(tmp_path / "audio", 1)
    row = {
        "path": "audio/00.wav",
        "title": "One",
        "artist": "A",
        "genre": "Folk",
        "tags": ["Calm"],
        "start": 0.1,
        "end": 0.25,
    }
    (tmp_path / "tracks.jsonl").write_text(json.dumps({**row, "year": 1961}))
    tracks = read_tracks(tmp_path / "tracks.jsonl", tag_fields=["genre"])
    export(embedder, tracks, tmp_path / "a.parquet")
    loaded = Embeddings.load(tmp_path / "a.parquet")
    facts = loaded.metadata[0]
    expected = {
        "title": "One",
        "artist": "A",
        "genre": ["Folk"],
        "year": 1961,
        "start_seconds": 0.1,
        "end_seconds": 0.25,
    }
    assert {name: facts[name] for name in expected} == expected
    assert facts["tags"] == ["calm", "folk"]
    assert facts["duration_seconds"] == pytest.approx(0.25, abs=1e-3)
    index = build_index(loaded)
    for where in ("genre=folk", "year=1960..1969", "duration<1", "tag=calm"):
        assert index.select(where).tolist() == [0]
    export(embedding(embedder, {"pooling": "windows"}), tracks, tmp_path / "windows.parquet")
    facts = Embeddings.load(tmp_path / "windows.parquet").metadata[0]
    assert (facts["title"], facts["start_seconds"]) == ("One", 0.1)
    assert "end_seconds" not in facts, "the end of the track is not that of the window"


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are not Unicode need such a file system")
def test_a_file_whose_name_is_not_unicode_is_embedded(embedder, tones, tmp_path):
    folder = tones(tmp_path / "audio", 1)
    os.rename(folder / "00.wav", os.fsencode(folder) + b"/caf\xe9.wav")
    export(embedder, read_tracks(folder), tmp_path / "a.parquet")
    rows = Embeddings.load(tmp_path / "a.parquet")
    assert rows.ids == ["caf\\xe9.wav"]
    assert rows.metadata[0]["path"].endswith("caf\\xe9.wav")
    found = embedder.embed_files([next(folder.iterdir())]).embeddings
    assert found.metadata[0]["path"].endswith("caf\\xe9.wav")


def test_the_view_goes_with_the_vectors_and_their_index(embedder, tones, tmp_path):
    view = {"pooling": "energy", "hop_seconds": 0.25, "dim": 8}
    changed = embedding(embedder, view)
    export(changed, read_tracks(tones(tmp_path / "audio", 3)), tmp_path / "a.parquet")
    loaded = Embeddings.load(tmp_path / "a.parquet")
    assert (loaded.view, loaded.dim, loaded.space_id) == (view, 8, changed.space_id)
    index = build_index(loaded)
    index.save(tmp_path / "index")
    from xmodal.index import load_index

    assert load_index(tmp_path / "index").view == view


def test_windows_that_begin_less_than_a_millisecond_apart_have_names_of_their_own(embedder, tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", 0.1 * np.sin(np.arange(8001) * 0.1), 8000)  # the last is moved by one
    export(embedding(embedder, {"pooling": "windows"}), read_tracks(tmp_path / "audio"), tmp_path / "out.parquet")
    assert [id_.partition("@")[2] for id_ in Embeddings.load(tmp_path / "out.parquet").ids] == [
        "0.0",
        "0.5",
        "0.500125",
    ]
