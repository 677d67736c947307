"""SpecAugment: what is blanked, how much, when, and from which generator."""

from __future__ import annotations

import pytest
import torch

from xmodal.towers import SpecAugment

CLIPS, BANDS, FRAMES = 200, 40, 100


def blanked(augment, valid_frames=None, seed=0):
    torch.manual_seed(seed)
    return augment.train()(torch.ones(CLIPS, BANDS, FRAMES), valid_frames) == 0


def stripes(blank):
    """Runs of True in a row of flags, as (start, length)."""
    edges = torch.diff(blank.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, ends = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
    return list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))


def test_evaluation_leaves_the_features_alone():
    features = torch.randn(3, BANDS, FRAMES)
    assert SpecAugment().eval()(features) is features


def test_time_stripes_span_all_bands_and_are_no_wider_than_their_share():
    blank = blanked(SpecAugment(time_masks=1, time_share=0.2, band_masks=0))
    assert (blank.all(dim=1) == blank.any(dim=1)).all()
    runs = [stripes(clip[0]) for clip in blank]
    assert all(len(found) <= 1 for found in runs)
    widths = [found[0][1] if found else 0 for found in runs]
    assert min(widths) == 0
    assert max(widths) == 20
    starts = [found[0][0] for found in runs if found]
    assert min(starts) < 5
    assert max(start + width for start, width in zip(starts, filter(None, widths), strict=True)) > 95


def test_band_stripes_span_all_frames_and_are_no_wider_than_their_share():
    blank = blanked(SpecAugment(time_masks=0, band_masks=2, band_share=0.25))
    assert (blank.all(dim=2) == blank.any(dim=2)).all()
    runs = [stripes(clip[:, 0]) for clip in blank]
    assert max(len(found) for found in runs) == 2
    assert max(width for found in runs for _, width in found) <= 20
    assert {width for found in runs if len(found) == 2 for _, width in found} <= set(range(11))


def test_stripes_of_time_fall_where_the_clip_is():
    lengths = torch.randint(1, FRAMES, (CLIPS,), generator=torch.Generator().manual_seed(0))
    blank = blanked(SpecAugment(time_masks=2, time_share=0.5, band_masks=0), lengths)
    padding = torch.arange(FRAMES) >= lengths[:, None]
    assert not (blank.any(dim=1) & padding).any()
    assert blank.any(dim=(1, 2)).float().mean() > 0.5


def test_the_stripes_come_from_the_global_generator_and_differ_from_clip_to_clip():
    augment = SpecAugment()
    assert torch.equal(blanked(augment, seed=1), blanked(augment, seed=1))
    assert not torch.equal(blanked(augment, seed=1), blanked(augment, seed=2))
    first, second = blanked(augment, seed=1)[:2]
    assert not torch.equal(first, second)


def test_without_stripes_nothing_changes():
    assert not blanked(SpecAugment(time_masks=0, band_masks=0)).any()
    assert not blanked(SpecAugment(time_share=0.0, band_share=0.0)).any()


def test_a_share_of_one_may_blank_everything():
    widths = [sum(width for _, width in stripes(clip[0])) for clip in blanked(SpecAugment(1, 1.0, 0))]
    assert max(widths) == FRAMES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_masks": -1}, "cannot be negative, got time -1"),
        ({"band_masks": -2}, "cannot be negative, got time 2, band -2"),
        ({"time_share": 1.1}, r"must be from 0 to 1, got time 1\.1"),
        ({"band_share": -0.1}, r"must be from 0 to 1, got time 0\.1, band -0\.1"),
    ],
)
def test_impossible_stripes_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SpecAugment(**settings)
