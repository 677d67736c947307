"""Protocols: every choice changes what it says it changes, and nothing leaks; reports can be compared and opened."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch

import xmodal
from xmodal.cli import main
from xmodal.data.manifests import read_tracks
from xmodal.data.tracks import Caption, Track
from xmodal.embedder import Embedder
from xmodal.errors import DataError
from xmodal.evaluation import (
    Protocol,
    compare_reports,
    evaluate_retrieval,
    evaluate_tags,
    find_leaks,
    judge,
    read_protocol,
    read_report,
    refuse_leaks,
)
from xmodal.evaluation.judge import data_fingerprint
from xmodal.metrics import paired_permutation_test, rank
from xmodal.model import TwoTower
from xmodal.report import write_report_page
from xmodal.tagging import TagScorer
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import config_folder

READY = sorted((config_folder() / "protocols").glob("*.yaml"))


def tiny(seed):
    torch.manual_seed(seed)
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)
    return TwoTower(audio, text, dim=12, window_seconds=0.5)


@pytest.fixture(scope="module")
def embedder():
    return Embedder(tiny(0), device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny(0).save(folder)
    return folder


@pytest.fixture(scope="module")
def tracks(tone_tracks):
    return read_tracks(tone_tracks, tag_fields=["pitch", "motion"])


@pytest.fixture(scope="module")
def report(embedder, tracks):
    return judge(embedder, tracks, Protocol(split="all", classify="pitch", ks=(1, 5)), manifest="tones.jsonl")


# -- the rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_every_ready_protocol_can_be_read_and_says_what_it_is(path):
    protocol = read_protocol(path)
    assert protocol.name != "default"
    assert len(protocol.about) > 40
    assert path.read_text().startswith(f"# xmodal evaluate MANIFEST --model MODEL --protocol {path.stem}\n")


def test_the_published_sets_are_all_there():
    names = {path.stem for path in READY}
    assert names >= {
        "song_describer", "musiccaps", "mtg_jamendo_top50", "mtg_jamendo_genre", "mtg_jamendo_instrument",
        "mtg_jamendo_moodtheme", "magnatagatune", "gtzan", "esc50", "esc10", "clotho", "audiocaps", "demo",
    }  # fmt: skip


def test_the_hash_is_of_the_rules_and_not_of_the_name():
    plain = Protocol()
    assert plain.hash() == Protocol(name="other", about="words").hash()
    changes = [
        {"split": "all"}, {"directions": ("tags",)}, {"captions": 1}, {"relevance": "captions"}, {"ties": "for"},
        {"ks": (1,)}, {"pool": 5}, {"view": {"pooling": "energy"}}, {"tag_kinds": ("genre",)}, {"classify": "genre"},
        {"prompts": {"genre": ("{}",)}}, {"null_prompts": True}, {"unseen": ("a",)}, {"alike": "genre"},
        {"alike_exclude": "artist"}, {"agreement": 0.8}, {"votes": 3}, {"group": "artist"}, {"refuse_leaks": ()},
        {"confidence": 0.9}, {"resamples": 9}, {"seed": 1},
    ]  # fmt: skip
    assert {next(iter(change)) for change in changes} == {
        each.name for each in dataclasses.fields(Protocol) if each.name not in ("name", "about")
    }
    assert len({plain.hash(), *(Protocol(**change).hash() for change in changes)}) == len(changes) + 1


def test_reports_from_before_a_rule_was_there_keep_their_hash():
    assert Protocol().hash() == "66a6be8f8494fb52"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("split: held-out", "split must be one of train, validation"),
        ("relevance: any", "relevance must be one of captions, tags"),
        ("ties: split", "ties must be one of against, for"),
        ("directions: [both]", "directions may hold text_to_audio"),
        ("directions: []", "must name what to measure"),
        ("refuse_leaks: [title]", "refuse_leaks may hold audio"),
        ("pool: 0", "pool must be at least 1"),
        ("ks: [0]", "ks must be lengths"),
        ("unseen: []", "unseen must be a list of tags"),
        ("unseen: jazz", "unseen must be a list of tags"),
        ("alike_exclude: album", "alike_exclude must be artist"),
        ("agreement: 0.5", "agreement must be above 0.5"),
        ("view: {window: 3}", "a view has the settings"),
        ("prompts: {genre: [music]}", "exactly one {}"),
        ("pools: 3", "'pools' is no field of a protocol; the fields are: about"),
        ("[", "no protocol that can be used"),
        ("3", "fields and their values"),
    ],
)
def test_a_protocol_that_breaks_a_rule_is_refused_by_file_and_reason(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DataError, match=r"p\.yaml is no protocol") as refused:
        read_protocol(tmp_path / "p.yaml")
    assert message in str(refused.value)


def test_a_pool_is_drawn_by_ids_and_not_by_order(tracks):
    protocol = Protocol(pool=7)
    drawn = {track.id for track in protocol.judged(tracks)}
    assert len(drawn) == 7
    assert {track.id for track in protocol.judged(tracks[::-1])} == drawn
    assert {track.id for track in Protocol(pool=7, seed=1).judged(tracks)} != drawn
    assert len(Protocol(pool=99).judged(tracks)) == 40


# -- figures ------------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_pieces(embedder, tracks, report):
    audio = embedder.embed_files(tracks).embeddings.vectors
    texts = list(dict.fromkeys(c.text for track in tracks for c in track.captions))
    own = [{c.text for c in track.captions} for track in tracks]
    relevance = torch.tensor([[text in mine for text in texts] for mine in own])
    expected = evaluate_retrieval(audio, embedder.embed_texts(texts), relevance, ks=(1, 5))
    for direction in ("text_to_audio", "audio_to_text"):
        assert report.retrieval[direction].values == pytest.approx(getattr(expected, direction).values)
    scorer = TagScorer({"pitch": ["low", "high"], "motion": ["steady", "pulsing"]}, embedder.embed_texts)
    labels, valid = scorer.labels([track.tags for track in tracks])
    tagged = evaluate_tags(audio, scorer.vectors, labels, scorer.tags, valid=valid)
    assert report.tags.values == pytest.approx(tagged.values)
    two = TagScorer({"pitch": ["high", "low"]}, embedder.embed_texts)
    right, _ = two.labels([{"pitch": track.tags["pitch"]} for track in tracks])
    assert report.classification["accuracy"] == float(rank(two.score(audio), right).hit(1).mean())
    assert report.classification["chance"] == 0.5
    assert report.per_query["classification"]["query"] == [track.id for track in tracks]


def test_the_worst_answers_are_those_that_stand_farthest_down(report):
    for direction, both in report.answers.items():
        places = report.per_query[direction]["MedR"]
        assert [answer.place for answer in both["worst"]] == sorted(places, reverse=True)[:12]
        assert [answer.place for answer in both["best"]] == sorted(places)[:6]


def test_captions_relevance_and_ties_change_what_is_right(embedder, tracks):
    both = [dataclasses.replace(t, captions=(*t.captions, Caption(f"tone {t.id}", t.tags["pitch"]))) for t in tracks]

    def figures(**change):
        protocol = Protocol(split="all", directions=("text_to_audio",), ks=(1, 10), **change)
        return judge(embedder, both, protocol).retrieval["text_to_audio"]

    assert figures().queries == 4 * 2 + 40
    assert figures(captions=2).queries == 8
    assert figures(relevance="captions").right_answers < figures().right_answers
    same = [dataclasses.replace(track, captions=(Caption(f"tone {track.id}"),)) for track in tracks]
    blind = Embedder(tiny(0), device="cpu")
    blind.embed_texts = lambda texts: np.tile(np.eye(1, 12, dtype=np.float32), (len(texts), 1))
    found = {
        ties: judge(blind, same, Protocol(split="all", directions=("audio_to_text",), ties=ties, ks=(1,)))
        for ties in ("against", "for")
    }
    assert found["against"].retrieval["audio_to_text"].values["R@1"] == 0
    assert found["for"].retrieval["audio_to_text"].values["R@1"] == 1


def test_prompts_and_null_prompts_reach_the_tags(embedder, tracks):
    protocol = Protocol(split="all", directions=("tags",), prompts={"pitch": ("qqq {} zzz",), "motion": ("{}",)})
    found = judge(embedder, tracks, protocol).tags.values
    audio = embedder.embed_files(tracks).embeddings.vectors
    kinds = {"pitch": ["low", "high"], "motion": ["steady", "pulsing"]}
    for null in ((), ("music", "a sound", "an audio recording")):
        scorer = TagScorer(kinds, embedder.embed_texts, templates=protocol.prompts, null_prompts=null)
        labels, _ = scorer.labels([track.tags for track in tracks])
        areas = xmodal.metrics.roc_auc(scorer.score(audio), labels)
        asked = dataclasses.replace(protocol, null_prompts=bool(null))
        assert judge(embedder, tracks, asked).tags.values["ROC-AUC"] == pytest.approx(areas)
    assert found != judge(embedder, tracks, Protocol(split="all", directions=("tags",))).tags.values
    only = judge(embedder, tracks, Protocol(split="all", directions=("tags",), tag_kinds=("motion",)))
    assert set(only.tags.per_tag) == {"steady", "pulsing"}


def test_a_tag_that_a_track_denies_is_a_negative_and_one_that_it_does_not_name_is_unknown(embedder, tracks):
    first = [dataclasses.replace(track, tags={}, absent={}) for track in tracks[:6]]
    first[0] = dataclasses.replace(first[0], tags={"pitch": ("low",)}, absent={"pitch": ("high",)})
    first[1] = dataclasses.replace(first[1], tags={"pitch": ("high",)}, absent={"pitch": ("low",)})
    first[2] = dataclasses.replace(first[2], absent={"pitch": ("low",)})
    found = judge(embedder, first, Protocol(split="all", directions=("tags",))).tags.per_tag
    assert {name: (one["positives"], one["negatives"]) for name, one in found.items()} == {
        "low": (1, 2), "high": (1, 1),
    }  # fmt: skip
    denied = data_fingerprint([dataclasses.replace(tracks[0], absent={"pitch": ("high",)}), *tracks[1:]])
    assert denied != data_fingerprint(tracks)


def test_a_broken_file_is_set_aside_and_what_cannot_be_asked_is_refused(embedder, tracks, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    bad = Track("bad", tmp_path / "bad.wav", captions=(Caption("a tone"),))
    found = judge(embedder, [*tracks[:4], bad], Protocol(split="all"))
    assert found.facts["tracks"] == 4
    assert found.facts["failures"][0]["path"].endswith("bad.wav")
    with pytest.raises(DataError, match="not one of the tracks"):
        judge(embedder, [bad], Protocol())
    silent = [dataclasses.replace(track, captions=(), tags={}) for track in tracks[:4]]
    with pytest.raises(DataError, match="no captions and no tags"):
        judge(embedder, silent, Protocol())
    with pytest.raises(DataError, match="exactly one tag of kind 'era'"):
        judge(embedder, tracks[:4], Protocol(classify="era"))


def test_the_fingerprint_is_of_contents_and_words_and_not_of_places(tracks, tmp_path):
    plain = data_fingerprint(tracks)
    assert data_fingerprint(tracks[::-1]) == plain
    moved = tmp_path / "elsewhere.wav"
    moved.write_bytes(tracks[0].path.read_bytes())
    assert data_fingerprint([dataclasses.replace(tracks[0], path=moved), *tracks[1:]]) == plain
    samples, rate = soundfile.read(moved)
    soundfile.write(moved, samples * 0.5, rate)
    assert data_fingerprint([dataclasses.replace(tracks[0], path=moved), *tracks[1:]]) != plain
    for change in ({"captions": ()}, {"tags": {}}, {"end_seconds": 0.5}, {"id": "other"}):
        assert data_fingerprint([dataclasses.replace(tracks[0], **change), *tracks[1:]]) != plain


# -- leaks --------------------------------------------------------------------------------------------------------


def test_leaks_are_found_by_content_group_artist_and_words(tracks, tmp_path):
    copy = tmp_path / "copy.wav"
    copy.write_bytes(tracks[0].path.read_bytes())
    train = [dataclasses.replace(tracks[0], group="take 1", artist="Ann", captions=(Caption("A Tone!"),))]
    test = [
        Track("a", copy),
        Track("b", tracks[1].path, group="take 1"),
        Track("c", tracks[2].path, artist="ANN"),
        Track("d", tracks[3].path, captions=(Caption("a tone!"),)),
        Track("e", tracks[4].path, group="take 2", artist="Bo", captions=(Caption("other"),)),
    ]
    found = find_leaks(train, test, ("audio", "group", "artist", "caption"))
    assert [(thing.kind, thing.test) for thing in found] == [
        ("audio", "a"), ("group", "b"), ("artist", "c"), ("caption", "d"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="1 test tracks share audio with training, first 'a' with 'tone00'"):
        refuse_leaks(train, test, ("audio",))
    refuse_leaks(train, test[4:], ("audio", "group", "artist", "caption"))


def test_parts_of_one_file_leak_only_where_they_overlap(tracks):
    def part(name, start, end):
        return dataclasses.replace(tracks[0], id=name, start_seconds=start, end_seconds=end)

    assert find_leaks([part("x", 0, 0.5)], [part("y", 0.5, 1.0)], ["audio"]) == []
    assert len(find_leaks([part("x", 0, 0.6)], [part("y", 0.5, None)], ["audio"])) == 1


# -- comparing and reading ----------------------------------------------------------------------------------------


def test_two_reports_are_compared_query_by_query(report, tracks, tmp_path):
    other = judge(Embedder(tiny(1), device="cpu"), tracks, Protocol(split="all", classify="pitch", ks=(1, 5)))
    rows = compare_reports(report.to_dict(), other.to_dict())
    assert {row["direction"] for row in rows} == {"text_to_audio", "audio_to_text", "classification"}
    row = next(row for row in rows if (row["direction"], row["metric"]) == ("audio_to_text", "MRR"))
    ours, theirs = (torch.tensor(each.per_query["audio_to_text"]["MRR"]) for each in (report, other))
    groups = torch.tensor(report.per_query["audio_to_text"]["group"])
    assert row["p_value"] == paired_permutation_test(ours, theirs, groups=groups).p_value
    assert row["difference"] == pytest.approx(float((ours - theirs).mean()), abs=1e-6)
    assert all(row["p_value"] == 1 for row in compare_reports(report.to_dict(), report.to_dict()))
    for change, message in (
        ({"protocol_hash": "x"}, "different protocols"),
        ({"data_fingerprint": "x"}, "different data"),
        ({"per_query": {"text_to_audio": {"query": []}}}, "different queries in text_to_audio"),
    ):
        with pytest.raises(DataError, match=message):
            compare_reports(report.to_dict(), other.to_dict() | change)
    report.save(tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == json.loads(json.dumps(report.to_dict()))
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(DataError, match=r"r\.json is no report"):
        read_report(tmp_path / "r.json")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_well_formed_file_with_players_that_play(report, tmp_path):
    strange = dataclasses.replace(report.tracks[0], title='<b>"x"</b>')
    page = dataclasses.replace(report, tracks=[strange, *report.tracks[1:]])
    write_report_page(page, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    assert "<b>" not in text
    links = [attrs[name] for _, attrs in parser.seen for name in ("src", "href") if name in attrs]
    assert links
    assert all(link.startswith("data:") for link in links)
    players = [attrs["src"] for tag, attrs in parser.seen if tag == "audio"]
    (tmp_path / "a.ogg").write_bytes(base64.b64decode(players[0].partition("base64,")[2]))
    assert 1.0 < len(xmodal.audio.load(tmp_path / "a.ogg", 8000)) / 8000 < 2.0
    assert report.facts["space_id"] in text
    assert report.facts["protocol_hash"] in text
    assert len(re.findall("data:image/png", text)) >= 2


def test_the_command_judges_by_a_protocol_and_writes_its_report(model, tone_tracks, tmp_path, capsys):
    words = ["evaluate", str(tone_tracks), "--model", str(model), "--tag-fields", "pitch,motion"]
    assert main([*words, "--protocol", "demo", "--allow-leaks", "--out", str(tmp_path / "a")]) == 0
    assert "protocol the demo corpus" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["report.html", "report.json"]
    tiny(1).save(tmp_path / "other")
    words[3] = str(tmp_path / "other")
    assert main([*words, "--protocol", "demo", "--allow-leaks", "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a" / "report.json"), str(tmp_path / "b" / "report.json")]) == 0
    assert "mean difference" in capsys.readouterr().out
    # The tones' captions are the same words in training: the protocol refuses that.
    assert main([*words, "--protocol", "demo"]) == 2
    assert "share caption with training" in capsys.readouterr().err
    assert main([*words, "--protocol", "nowhere"]) == 2
    assert "nowhere is no protocol" in capsys.readouterr().err


def test_a_sweep_shows_what_each_choice_moves(model, tone_tracks, capsys):
    words = ["evaluate", str(tone_tracks), "--model", str(model), "--tag-fields", "pitch,motion", "--sweep"]
    assert main([*words, "--split", "all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    named = {row["choice"]: row for row in found}
    same = {name: value for name, value in named["windows: mean of all windows"].items() if name != "choice"}
    assert same == pytest.approx({k: v for k, v in named["as the protocol says"].items() if k != "choice"})
    assert len({row["text_to_audio mAP@10"] for row in found if row["choice"].startswith("windows")}) > 2
    assert len({row["tags ROC-AUC"] for row in found if row["choice"].startswith("prompts")}) > 1
    assert main([*words, "--split", "all"]) == 0
    assert "smallest" in capsys.readouterr().out


def test_the_ready_protocols_are_listed(capsys):
    assert main(["protocols", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == [read_protocol(p).name for p in READY]
    assert main(["protocols"]) == 0
    assert "esc50" in capsys.readouterr().out
