"""Every check on a healthy space, and on one made to fail it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from xmodal.doctor import LIMITS, Report, Space, examine_space
from xmodal.doctor.findings import judge
from xmodal.doctor.geometry import chance_skewness, k_occurrence, skewness
from xmodal.losses import InfoNCELoss

TRACKS, DIM = 300, 48


def noise(items=TRACKS, dim=DIM, seed=0):
    return torch.randn(items, dim, generator=torch.Generator().manual_seed(seed))


def make_space(audio, text=None, relevance=None):
    text = audio + 0.3 * noise(len(audio), audio.shape[1], seed=9) if text is None else text
    relevance = torch.eye(len(audio), len(text), dtype=torch.bool) if relevance is None else relevance
    names = [f"track{row}" for row in range(len(audio))], [f"text{column}" for column in range(len(text))]
    return Space(normalize(audio, dim=1), normalize(text, dim=1), relevance, *names)


def healthy():
    return make_space(noise())


def collapsed():
    return make_space(torch.ones(DIM) + 0.1 * noise())


def in_a_cone():
    return make_space(torch.ones(DIM) * 1.2 + noise())


def of_two_directions():
    return make_space(noise(dim=2) @ noise(2, seed=1))


def half_dead():
    audio = noise()
    audio[:, : DIM // 2 + 1] = 0
    return make_space(audio, audio.clone())


def apart():
    side = torch.zeros(DIM)
    side[0] = 7.0
    return make_space(noise() + side, noise() - side)


def with_a_hub():
    # Seven tracks near the centre of all texts are nearest to nearly all of them.
    audio, text = noise() - 0.3, noise(seed=4) + 0.5
    audio[:7] = 1 + 0.01 * noise(7)
    return make_space(audio, text)


def misaligned():
    return make_space(noise(), noise(seed=5))


def doubled():
    audio = noise()
    audio[100:200] = audio[:100]
    return make_space(audio)


def with_a_nan():
    space = healthy()
    space.audio[3, 5] = math.nan
    space.text[7] = math.inf
    return space


def findings(space, loss=None):
    return {(found.check, found.about): found for found in examine_space(space, loss)}


def test_a_healthy_space_passes_every_check():
    found = findings(healthy(), InfoNCELoss())
    assert {finding.verdict for finding in found.values()} == {"healthy"}
    assert {check for check, _ in found} == set(LIMITS) - {"untrained weights", "weights file", "temperature"}
    assert not any(finding.advice for finding in found.values())


@pytest.mark.parametrize(
    ("made", "check", "about", "verdict"),
    [
        (collapsed, "collapse", "audio", "ill"),
        (in_a_cone, "anisotropy", "audio", "warning"),
        (of_two_directions, "effective rank", "audio", "warning"),
        (collapsed, "uniformity", "text", "ill"),
        (half_dead, "dead dimensions", "audio", "ill"),
        (apart, "modality gap", "audio and text", "ill"),
        (with_a_hub, "hubness", "text to audio", "ill"),
        (misaligned, "alignment", "audio and text", "ill"),
        (misaligned, "retrieval at chance", "text to audio", "ill"),
        (misaligned, "retrieval at chance", "audio to text", "ill"),
        (doubled, "duplicates", "audio", "ill"),
        (with_a_nan, "finite", "audio", "ill"),
        (with_a_nan, "finite", "text", "ill"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_space_made_to_fail_a_check_fails_it_and_is_advised(made, check, about, verdict):
    found = findings(made())[check, about]
    assert found.verdict == verdict, found.detail
    assert found.advice.endswith(".")


def test_the_figures_are_what_the_space_was_made_with():
    assert findings(collapsed())["collapse", "audio"].figure == pytest.approx(0.99, abs=0.005)
    assert findings(apart())["modality gap", "audio and text"].figure == pytest.approx(
        2 * 7 / math.sqrt(49 + 47), abs=0.1
    )
    assert findings(of_two_directions())["effective rank", "audio"].figure == pytest.approx(2 / DIM, abs=0.01)
    assert findings(doubled())["duplicates", "audio"].figure == pytest.approx(1 / 3)
    assert findings(half_dead())["dead dimensions", "audio"].figure == pytest.approx(25 / 48)


def test_hubness_is_what_is_above_chance():
    space = healthy()
    counts = k_occurrence(space.text, space.audio, 10)
    figure = findings(space)["hubness", "text to audio"].figure
    assert figure == pytest.approx(skewness(counts) - chance_skewness(TRACKS, TRACKS, 10))


def test_examples_name_the_culprits():
    hub = findings(with_a_hub())["hubness", "text to audio"]
    assert {name.split()[0] for name in hub.examples} <= {f"track{row}" for row in range(7)}
    assert findings(doubled())["duplicates", "audio"].examples[0] == "track0 = track100"
    assert findings(with_a_nan())["finite", "audio"].examples == ("track3",)


def test_items_that_are_not_finite_do_not_spoil_the_other_checks():
    found = findings(with_a_nan())
    others = [finding for (check, _), finding in found.items() if check != "finite"]
    assert {finding.verdict for finding in others} == {"healthy"}


def test_a_loss_is_at_chance_where_texts_are_dealt_out_at_random():
    assert findings(misaligned(), InfoNCELoss())["loss at chance", "InfoNCELoss"].verdict == "ill"
    good = findings(healthy(), InfoNCELoss())["loss at chance", "InfoNCELoss"]
    assert good.figure > 10


def test_a_loss_keeps_its_mode():
    loss = InfoNCELoss().train()
    findings(healthy(), loss)
    assert loss.training


def test_a_classifier_of_ten_words_is_not_called_collapsed():
    """Ten words and clips that coincide by word are what a perfect model of words makes."""
    words = normalize(noise(10), dim=1)
    spoken = torch.arange(TRACKS) % 10
    relevance = torch.nn.functional.one_hot(spoken, 10).bool()
    found = findings(make_space(words[spoken] + 1e-4 * noise(), words, relevance))
    assert {finding.verdict for finding in found.values()} <= {"healthy", "not judged"}
    assert found["hubness", "audio to text"].verdict == "not judged"


def test_two_items_are_too_few_and_it_is_said():
    space = make_space(torch.eye(3)[:1], torch.eye(3)[:2])
    assert [finding.verdict for finding in examine_space(space)] == ["healthy", "healthy", "not judged"]


def test_many_items_are_sampled_the_same_way_each_time():
    space = healthy()
    one, two = space.sample(50), space.sample(50)
    assert one.audio_names == two.audio_names
    assert len(one.audio) == len(one.text) == 50
    rows = [int(name.removeprefix("track")) for name in one.audio_names]
    columns = [int(name.removeprefix("text")) for name in one.text_names]
    assert torch.equal(one.audio, space.audio[rows])
    assert torch.equal(one.relevance, space.relevance[rows][:, columns])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="of one dim"):
        make_space(noise(dim=4), noise(dim=5))
    with pytest.raises(ValueError, match="relevance and names must be of 300 tracks and 300 texts"):
        make_space(noise(), relevance=torch.eye(4).bool())


@pytest.mark.parametrize("check", LIMITS)
def test_every_limit_has_a_reason_an_advice_and_an_order(check):
    limit = LIMITS[check]
    assert len(limit.reason) > 40
    assert limit.advice.endswith(".")
    assert limit.warning is not None or limit.ill is not None
    if limit.warning is not None and limit.ill is not None:
        assert (limit.warning < limit.ill) == (limit.worse == "higher")
    assert limit.verdict(math.nan) == "ill"


def test_a_limit_is_reached_at_its_very_figure():
    assert [judge("collapse", "x", figure, "").verdict for figure in (0.79, 0.8, 0.95)] == ["healthy", "warning", "ill"]
    assert [judge("alignment", "x", figure, "").verdict for figure in (1.01, 1.0, 0.3)] == ["healthy", "warning", "ill"]


def test_a_report_is_as_ill_as_its_worst_finding_and_goes_to_json_and_loggers():
    good, bad = judge("collapse", "audio", 0.1, "fine"), judge("collapse", "text", 0.99, "flat", ["a"])
    broken = judge("alignment", "audio and text", math.inf, "odd")
    assert Report([good]).verdict == "healthy"
    warned = judge("collapse", "audio", 0.9, "narrow")
    assert [Report(found).verdict for found in ([good, warned], [warned, bad])] == ["warning", "ill"]
    report = Report([good, bad, broken], {"tracks": 3})
    assert report.verdict == "ill"
    assert report.as_json()["findings"][1]["advice"] == LIMITS["collapse"].advice
    assert report.as_json()["findings"][2]["figure"] is None
    assert report.as_json()["tracks"] == 3
    assert report.figures() == {"collapse/audio": 0.1, "collapse/text": 0.99}


def test_the_page_names_every_check_with_its_limits():
    page = (Path(__file__).resolve().parents[2] / "docs" / "howto-doctor.md").read_text()
    rows = {cells[1].strip(): cells[3:5] for line in page.splitlines() if len(cells := line.split("|")) == 6}
    assert set(LIMITS) <= set(rows)
    for check, limit in LIMITS.items():
        for written, value in zip(rows[check], (limit.warning, limit.ill), strict=True):
            written = written.strip().replace("−", "-")
            if written != "all":
                assert (float(written) if written else None) == value, check
