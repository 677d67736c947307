"""Learned distances behind the projections, and heads at several depths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from xmodal.configurable import instantiate
from xmodal.errors import ModelError
from xmodal.model import PartedProjection, Projection, TwoTower
from xmodal.towers import Cnn10, CurvilinearHead, DepthEnsemble, HashedBagOfWordsTower, MobileCnn

FRONT = {"sample_rate": 8000, "n_fft": 256, "hop": 80, "bands": 32}


def head(order, dim=4, bend=10.0):
    torch.manual_seed(0)
    made = CurvilinearHead(order)
    made.prepare(dim)
    with torch.no_grad():
        made.coefficients[1:] *= bend
    return made.double()


def points(items, dim=4):
    generator = torch.Generator().manual_seed(1)
    return F.normalize(torch.randn((items, dim), generator=generator, dtype=torch.float64), dim=1)


def test_straight_curves_are_mahalanobis_s_distance():
    lines, x = head(1), points(6)
    with torch.no_grad():
        lines.coefficients += 0.3 * torch.randn(1, 4, 4)
    matrix = lines.coefficients[0].T @ lines.coefficients[0]
    z, gaps = lines(x), x[:, None] - x[None]
    assert_close((z[:, None] - z[None]).square().sum(dim=2), torch.einsum("ijd,de,ije->ij", gaps, matrix, gaps))
    nearly = head(3, bend=0.0)
    assert_close(nearly(x), x @ nearly.coefficients[0].T, rtol=1e-6, atol=1e-6)


def test_coordinates_are_lengths_to_the_nearest_point_of_a_curve_as_a_fine_grid_finds_it():
    curved, x = head(3, bend=15.0), points(3)
    b = curved.coefficients.detach().numpy()
    grid = np.linspace(-3, 3, 200_001)

    def length(m, end):
        t = np.linspace(0, end, 4001)
        return np.trapezoid(np.linalg.norm(sum((k + 1) * t[:, None] ** k * b[k, m] for k in range(3)), axis=1), t)

    for vector, found in zip(x.numpy(), curved(x).detach().numpy(), strict=True):
        for m in range(4):
            curve = sum(grid[:, None] ** (k + 1) * b[k, m] for k in range(3))
            place = grid[((curve - vector) ** 2).sum(axis=1).argmin()]
            assert found[m] == pytest.approx(length(m, place) * length(m, 1.0), abs=2e-4)


def test_the_gradient_of_a_nearest_point_is_that_of_finite_differences():
    curved = head(3)
    x = points(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: curved(v), (x,), atol=1e-5)

    def of_weights(weights):
        return torch.func.functional_call(curved, {"coefficients": weights}, (x.detach(),))

    assert torch.autograd.gradcheck(of_weights, (curved.coefficients.detach().clone().requires_grad_(),), atol=1e-5)


def test_a_head_serves_one_model_and_keeps_float32_under_autocast():
    made = head(2).float()
    with pytest.raises(ValueError, match="already serves a model"):
        made.prepare(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(points(2).bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        CurvilinearHead(0)


def model(**settings):
    torch.manual_seed(0)
    audio = MobileCnn(**FRONT, width=0.125, feature_dim=12)
    return TwoTower(audio, HashedBagOfWordsTower(50, 8, 12), dim=6, window_seconds=1.0, **settings).eval()


def test_a_model_with_a_learned_distance_is_saved_loaded_and_has_a_space_of_its_own(tmp_path):
    made = model(metric=CurvilinearHead(2))
    plain = model()
    assert made.space_id() != plain.space_id()
    assert "metric" not in plain.identity()
    made.save(tmp_path / "model")
    again = TwoTower.load(tmp_path / "model")
    wave = torch.randn(2, 8000)
    for method, given in (("embed_audio", wave), ("embed_text", ["low", "high"])):
        assert torch.equal(getattr(again, method)(given), getattr(made, method)(given))
        assert_close(getattr(made, method)(given).norm(dim=1), torch.ones(2))
    projected = made.text_projection(made.text.encode(made.text.tokenize(["low"])))
    assert_close(made.embed_text(["low"]), F.normalize(made.metric(projected), dim=1))


def test_a_part_of_the_output_sees_its_part_of_the_features_alone():
    parted = PartedProjection(6, 4, 2)
    x = torch.randn(3, 6, requires_grad=True)
    parted(x)[:, :2].sum().backward()
    assert x.grad[:, :3].any()
    assert not x.grad[:, 3:].any()
    again = instantiate(parted.config)
    again.load_state_dict(parted.state_dict())
    assert torch.equal(again(x), parted(x))
    one = PartedProjection(6, 4, 1, 8)
    whole = Projection(6, 4, 8)
    whole.load_state_dict({name.removeprefix("parts.0."): each for name, each in one.state_dict().items()})
    assert_close(one(x), whole(x))
    with pytest.raises(ValueError, match="dim must be a multiple of audio_parts=2, got 5"):
        PartedProjection(6, 5, 2)
    with pytest.raises(ValueError, match="the tower's features must be a multiple of audio_parts=4, got 6"):
        PartedProjection(6, 4, 4)


def test_heads_at_depths_average_their_maps_and_the_last_is_the_tower_s_own():
    torch.manual_seed(0)
    tower = MobileCnn(**FRONT, width=0.125, feature_dim=12)
    ensemble = DepthEnsemble(tower, (1, 3), width=5).eval()
    features = tower.features(torch.randn(2, 8000))
    found = ensemble.encode(features)
    assert found.shape == (2, 15)
    maps = features[:, None]
    for number, block in enumerate(tower.blocks, start=1):
        maps = block(maps)
        if number in (1, 3):
            expected = ensemble.heads[number // 2](maps.mean(dim=(2, 3)))
            assert_close(found[:, 5 * (number // 2) : 5 * (number // 2) + 5], expected, rtol=1e-4, atol=1e-5)
    assert_close(found[:, 10:], ensemble.last(tower.encode(features)))


@pytest.mark.parametrize("depths", [(), (0, 1), (2, 2), (3, 1), (1, 5)])
def test_depths_that_the_tower_has_not_are_refused(depths):
    with pytest.raises(ValueError, match="depths must rise, from 1 to at most the tower's 4 blocks"):
        DepthEnsemble(MobileCnn(**FRONT, width=0.125), depths)


def test_a_tower_that_does_not_show_its_maps_is_refused():
    with pytest.raises(ModelError, match="Cnn10 does not show its inner maps; use MobileCnn or ShortChunkResNet"):
        DepthEnsemble(Cnn10(**FRONT, f_max=4000.0))
