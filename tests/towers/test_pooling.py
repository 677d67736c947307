"""Pooling over time against its formulas, one clip and one channel at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.configurable import instantiate
from xmodal.towers import (
    AttentionEnsemblePool,
    AttentionPool,
    AutoPool,
    MaxPool,
    MeanMaxPool,
    MeanPool,
    OrderStatisticsPool,
    SegmentPool,
)
from xmodal.towers.pooling import order_statistics

CHANNELS = 5
POOLINGS = {
    "mean": MeanPool,
    "max": MaxPool,
    "mean+max": MeanMaxPool,
    "attention": lambda: AttentionPool(hidden=3),
    "auto": lambda: AutoPool(initial_alpha=0.7),
    "statistics": OrderStatisticsPool,
    "two statistics": lambda: OrderStatisticsPool(2),
    "ensemble": lambda: AttentionEnsemblePool(CHANNELS, hidden=3),
}


def made(name):
    torch.manual_seed(0)
    pooling = POOLINGS[name]()
    pooling.prepare(CHANNELS)
    return pooling


def by_formula(name, pooling, frames):
    """The pooled value of each channel of one clip [channels, frames], written out."""
    if name == "attention":
        first, _, second = pooling.scorer
        hidden = torch.tanh(first.weight[:, :, 0] @ frames + first.bias[:, None])
        weights = (second.weight[0, :, 0] @ hidden).softmax(dim=0)
        return torch.stack([(weights * channel).sum() for channel in frames])
    if name.endswith("statistics"):
        numbers = frames.double().numpy()
        deviation = np.sqrt(numbers.var(axis=1) + 1e-8)
        scale = np.sqrt(numbers.var(axis=1) + 0.1**2)
        skewness = (((numbers - numbers.mean(axis=1, keepdims=True)) / scale[:, None]) ** 3).mean(axis=1)
        moments = [torch.from_numpy(each).float() for each in (numbers.mean(axis=1), deviation, skewness)]
        gates = (pooling.gate.weight @ moments[0] + pooling.gate.bias).softmax(dim=0)
        parts = zip(pooling.maps, moments, gates, strict=False)
        return torch.cat([(each.weight @ moment + each.bias) * gate.sqrt() for each, moment, gate in parts])
    if name == "ensemble":
        parts = []
        for (first, _, second, _), each in zip(pooling.masks, pooling.maps, strict=True):
            hidden = torch.tanh(first.weight[:, :, 0] @ frames + first.bias[:, None])
            attention = torch.sigmoid(second.weight[:, :, 0] @ hidden + second.bias[:, None])
            parts.append(each.weight @ (attention * frames).mean(dim=1) + each.bias)
        return torch.cat(parts)
    pooled = []
    for number, channel in enumerate(frames):
        if name == "auto":
            weights = torch.exp(pooling.alpha[number] * channel)
            pooled.append((channel * weights).sum() / weights.sum())
        else:
            mean, largest = channel.sum() / len(channel), max(channel)
            pooled.append({"mean": mean, "max": largest, "mean+max": mean + largest}[name])
    return torch.stack(pooled)


@torch.no_grad()
@settings(deadline=None, max_examples=15)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_follows_its_formula_and_leaves_padding_out(name, lengths, seed):
    pooling = made(name)
    frames = torch.randn(len(lengths), CHANNELS, 9, generator=torch.Generator().manual_seed(seed)) - 1
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    rubbish = frames.masked_fill(~mask[:, None], torch.nan)
    found = pooling(rubbish, mask)
    expected = [by_formula(name, pooling, clip[:, :length]) for clip, length in zip(frames, lengths, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", POOLINGS)
def test_without_a_mask_every_frame_counts_and_their_order_does_not(name):
    pooling = made(name)
    frames = torch.randn(3, CHANNELS, 7)
    torch.testing.assert_close(pooling(frames), pooling(frames, torch.ones(3, 7, dtype=torch.bool)))
    torch.testing.assert_close(pooling(frames.flip(2)), pooling(frames))


@torch.no_grad()
def test_auto_pooling_lies_between_the_mean_and_the_maximum():
    frames = torch.randn(3, CHANNELS, 7)
    flat, sharp, between = AutoPool(0.0), AutoPool(1e4), AutoPool(1.0)
    for pooling in (flat, sharp, between):
        pooling.prepare(CHANNELS)
    torch.testing.assert_close(flat(frames), frames.mean(dim=2))
    torch.testing.assert_close(sharp(frames), frames.amax(dim=2))
    assert (between(frames) > frames.mean(dim=2)).all()
    assert (between(frames) < frames.amax(dim=2)).all()


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_stay_out_of_the_padding_and_are_finite(name):
    pooling = made(name)
    frames = torch.randn(2, CHANNELS, 6, requires_grad=True)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    pooling(frames, mask).square().sum().backward()
    assert frames.grad.isfinite().all()
    assert not frames.grad[1, :, 2:].any()
    assert frames.grad[1, :, :2].any()
    for parameter in pooling.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("name", POOLINGS)
def test_a_clip_of_padding_alone_is_refused(name):
    mask = torch.tensor([[True, True], [False, False], [False, False]])
    with pytest.raises(ValueError, match=r"at least one valid frame; clips \[1, 2\] have none"):
        made(name)(torch.randn(3, CHANNELS, 2), mask)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_serves_one_tower(name):
    with pytest.raises(ValueError, match=r"already serves a tower; give each tower its own"):
        made(name).prepare(3)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_is_made_again_from_its_config(name):
    pooling = made(name)
    again = instantiate(pooling.config)
    again.prepare(CHANNELS)
    again.load_state_dict(pooling.state_dict(), strict=True)
    frames = torch.randn(2, CHANNELS, 4)
    assert torch.equal(again(frames), pooling(frames))


def test_attention_needs_a_hidden_unit():
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        AttentionPool(hidden=0)


@torch.no_grad()
def test_segments_are_averaged_apart_and_the_order_is_heard():
    pool = SegmentPool(2)
    pool.prepare(3)
    frames = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 5:] = False  # five frames: the middle one counts in both halves
    halves = [
        (frames[0, :, :4].mean(dim=1), frames[0, :, 4:].mean(dim=1)),
        (frames[1, :, :3].mean(dim=1), frames[1, :, 2:5].mean(dim=1)),
    ]
    expected = torch.stack([pool.mix(torch.stack(each, dim=1).flatten()) for each in halves])
    torch.testing.assert_close(pool(frames, mask), expected)
    assert not torch.allclose(pool(frames.flip(2), None), pool(frames, None), atol=1e-3)
    one = torch.zeros(1, 8, dtype=torch.bool)
    one[0, 0] = True  # fewer frames than segments
    torch.testing.assert_close(pool(frames[:1], one), pool.mix(frames[0, :, :1].expand(3, 2).flatten())[None])
    with pytest.raises(ValueError, match="segments must be at least 1, got 0"):
        SegmentPool(0)


def test_pools_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match="orders must be from 1 to 3, got 4"):
        OrderStatisticsPool(4)
    with pytest.raises(ValueError, match="3 orders need as many channels at least, got 2"):
        OrderStatisticsPool().prepare(2)
    with pytest.raises(ValueError, match="a multiple of 2 learners, got 5"):
        AttentionEnsemblePool(2).prepare(5)


def test_products_of_statistics_are_a_gated_sum_of_kernels():
    pooling = made("statistics")
    clips = torch.randn(2, CHANNELS, 8)
    vectors = pooling(clips)
    moments = order_statistics(clips, torch.ones(2, 1, 8, dtype=torch.bool), 3)
    gates = pooling.gate(moments[0]).softmax(dim=1)
    kernels = [each(moment)[0] @ each(moment)[1] for each, moment in zip(pooling.maps, moments, strict=True)]
    expected = sum(kernel * (gates[0, k] * gates[1, k]).sqrt() for k, kernel in enumerate(kernels))
    torch.testing.assert_close(vectors[0] @ vectors[1], expected)
