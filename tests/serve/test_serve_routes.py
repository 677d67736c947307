"""What each route answers: against the library itself, in the promised shape, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from served_app import ask, problem_of, serving

import xmodal
from serve import schemas
from serve.routes.answers import shown_name
from xmodal.index import load_index
from xmodal.search import Term, find_moments, query_vector, search


@pytest.fixture(scope="module")
def embedder(served):
    return xmodal.load(served / "model", device="cpu")


@pytest.fixture(scope="module")
def windows(tiny_settings, served):
    return replace(tiny_settings, index=str(served / "windows"))


@pytest.fixture(scope="module")
def sound(tone_tracks):
    return tone_tracks.parent / "03.wav"


def post(path, body, **more):
    return "POST", path, {"json": body, **more}


def upload(path, sound, **more):
    return "POST", path, {"files": {"file": (sound.name, sound.read_bytes())}, **more}


def found(answer, model=schemas.Found):
    assert answer.status_code in (200, 201), answer.text
    model.model_validate(answer.json())  # unknown members are refused
    return answer.json()


def ids(answer):
    return [hit["id"] for hit in found(answer)["hits"]]


def test_a_blend_is_the_query_that_the_library_makes(tiny_settings, served, embedder):
    index = load_index(served / "index")
    stored = index.vectors(index.rows_of(["tone05"]))[0]
    vector = query_vector(embedder, [Term("a low tone"), Term(stored, 0.5), Term("pulsing", -0.25)])
    (expected,) = search(index, vector[None], 6, space_id=embedder.space_id)
    terms = [{"text": "a low tone"}, {"track": "tone05", "weight": 0.5}, {"text": "pulsing", "weight": -0.25}]
    line = '"a low tone" + 0.5 * id:tone05 - 0.25 * "pulsing"'
    by_vector = [*terms[:1], {"vector": (3 * stored).tolist(), "weight": 0.5}, terms[2]]
    answers = ask(
        tiny_settings,
        post("/v1/search", {"terms": terms, "k": 6}),
        post("/v1/search", {"query": line, "k": 6}),
        ("GET", "/v1/search", {"params": {"q": line, "k": 6}}),
        post("/v1/search", {"terms": by_vector, "k": 6}),
    )
    for answer in answers:
        hits = found(answer)["hits"]
        assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert "numbers" in answers[3].json()["query"]["terms"][1]["vector"]


def test_moments_are_those_of_the_library(windows, served):
    index = load_index(served / "windows")
    embedder = xmodal.load(served / "model", device="cpu", view=index.view)
    (hits,) = search(index, embedder.embed_queries(["pulsing"]), 5, space_id=embedder.space_id)
    length = embedder.model.windows.window_seconds
    expected = find_moments(index, embedder.embed_queries(["pulsing"])[0], hits, length)
    with_moments, without = ask(
        windows, ("GET", "/v1/search?q=pulsing&k=5", {}), ("GET", "/v1/search?q=pulsing&k=5&moments=false", {})
    )
    for hit, wanted in zip(found(with_moments)["hits"], expected, strict=True):
        assert (hit["id"], hit["start_seconds"]) == (wanted.metadata["track"], wanted.start_seconds)
        assert hit["end_seconds"] == wanted.end_seconds
    assert ids(without) == ids(with_moments)
    assert all(hit["end_seconds"] is None for hit in without.json()["hits"])


def test_filters_hold_for_searches_likeness_and_listings(tiny_settings):
    where = {"where": ["pitch=low", "motion=steady|none"]}
    searched, line, alike, listed = ask(
        tiny_settings,
        post("/v1/search", {"terms": [{"text": "tone"}], "k": 40, **where}),
        ("GET", "/v1/search", {"params": {"q": "tone", "k": 40, **where}}),
        ("GET", "/v1/similar", {"params": {"id": "tone04", "k": 40, **where}}),
        ("GET", "/v1/tracks", {"params": {"limit": 7, **where}}),
    )
    right = {f"tone{number:02d}" for number in range(0, 40, 4)}
    assert set(ids(searched)) == set(ids(line)) == right
    assert set(ids(alike)) == right - {"tone04"}
    assert found(listed, schemas.Page)["total"] == len(right)
    assert {track["id"] for track in listed.json()["tracks"]} < right


def test_a_listing_of_windows_is_one_of_tracks(windows):
    listed, named = ask(
        windows,
        ("GET", "/v1/tracks", {"params": {"limit": 40, "where": "pitch=low"}}),
        ("GET", "/v1/track?id=tone01", {}),
    )
    assert [track["id"] for track in found(listed, schemas.Page)["tracks"]] == [f"tone{n:02d}" for n in range(0, 40, 2)]
    starts = [window["start_seconds"] for window in found(named, schemas.OneTrack)["windows"]]
    assert starts == pytest.approx([0.0, 0.5, 0.8]), "1.3 s in windows of 0.5 s, the last ends with the track"
    assert named.json()["windows"][-1]["end_seconds"] == pytest.approx(1.3)


def test_alike_tracks_leave_out_the_track_itself_and_its_pages_join(windows):
    whole, first, rest = ask(
        windows,
        ("GET", "/v1/similar?id=tone08&k=39", {}),
        ("GET", "/v1/similar?id=tone08&k=20", {}),
        ("GET", "/v1/similar?id=tone08&k=20&offset=20", {}),
    )
    assert "tone08" not in ids(whole)
    assert len(ids(whole)) == 39
    assert whole.json()["next_offset"] is None, "a page that ends with the last track is the last"
    assert ids(first) + ids(rest) == ids(whole)
    assert [hit["rank"] for hit in rest.json()["hits"]] == list(range(21, 40))
    assert (first.json()["next_offset"], rest.json()["next_offset"]) == (20, None)


def test_groups_duplicates_and_diversity_change_the_list(tiny_settings):
    plain, grouped, unlike, diverse = ask(
        tiny_settings,
        post("/v1/search", {"query": "id:tone00", "k": 10}),
        post("/v1/search", {"query": "id:tone00", "k": 10, "group": "motion"}),
        post("/v1/search", {"query": "id:tone00", "k": 10, "duplicates": 0.9999999}),
        post("/v1/search", {"query": "id:tone00", "k": 10, "diversity": 0.9}),
    )
    assert len(ids(grouped)) == 2, "steady and pulsing"
    assert ids(plain)[0] == "tone00" not in ids(unlike), "the track itself is the nearest of its duplicates"
    assert ids(diverse)[0] == "tone00"
    assert ids(diverse) != ids(plain)


def test_a_sound_has_the_vector_of_its_file_and_may_be_searched_by(tiny_settings, sound, embedder):
    async def by_sound():
        async with serving(tiny_settings) as client:
            kept = await client.post("/v1/uploads", files={"file": ("../b\\my tone.wav", sound.read_bytes())})
            terms = [{"audio": kept.json()["audio"]}]
            return kept, await client.post("/v1/search", json={"terms": terms, "k": 3})

    kept, searched = asyncio.run(by_sound())
    (expected,) = embedder.embed_files([sound]).embeddings.vectors
    assert kept.status_code == 201
    assert found(kept, schemas.Uploaded)["name"] == "my tone.wav"
    assert kept.json()["duration_seconds"] == pytest.approx(1.5)
    assert ids(searched)[0] == "tone03"
    assert searched.json()["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    embedded, windowed = (
        found(answer, schemas.AudioVector)
        for answer in ask(
            tiny_settings, upload("/v1/embed/audio", sound), upload("/v1/embed/audio?windows=true", sound)
        )
    )
    np.testing.assert_allclose(embedded["vector"], expected, atol=1e-6)
    ((_, parts),) = embedder.iterate_windows([sound])
    np.testing.assert_allclose([window["vector"] for window in windowed["windows"]], parts.vectors, atol=1e-6)
    assert [window["start_seconds"] for window in windowed["windows"]] == list(parts.start_seconds)
    assert windowed["windows"][-1]["end_seconds"] == parts.end_seconds
    assert "windows" not in embedded


def test_the_name_of_a_sound_is_bare_and_visible():
    assert shown_name("../b\\c/my\x07\u202e \ud800tone.wav ") == "my tone.wav"
    assert (shown_name(None), shown_name("\n/"), len(shown_name("a" * 999))) == ("sound", "sound", 200)


def test_a_stored_track_has_its_stored_vector_and_the_windows_of_its_file(tiny_settings, served, sound, embedder):
    plain, windowed = (
        found(answer, schemas.AudioVector)
        for answer in ask(
            tiny_settings,
            ("POST", "/v1/embed/audio?id=tone03", {}),
            ("POST", "/v1/embed/audio?id=tone03&windows=true", {}),
        )
    )
    index = load_index(served / "index")
    np.testing.assert_array_equal(plain["vector"], index.vectors(index.rows_of(["tone03"]))[0])
    ((_, parts),) = embedder.iterate_windows([sound])
    np.testing.assert_allclose([window["vector"] for window in windowed["windows"]], parts.vectors, atol=1e-5)
    assert plain["duration_seconds"] == pytest.approx(1.5)


def test_texts_have_the_same_vectors_by_every_door(tiny_settings, embedder):
    texts = ["a low tone", "pulsing", 'tags: high caption: "a tone"']
    own, openai, coded, tei, one = ask(
        tiny_settings,
        post("/v1/embed/text", {"texts": texts}),
        post("/v1/embeddings", {"input": texts, "model": "any", "user": "me", "dimensions": 12}),
        post("/v1/embeddings", {"input": texts, "encoding_format": "base64"}),
        post("/embed", {"inputs": texts, "truncate": True}),
        post("/embed", {"inputs": texts[0]}),
    )
    expected = embedder.embed_queries(texts)
    np.testing.assert_allclose(found(own, schemas.TextVectors)["vectors"], expected, atol=1e-6)
    listed = found(openai, schemas.OpenAIAnswer)
    assert [part["index"] for part in listed["data"]] == [0, 1, 2]
    np.testing.assert_array_equal([part["embedding"] for part in listed["data"]], own.json()["vectors"])
    decoded = [
        np.frombuffer(base64.b64decode(part["embedding"]), "<f4") for part in found(coded, schemas.OpenAIAnswer)["data"]
    ]
    np.testing.assert_array_equal(np.stack(decoded), np.asarray(own.json()["vectors"], np.float32))
    assert tei.json() == own.json()["vectors"]
    assert one.json() == own.json()["vectors"][:1]
    for answer in (tei, one):  # a bare list has no place for it
        assert answer.headers["x-space-id"] == own.json()["space_id"] == embedder.space_id


def test_tags_come_with_probabilities_and_what_the_metadata_say(tiny_settings, sound):
    stored, own, top, heard = (
        found(answer, schemas.Tagged)
        for answer in ask(
            tiny_settings,
            post("/v1/tag", {"tracks": ["tone00", "tone03"]}),
            post("/v1/tag", {"tracks": ["tone03"], "tags": ["low", {"name": "bright", "kind": "mood"}]}),
            post("/v1/tag", {"tracks": ["tone03"], "top": 1}),
            upload("/v1/tag", sound),
        )
    )
    assert not stored["calibrated"]
    assert [track["id"] for track in stored["tracks"]] == ["tone00", "tone03"]
    tags = {tag["name"]: tag for tag in stored["tracks"][1]["tags"]}
    assert set(tags) == {"low", "high", "steady", "pulsing"}
    assert {name for name, tag in tags.items() if tag["given"]} == {"high", "pulsing"}
    assert {tag["kind"] for tag in tags.values()} == {"pitch", "motion"}
    likely = [tag["probability"] for tag in stored["tracks"][1]["tags"]]
    assert likely == sorted(likely, reverse=True)
    assert {tag["name"] for tag in own["tracks"][0]["tags"]} == {"low", "bright"}
    assert [track["tags"] for track in top["tracks"]] == [stored["tracks"][1]["tags"][:1]]
    assert heard["tracks"][0]["id"] == "03.wav"
    for tag in heard["tracks"][0]["tags"]:
        assert tag["probability"] == pytest.approx(tags[tag["name"]]["probability"], abs=1e-3)
        assert not tag["given"]


def test_a_calibration_beside_the_model_makes_measured_probabilities(tiny_settings, served, tone_tracks, tmp_path):
    import shutil

    from xmodal.cli import main

    shutil.copytree(served / "model", tmp_path / "model")
    words = [str(tone_tracks), "--model", str(tmp_path / "model"), "--split", "all", "--tag-fields", "pitch,motion"]
    assert main(["tag", "fit", *words, "--folds", "2", "--out", str(tmp_path / "model" / "calibration.json")]) == 0
    (answer,) = ask(replace(tiny_settings, model=str(tmp_path / "model")), post("/v1/tag", {"tracks": ["tone03"]}))
    assert found(answer, schemas.Tagged)["calibrated"]
    assert {tag["name"] for tag in answer.json()["tracks"][0]["tags"]} == {"low", "high", "steady", "pulsing"}


def test_hits_carry_as_many_tags_as_are_wanted(tiny_settings):
    three, none = ask(tiny_settings, ("GET", "/v1/search?q=a&tags=3", {}), ("GET", "/v1/search?q=a&tags=0", {}))
    assert {len(hit["tags"]) for hit in found(three)["hits"]} == {3}
    assert {len(hit["tags"]) for hit in found(none)["hits"]} == {0}


def test_facets_and_tags_count_tracks_and_not_windows(windows, tiny_settings):
    for settings in (windows, tiny_settings):
        facets, tags = ask(settings, ("GET", "/v1/facets", {}), ("GET", "/v1/tags", {}))
        fields = {field["name"]: field for field in found(facets, schemas.Facets)["fields"]}
        assert fields["pitch"]["values"] == [{"value": "low", "count": 20}, {"value": "high", "count": 20}]
        assert fields["duration_seconds"] == {
            "name": "duration_seconds", "kind": "number", "min": 1.2, "max": pytest.approx(1.8)
        }  # fmt: skip
        assert not {"path", "title", "content", "track", "start_seconds"} & set(fields)
        assert {"name": "low", "kind": "pitch", "tracks": 20} in found(tags, schemas.Tags)["tags"]


def test_the_map_has_a_place_for_each_track_and_a_bound(tiny_settings, windows):
    whole, of_windows = (ask(settings, ("GET", "/v1/map", {}))[0] for settings in (tiny_settings, windows))
    (few,) = ask(replace(tiny_settings, map_points=7), ("GET", "/v1/map", {"headers": {"accept-encoding": "identity"}}))
    points = found(whole, schemas.Map)["points"]
    assert [point["id"] for point in points] == [f"tone{number:02d}" for number in range(40)]
    assert max(abs(point[axis]) for point in points for axis in "xy") == pytest.approx(1.0)
    assert len(found(of_windows, schemas.Map)["points"]) == 40
    assert len(found(few, schemas.Map)["points"]) == 7
    assert whole.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in few.headers


def test_audio_is_served_whole_and_in_ranges(tiny_settings, sound):
    whole, part, beyond, head = ask(
        tiny_settings,
        ("GET", "/v1/audio?id=tone03", {}),
        ("GET", "/v1/audio?id=tone03", {"headers": {"range": "bytes=10-19"}}),
        ("GET", "/v1/audio?id=tone03", {"headers": {"range": "bytes=99999999-"}}),
        ("HEAD", "/v1/audio?id=tone03", {}),
    )
    content = sound.read_bytes()
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "audio/wav"
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert problem_of(beyond, 416, "range")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))


def test_a_waveform_shows_where_a_track_is_loud(tiny_settings, served, tmp_path):
    from xmodal.embeddings import Embeddings
    from xmodal.index import build_index

    samples = np.zeros(8000, np.float32)
    samples[6000:] = 0.5
    soundfile.write(tmp_path / "late.wav", samples, 8000, subtype="FLOAT")
    index = load_index(served / "index")
    rows = Embeddings(["late"], index.vectors([0]), index.space_id, [{"path": str(tmp_path / "late.wav")}])
    build_index(rows).save(tmp_path / "index")
    settings = replace(tiny_settings, index=str(tmp_path / "index"))
    first, again = ask(
        settings, ("GET", "/v1/waveform?id=late&points=4", {}), ("GET", "/v1/waveform?id=late&points=2", {})
    )
    expected = {"space_id": index.space_id, "peaks": [0.0, 0.0, 0.0, 0.5], "duration_seconds": 1.0}
    assert found(first, schemas.Waveform) == expected
    assert found(again, schemas.Waveform)["peaks"] == [0.0, 0.5]


@pytest.mark.parametrize(
    "path",
    ["/v1/info", "/v1/search?q=low", "/v1/similar?id=tone03", "/v1/tracks", "/v1/track?id=tone03", "/v1/facets",
     "/v1/tags", "/v1/map", "/v1/waveform?id=tone03", "/info"],
)  # fmt: skip
def test_every_answer_about_the_catalogue_names_its_space(client_of_tones, path, embedder):
    assert client_of_tones("GET", path).json()["space_id"] == embedder.space_id


def test_the_model_that_is_listed_names_its_space(client_of_tones, embedder):
    (model,) = client_of_tones("GET", "/v1/models").json()["data"]
    assert model["space_id"] == embedder.space_id


@pytest.mark.parametrize(
    ("request_", "status", "kind", "said"),
    [
        (post("/v1/search", {}), 422, "out-of-range", "either terms or a query"),
        (post("/v1/search", {"terms": [{"text": "a"}], "query": "a"}), 422, "out-of-range", "either terms or a query"),
        (post("/v1/search", {"terms": [{"text": "a", "track": "b"}]}), 422, "out-of-range", "exactly one of"),
        (post("/v1/search", {"terms": [{"text": "a", "weight": -1}]}), 422, "out-of-range", "positive weight"),
        (post("/v1/search", {"terms": [{"text": "a", "weight": 0}]}), 422, "out-of-range", "weight 0"),
        (post("/v1/search", {"terms": [{"text": "a"}, {"text": "a", "weight": -1}]}), 422, "out-of-range", "cancel"),
        (post("/v1/search", {"terms": [{"text": "a"}] * 33}), 422, "out-of-range", "32 terms, got 33"),
        (post("/v1/search", {"terms": [{"track": "none"}]}), 404, "unknown-id", "no track 'none'"),
        (post("/v1/search", {"terms": [{"audio": "u_none"}]}), 404, "unknown-upload", "send the file again"),
        (post("/v1/search", {"terms": [{"vector": [1.0]}]}), 422, "out-of-range", "has 12 numbers, got 1"),
        (post("/v1/search", {"terms": [{"vector": [0.0] * 12}]}), 422, "out-of-range", "needs a direction"),
        (post("/v1/search", {"terms": [{"text": "a"}], "where": ["x"]}), 422, "out-of-range", "is no condition"),
        (post("/v1/search", {"terms": [{"text": "a"}], "where": ["a=b"] * 33}), 422, "out-of-range", "32 conditions"),
        (post("/v1/search", {"query": "a", "k": 201, "group": "artist"}), 422, "out-of-range", "200 at most"),
        (post("/v1/search", {"query": '"a'}), 422, "out-of-range", "a quote is not closed"),
        (post("/v1/search", {"query": "id:none"}), 422, "out-of-range", "holds no 'none'"),
        (post("/v1/search", {"query": "a", "kk": 3}), 422, "out-of-range", "body.kk"),
        (post("/v1/search", {"query": "\ud800"}), 422, "out-of-range", "surrogate"),
        (("GET", "/v1/search?q=a&kk=3", {}), 422, "out-of-range", "query.kk"),
        (("GET", "/v1/similar?id=none", {}), 404, "unknown-id", "no track"),
        (("POST", "/v1/search", {"content": b'{"query": "a", "diversity": NaN}'}), 422, "out-of-range", "finite"),
        (("POST", "/v1/search", {"content": b"{"}), 400, "bad-request", "JSON"),
        (("POST", "/v1/search", {"content": b"\xff\xfe"}), 400, "bad-request", ""),
        (post("/v1/embed/text", {"texts": []}), 422, "out-of-range", "from 1 to 256"),
        (post("/v1/embed/text", {"texts": ["a", " "]}), 422, "out-of-range", "text 1 is empty"),
        (post("/v1/embed/text", {"texts": ["a" * 2001]}), 422, "out-of-range", "2000 characters"),
        (post("/v1/embeddings", {"input": [[1, 2]]}), 422, "out-of-range", "input"),
        (post("/v1/embeddings", {"input": "a", "dimensions": 5}), 422, "out-of-range", "12 dimensions"),
        (post("/embed", {"inputs": "a", "normalize": False}), 422, "out-of-range", "length 1"),
        (post("/v1/tag", {"tracks": []}), 422, "out-of-range", "body.tracks"),
        (post("/v1/tag", {"tracks": ["none"]}), 404, "unknown-id", "no track"),
        (post("/v1/tag", {"tracks": ["tone00"], "tags": ["a", "A"]}), 422, "out-of-range", "named once"),
        (post("/v1/tag", {"tracks": ["tone00"], "tags": [" "]}), 422, "out-of-range", "visible character"),
        (post("/v1/tag", {"tracks": ["tone00"], "tags": []}), 422, "out-of-range", "from 1 to 200"),
        (("POST", "/v1/tag", {"content": b"x", "headers": {"content-type": "text/plain"}}), 415, "wrong-type", "send"),
        (("POST", "/v1/embed/audio", {}), 422, "out-of-range", "send either"),
        (post("/v1/embed/audio", {}), 415, "wrong-type", "send either"),
        (post("/v1/uploads", {"url": "http://a"}), 415, "wrong-type", "curl -F"),
        (("POST", "/v1/uploads", {"files": {"other": b"x"}}), 422, "out-of-range", "no file in the field file"),
        (("POST", "/v1/uploads", {"files": {"file": b""}}), 422, "bad-audio", "is empty"),
        (("POST", "/v1/uploads", {"files": {"file": ("a.wav", b"RIFF")}}), 422, "bad-audio", "a.wav: "),
        (("GET", "/v1/audio?id=none", {}), 404, "unknown-id", "no track"),
        (("GET", "/v1/waveform?id=tone00&points=0", {}), 422, "out-of-range", "points"),
        (("GET", "/v1/tracks?where=x", {}), 422, "out-of-range", "is no condition"),
    ],
)
def test_what_cannot_be_is_refused_with_one_sentence(client_of_tones, request_, status, kind, said):
    method, path, arguments = request_
    if "json" in arguments:  # as it is, also what is no Unicode
        content = json.dumps(arguments["json"]).encode()
        arguments = {"content": content, "headers": {"content-type": "application/json"}}
    elif "content" in arguments:
        arguments = {"headers": {"content-type": "application/json"}, **arguments}
    assert said in problem_of(client_of_tones(method, path, **arguments), status, kind)


def test_a_line_never_reads_a_file_of_the_server(client_of_tones, sound):
    """A path is words like any others: the same hits as those words in quotes."""
    path, words = (
        client_of_tones("GET", "/v1/search", params={"q": text, "k": 40}) for text in (str(sound), f'"{sound}"')
    )
    assert ids(path) == ids(words)
    assert path.json()["hits"][0]["score"] < 0.999


def test_where_there_is_no_library_nothing_is_played(tiny_settings, tmp_path):
    settings = replace(tiny_settings, library=(str(tmp_path),))
    audio, waveform, searched, windows = ask(
        settings,
        ("GET", "/v1/audio?id=tone00", {}),
        ("GET", "/v1/waveform?id=tone00", {}),
        ("GET", "/v1/search?q=a", {}),
        ("POST", "/v1/embed/audio?id=tone00&windows=true", {}),
    )
    for answer in (audio, waveform, windows):
        assert str(Path(tmp_path).parent) not in problem_of(answer, 404, "no-audio")
    assert all(hit["audio"] is None for hit in found(searched)["hits"])


def test_ids_may_hold_any_character(tiny_settings, served, tmp_path):
    from xmodal.embeddings import Embeddings
    from xmodal.index import build_index

    names = ["a/b c", "ü?&#+%2F", '"quoted"', "../../etc/passwd"]
    index = load_index(served / "index")
    build_index(Embeddings(names, index.vectors(range(4)), index.space_id)).save(tmp_path / "index")
    requests = [("GET", "/v1/track", {"params": {"id": name}}) for name in names]
    for name, answer in zip(names, ask(replace(tiny_settings, index=str(tmp_path / "index")), *requests), strict=True):
        assert found(answer, schemas.OneTrack)["id"] == answer.json()["title"] == name or name.startswith("..")
