"""Metric heads: a map on the joint space that both sides pass, so that distances behind it are a learned distance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.configurable import Configurable

_NODES = 8  # of the Gauss-Legendre rule: exact for the length of lines, to about 1e-6 for gently bent curves
_STARTS = 9
_REACH = 1.5  # of the starts, around the foot on the straight part, in units of the unit vectors' length
_ROUNDS = 6


class MetricHead(nn.Module, Configurable, ABC):
    """From vectors of the joint space to as many coordinates of another; :meth:`prepare` makes the weights."""

    dim: int | None = None

    def prepare(self, dim: int) -> None:
        """Make the weights for vectors of ``dim`` dimensions.

        Raises:
            ValueError: If the head already serves another model.
        """
        if self.dim is not None:
            raise ValueError(f"this {type(self).__name__} already serves a model; give each model its own")
        self.dim = dim

    @abstractmethod
    def forward(self, vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """Map vectors of any norm."""


class CurvilinearHead(MetricHead):
    """Coordinates along learned curves in the place of coordinates along straight axes.

    Curve i is the polynomial ``c_i(t) = b_i1 t + ... + b_ik t**k``. A vector's coordinate on it is that of the nearest
    point, ``t = argmin |c_i(t) - x|``, measured in length of curve from 0 and multiplied by the length from 0 to 1.
    The squared distance of two vectors behind the head is then the sum over the curves of ``length_i(0, 1)**2 *
    length_i(t, t')**2``. With ``order`` 1 curves are lines and the head is the linear map ``B x``, whose distance is
    Mahalanobis's. Curves of a higher order start as lines that are hardly bent.

    The nearest point is sought by Newton's method from several starts, without gradient; one more step, with gradient,
    has the derivative that the implicit function theorem gives. Vectors are made unit vectors first.

    Args:
        order: Degree of the curves; there are as many curves as the space has dimensions.

    References:
        Chen et al., "Curvilinear distance metric learning", NeurIPS 2019.
    """

    coefficients: nn.Parameter
    nodes: Tensor
    node_weights: Tensor

    def __init__(self, order: int = 3) -> None:
        super().__init__()
        if order < 1:
            raise ValueError(f"order must be at least 1, got {order}")
        self.order = order

    def prepare(self, dim: int) -> None:
        """Orthonormal lines, hardly bent."""
        super().prepare(dim)
        weights = torch.randn(self.order, dim, dim) * (0.02 / math.sqrt(dim))
        nn.init.orthogonal_(weights[0])
        self.coefficients = nn.Parameter(weights)
        nodes, node_weights = _gauss_legendre(_NODES)
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("node_weights", node_weights, persistent=False)

    def forward(self, vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """Lengths along the curves."""
        with torch.autocast(vectors.device.type, enabled=False):
            x = nn.functional.normalize(vectors.float() if vectors.dtype != torch.float64 else vectors, dim=1)
            b = self.coefficients.to(x.dtype)
            if self.order == 1:
                return x @ b[0].T
            products = torch.einsum("nd,kmd->nmk", x, b)  # b_k . x
            gram = torch.einsum("jmd,kmd->mjk", b, b)  # b_j . b_k
            with torch.no_grad():
                place = self._nearest(products, gram)
            slope, bend = _derivatives(place, products, gram)
            place = place - slope / torch.where(bend > 1e-6, bend, 1e6)
            return self._length(place, gram) * self._length(torch.ones_like(place[:1]), gram)

    def _nearest(self, products: Tensor, gram: Tensor) -> Tensor:
        foot = products[:, :, 0] / gram[:, 0, 0].clamp(min=1e-9)
        starts = torch.linspace(-_REACH, _REACH, _STARTS, device=foot.device, dtype=foot.dtype)
        best, least = foot, _squared(foot, products, gram)
        for start in [foot, *(each.expand_as(foot) for each in starts)]:
            place = start
            for _ in range(_ROUNDS):
                slope, bend = _derivatives(place, products, gram)
                # Where the distance bends the wrong way a Newton step would climb: go down the slope instead.
                step = torch.where(
                    bend > 1e-6, slope / bend.clamp(min=1e-6), 0.25 * slope.sign() * slope.abs().clamp(max=1)
                )
                place = place - step.clamp(-1.0, 1.0)
            away = _squared(place, products, gram)
            best, least = torch.where(away < least, place, best), torch.minimum(away, least)
        return best

    def _length(self, place: Tensor, gram: Tensor) -> Tensor:
        """Signed length of each curve from 0 to its place."""
        orders = torch.arange(self.order, device=place.device)
        at = place[:, :, None, None] * self.nodes[:, None]  # [items, curves, nodes, 1]
        powers = at**orders * (orders + 1.0)
        speed = torch.einsum("nmqj,mjk,nmqk->nmq", powers, gram, powers).clamp(min=1e-12).sqrt()
        return place * (speed * self.node_weights).sum(dim=2)


def _squared(place: Tensor, products: Tensor, gram: Tensor) -> Tensor:
    """``|c(t) - x|**2 - |x|**2``."""
    powers = place[:, :, None] ** torch.arange(1, products.shape[2] + 1, device=place.device)
    return torch.einsum("nmj,mjk,nmk->nm", powers, gram, powers) - 2 * (powers * products).sum(dim=2)


def _derivatives(place: Tensor, products: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of half of that."""
    k = torch.arange(1, products.shape[2] + 1, device=place.device)
    t = place[:, :, None]
    value, first = t**k, k * t ** (k - 1)
    second = k * (k - 1) * t ** (k - 2).clamp(min=0)
    curve, tangent, bow = (torch.einsum("nmj,mjk->nmk", each, gram) for each in (value, first, second))
    slope = (curve * first).sum(dim=2) - (first * products).sum(dim=2)
    bend = (tangent * first).sum(dim=2) + (bow * value).sum(dim=2) - (second * products).sum(dim=2)
    return slope, bend


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2).float(), torch.from_numpy(weights / 2).float()
