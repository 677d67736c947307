"""What a protocol may ask for beyond captions and tags: unseen tags, tracks that are alike, people's votes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from random_vectors import unit
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny import tiny_model

from xmodal.cli import main
from xmodal.data.manifests import read_tracks
from xmodal.data.tracks import Caption, Track
from xmodal.embedder import Embedder
from xmodal.errors import DataError
from xmodal.evaluation import (
    Protocol,
    Vote,
    compare_reports,
    evaluate_alike,
    judge,
    judge_alike,
    judge_unseen,
    judge_votes,
    read_votes,
    without_unseen,
)


def track(id_, artist=None, captions=(), absent=None, group=None, **tags):
    return Track(
        id_, f"{id_}.wav", tags={kind: tuple(names) for kind, names in tags.items()}, absent=absent or {},
        artist=artist, group=group, captions=tuple(captions),
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedder():
    return Embedder(tiny_model(), device="cpu")


@pytest.fixture(scope="module")
def tones(tone_tracks):
    return read_tracks(tone_tracks, tag_fields=["pitch", "motion"])


# -- unseen tags --------------------------------------------------------------------------------------------------


def test_what_is_trained_on_says_nothing_of_the_unseen_tags():
    tracks = [
        track("a", genre=["Jazz"], captions=[Caption("some jazz"), Caption("no Techno at all")]),
        track("b", genre=["jazz", "techno"], absent={"mood": ("calm", "TECHNO")},
              captions=[Caption("fast techno"), Caption("technology"), Caption("a beat", frozenset({"techno"}))]),
        track("c", genre=["techno"]),
        track("d"),
    ]  # fmt: skip
    found = without_unseen(tracks, ["Techno"])
    assert {name: [t.id for t in kept] for name, kept in found.items()} == {
        "train": ["a"], "A": ["a"], "B": ["b"], "C": ["c"],
    }  # fmt: skip
    assert [caption.text for caption in found["train"][0].captions] == ["some jazz"]
    both = without_unseen(tracks, ["techno"], keep="ab")["train"]
    assert [t.id for t in both] == ["a", "b"]
    assert both[1].tags == {"genre": ("jazz",)}
    assert both[1].absent == {"mood": ("calm",)}
    assert [caption.text for caption in both[1].captions] == ["technology"]


def test_each_set_of_tracks_is_judged_by_itself():
    generator = torch.Generator().manual_seed(0)
    score, labels = torch.rand(200, 8, generator=generator), torch.rand(200, 8, generator=generator) < 0.15
    valid = torch.rand(200, 8, generator=generator) < 0.9
    tags = list("abcdefgh")
    found = judge_unseen(score, labels, valid, tags, ["G", "h", "elsewhere"])
    right = labels & valid
    sets = {
        "C": ~right[:, :6].any(1) & right[:, 6:].any(1), "B and C": right[:, 6:].any(1), "all": right.any(1),
    }  # fmt: skip
    assert found["unseen"] == ["g", "h"]
    assert found["tracks"]["A"] == int((right[:, :6].any(1) & ~right[:, 6:].any(1)).sum())
    for name, rows in sets.items():
        areas, precisions = [], []
        for column in (6, 7):
            known = (rows & valid[:, column]).numpy()
            areas.append(roc_auc_score(right[known, column], score[known, column]))
            precisions.append(average_precision_score(right[known, column], score[known, column]))
        assert found[name]["zero-shot"]["ROC-AUC"] == pytest.approx(np.mean(areas))
        assert found[name]["zero-shot"]["mAP"] == pytest.approx(np.mean(precisions))
    assert "mAP seen" not in found["C"]["generalised"], "no track of C has a seen tag"
    assert found["all"]["generalised"]["tags"] == 8
    json.dumps(found, allow_nan=False)
    for names in (["x"], tags):
        with pytest.raises(DataError, match="some seen|must be seen and some unseen"):
            judge_unseen(score, labels, valid, tags, names)


def test_the_command_divides_a_manifest_and_judges_by_it(tone_tracks, tones, tmp_path, capsys):
    words = ["data", "zero-shot", str(tone_tracks), "--tag-fields", "pitch,motion", "--out", str(tmp_path / "zs")]
    assert main([*words, "--unseen", "pulsing", "--keep", "ab"]) == 0
    assert "1 of 4 tags are unseen: pulsing" in capsys.readouterr().out
    assert (tmp_path / "zs" / "unseen.txt").read_text() == "pulsing\n"
    made = read_tracks(tmp_path / "zs" / "manifest.jsonl")
    for one in made:
        if one.split != "test":
            assert "pulsing" not in one.all_tags
            assert not any("pulsing" in caption.text for caption in one.captions)
    assert {one.extra["zero_shot"] for one in made} == {"A", "B"}
    assert sum(one.split == "test" for one in made) == sum(one.split == "test" for one in tones)
    assert main([*words[:-1], str(tmp_path / "half"), "--unseen", "0.5", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["unseen"]) == 2
    assert main([*words, "--unseen", "loud"]) == 2
    assert "'loud' is no tag of the tracks" in capsys.readouterr().err
    assert main(["data", "zero-shot", str(tone_tracks), "--out", str(tmp_path / "none")]) == 2
    assert "have no tags; name the columns" in capsys.readouterr().err
    tiny_model().save(tmp_path / "model")
    judged = ["evaluate", str(tmp_path / "zs" / "manifest.jsonl"), "--model", str(tmp_path / "model")]
    judged += ["--unseen", str(tmp_path / "zs" / "unseen.txt"), "--alike", "pitch", "--allow-leaks"]
    assert main([*judged, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["zero_shot"]["unseen"] == ["pulsing"]
    assert set(report["alike"]["values"]) >= {"MAP", "MR1", "R@1"}
    assert main([*judged, "--out", str(tmp_path / "out")]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    for text in (printed, page):
        assert "unseen tags" in text
        assert "alike by pitch" in text


# -- alike --------------------------------------------------------------------------------------------------------


def test_tracks_are_alike_by_a_tag_a_field_or_a_column_and_an_artist_can_be_kept_out():
    vectors = unit(12)
    tracks = [
        dataclasses.replace(
            track(f"t{n}", artist=f"Artist {n % 2}" if n % 2 else None, group=f"g{n // 2}", genre=[f"x{n % 3}"]),
            extra={"work": n // 4},
        )
        for n in range(12)
    ]
    by_genre, queries = judge_alike(vectors, tracks, "genre", ks=(1, 5))
    assert by_genre["values"] == pytest.approx(
        {k: v for k, v in evaluate_alike(vectors, torch.arange(12) % 3, ks=(1, 5)).items() if k != "queries"}
    )
    assert queries["query"] == [one.id for one in tracks]
    assert np.mean(queries["MAP"]) == pytest.approx(by_genre["values"]["MAP"])
    low, high = by_genre["intervals"]["MAP"]
    assert low <= by_genre["values"]["MAP"] <= high
    for by, label in (("group", torch.arange(12) // 2), ("work", torch.arange(12) // 4)):
        found, _ = judge_alike(vectors, tracks, by)
        assert found["values"]["MR1"] == evaluate_alike(vectors, label)["MR1"]
    # Those that name no artist are kept from no other; the others are all of one artist.
    apart = torch.tensor([99 if n % 2 else n for n in range(12)])
    found, _ = judge_alike(vectors, tracks, "genre", exclude="artist", ks=(1,))
    expected = evaluate_alike(vectors, torch.arange(12) % 3, exclude=apart, ks=(1,))
    assert found["values"]["MAP"] == pytest.approx(expected["MAP"])


def test_tracks_of_no_or_several_tags_take_no_part_and_nothing_alike_is_refused():
    tracks = [track("a", genre=["x"]), track("b", genre=["x", "y"]), track("c", genre=["x"]), track("d")]
    found, queries = judge_alike(unit(4), tracks, "genre", ks=(1,))
    assert (found["tracks"], found["labels"], queries["query"]) == (2, 1, ["a", "c"])
    with pytest.raises(DataError, match="no two of the 0 tracks that name their 'work' share it"):
        judge_alike(unit(4), tracks, "work")
    one = [dataclasses.replace(each, artist="Ann") for each in tracks]
    with pytest.raises(DataError, match="share it of another artist"):
        judge_alike(unit(4), one, "genre", exclude="artist")


def test_a_protocol_asks_for_the_alike_and_two_models_are_compared_on_it(embedder, tones):
    protocol = Protocol(split="all", directions=("tags",), alike="motion", ks=(1,))
    report = judge(embedder, tones, protocol)
    vectors = embedder.embed_files(tones).embeddings.vectors
    label = torch.tensor([one.tags["motion"][0] == "steady" for one in tones]).int()
    assert report.alike["values"]["MAP"] == pytest.approx(evaluate_alike(vectors, label)["MAP"])
    assert report.headline()["alike MAP"] == report.alike["values"]["MAP"]
    rows = compare_reports(report.to_dict(), report.to_dict())
    assert {row["metric"] for row in rows if row["direction"] == "alike"} == {"R@1", "P@1", "MAP", "MR1"}


# -- votes --------------------------------------------------------------------------------------------------------


def test_votes_are_filtered_by_agreement_and_held_against_the_space():
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    votes = [
        Vote("a", "b", "c", 9, 1),  # agreed, and nearer
        Vote("a", "c", "b", 0, 5),  # agreed the other way round, and nearer
        Vote("c", "a", "b", 4, 0),  # agreed, and farther
        Vote("b", "a", "c", 3, 2),  # not agreed
        Vote("b", "a", "elsewhere", 9, 0),
    ]
    found = judge_votes(vectors, ["a", "b", "c"], votes)
    assert found["agreement"] == pytest.approx(2 / 3)
    assert (found["triplets"], found["without agreement"], found["other tracks"]) == (3, 1, 1)
    assert judge_votes(vectors, ["a", "b", "c"], votes, agreement=0.6)["agreement"] == pytest.approx(3 / 4)
    with pytest.raises(DataError, match="of 1 triplets 0 name tracks that are judged"):
        judge_votes(vectors, ["a", "b", "c"], votes[4:])


def test_votes_are_read_from_a_table_and_a_bad_row_is_named(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("anchor,first,second,first_votes,second_votes\n1,2,3,4,0\n")
    assert read_votes(path) == [Vote("1", "2", "3", 4, 0)]
    for row, message in (("1,2,2,4,0", "three different tracks"), ("1,2,3,x,0", "line 2"), ("1,2,3,-1,0", "line 2")):
        path.write_text(f"anchor,first,second,first_votes,second_votes\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_votes(path)
    path.write_text("anchor,first\n1,2\n")
    with pytest.raises(DataError, match="no column 'second'"):
        read_votes(path)


def test_the_command_judges_by_votes(tone_tracks, tmp_path, capsys):
    tiny_model().save(tmp_path / "model")
    (tmp_path / "votes.csv").write_text(
        "anchor,first,second,first_votes,second_votes\ntone00,tone02,tone01,9,0\ntone01,tone03,tone00,5,5\n"
    )
    words = ["evaluate", str(tone_tracks), "--model", str(tmp_path / "model"), "--split", "all"]
    assert main([*words, "--votes", str(tmp_path / "votes.csv")]) == 0
    assert "people's triplets" in capsys.readouterr().out
