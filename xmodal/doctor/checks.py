"""The checks of a space: vectors and relevance in, findings out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xmodal.doctor import geometry
from xmodal.doctor.findings import Finding, judge, not_judged
from xmodal.doctor.geometry import to_be_told_apart
from xmodal.losses.base import apply_loss
from xmodal.metrics import rank_vectors

SIDES = ("audio", "text")
_NAMED = 5
_MOST_ITEMS = 10_000
_SHUFFLES = 16
_LOSS_ITEMS = 256
_LIST_LENGTH = 10
_FEW = 4
_SURE = 999.0  # where every query has the same rank there is no error to divide by

Groups = Int[Tensor, " items"]


@dataclass(frozen=True)
class Space:
    """What the doctor looks at: vectors of both sides and which pairs are right.

    Attributes:
        audio: Unit vectors, one a track.
        text: Unit vectors, one a text; texts with the same words stand once.
        relevance: Text j is right for track i.
        audio_names: Names of the tracks, for examples.
        text_names: The texts.
    """

    audio: Float[Tensor, "audio dim"]
    text: Float[Tensor, "text dim"]
    relevance: Bool[Tensor, "audio text"]
    audio_names: Sequence[str]
    text_names: Sequence[str]

    def __post_init__(self) -> None:
        shape = (len(self.audio), len(self.text))
        if self.audio.ndim != 2 or self.text.ndim != 2 or self.audio.shape[1] != self.text.shape[1]:
            raise ValueError(
                "audio and text must be matrices [items, dim] of one dim, "
                f"got {tuple(self.audio.shape)} and {tuple(self.text.shape)}"
            )
        if self.relevance.shape != shape or (len(self.audio_names), len(self.text_names)) != shape:
            raise ValueError(f"relevance and names must be of {shape[0]} tracks and {shape[1]} texts")

    def finite(self) -> Space:
        """Without the items that have a NaN or an infinity."""
        kept_audio, kept_text = self.audio.isfinite().all(dim=1), self.text.isfinite().all(dim=1)
        return self._chosen(kept_audio.nonzero().flatten(), kept_text.nonzero().flatten())

    def sample(self, most: int = _MOST_ITEMS) -> Space:
        """At most so many items a side, drawn with a fixed seed; what is asked pair by pair needs no more."""
        draw = torch.Generator().manual_seed(0)
        rows, columns = (
            torch.arange(count) if count <= most else torch.randperm(count, generator=draw)[:most].sort().values
            for count in self.relevance.shape
        )
        return self._chosen(rows, columns)

    def _chosen(self, rows: Tensor, columns: Tensor) -> Space:
        return Space(
            self.audio[rows],
            self.text[columns],
            self.relevance[rows][:, columns],
            [self.audio_names[row] for row in rows.tolist()],
            [self.text_names[column] for column in columns.tolist()],
        )

    def side(self, name: str) -> Float[Tensor, "items dim"]:
        """Vectors of "audio" or "text"."""
        return self.audio if name == "audio" else self.text

    def names(self, side: str) -> Sequence[str]:
        """Names of "audio" or "text"."""
        return self.audio_names if side == "audio" else self.text_names


def examine_space(space: Space, loss: nn.Module | None = None) -> list[Finding]:
    """Every check that vectors and relevance allow, in a fixed order.

    Args:
        space: What to look at; items that are not finite are reported and left out of the other checks. More than
            10,000 items a side are sampled.
        loss: The objective that the space was trained by; None leaves "loss at chance" out.
    """
    found = [_finite(space, side) for side in SIDES]
    space = space.finite().sample()
    if min(space.relevance.shape) < 2:
        return [*found, not_judged("collapse", "both", "fewer than two tracks or texts are finite: nothing to compare")]
    groups = {"audio": to_be_told_apart(space.relevance), "text": to_be_told_apart(space.relevance.T)}
    for name, check in _OF_ONE_SIDE.items():
        for side, group in groups.items():
            if int(group.max()) == 0:
                found.append(not_judged(name, side, "all items have the same right answers"))
            else:
                found.append(check(space, side, group))
    found += [_gap(space), _alignment(space)]
    found += [_hubness(space, direction) for direction in ("text to audio", "audio to text")]
    found += [_at_chance(space, direction) for direction in ("text to audio", "audio to text")]
    if loss is not None:
        found.append(_loss_at_chance(space, loss))
    return found


def _finite(space: Space, side: str) -> Finding:
    broken = (~space.side(side).isfinite().all(dim=1)).nonzero().flatten().tolist()
    names = [space.names(side)[item] for item in broken[:_NAMED]]
    detail = f"{len(broken)} of {len(space.side(side))} vectors have a NaN or an infinity"
    return judge("finite", side, float(len(broken)), detail, names)


def _collapse(space: Space, side: str, groups: Groups) -> Finding:
    cosine = geometry.mean_cosine(space.side(side), groups)
    angle = math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
    detail = f"two items that differ in their right answers have a cosine of {cosine:.3f} on average ({angle:.0f}°)"
    return judge("collapse", side, cosine, detail)


def _anisotropy(space: Space, side: str, groups: Groups) -> Finding:
    vectors = space.side(side).double()
    kinds = int(groups.max()) + 1
    if kinds < _FEW:
        return not_judged("anisotropy", side, f"{kinds} kinds of item need no more than {kinds - 1} directions")
    top = torch.linalg.svdvals(vectors).square()
    share, even = float(top[0] / top.sum()), 1 / min(vectors.shape[1], kinds)
    detail = f"one direction holds {share:.1%} of the squared lengths; evenly it would be {even:.1%}"
    return judge("anisotropy", side, share, detail)


def _effective_rank(space: Space, side: str, groups: Groups) -> Finding:
    vectors = space.side(side)
    needed = min(vectors.shape[1], int(groups.max()))
    if needed < _FEW:
        return not_judged("effective rank", side, f"{needed} directions are enough to tell these items apart")
    rank = geometry.effective_rank(geometry.singular_values(vectors))
    detail = f"{rank:.1f} directions are in use; {needed} could tell these items apart"
    return judge("effective rank", side, min(rank / needed, 1.0), detail)


def _dead(space: Space, side: str, groups: Groups) -> Finding:
    vectors = space.side(side)
    dead = geometry.dead_dimensions(vectors)
    names = [str(dimension) for dimension in dead[:_NAMED].tolist()]
    detail = f"{len(dead)} of {vectors.shape[1]} dimensions hardly move"
    return judge("dead dimensions", side, len(dead) / vectors.shape[1], detail, names)


def _uniformity(space: Space, side: str, groups: Groups) -> Finding:
    value = geometry.uniformity(space.side(side), groups)
    best = -4 + 8 / space.side(side).shape[1]
    return judge("uniformity", side, value, f"{value:.2f}; collapsed is 0, evenly spread about {best:.2f}")


def _duplicates(space: Space, side: str, groups: Groups) -> Finding:
    pairs = geometry.twins(space.side(side), groups)
    names = space.names(side)
    examples = [f"{names[one]} = {names[other]}" for one, other in pairs[:_NAMED]]
    detail = f"{len(pairs)} of {len(names)} items have the vector of one with other right answers"
    return judge("duplicates", side, len(pairs) / len(names), detail, examples)


_OF_ONE_SIDE = {
    "collapse": _collapse,
    "anisotropy": _anisotropy,
    "effective rank": _effective_rank,
    "dead dimensions": _dead,
    "uniformity": _uniformity,
    "duplicates": _duplicates,
}


def _gap(space: Space) -> Finding:
    gap = geometry.modality_gap(space.audio, space.text)
    return judge("modality gap", "audio and text", gap, f"the two means are {gap:.3f} apart (0 to 2)")


def _alignment(space: Space) -> Finding:
    if not space.relevance.any() or space.relevance.all():
        return not_judged("alignment", "audio and text", "there are no right pairs, or no wrong ones")
    right, right_spread, wrong, wrong_spread = geometry.pair_cosines(space.audio, space.text, space.relevance)
    spread = math.sqrt((right_spread**2 + wrong_spread**2) / 2)
    apart = 0.0 if right == wrong else (right - wrong) / max(spread, 1e-6)
    detail = (
        f"right pairs have a cosine of {right:.3f}, wrong ones {wrong:.3f}: d' = {apart:.2f}; "
        f"squared distance of right pairs {2 - 2 * right:.2f}"
    )
    return judge("alignment", "audio and text", apart, detail)


def _hubness(space: Space, direction: str) -> Finding:
    queries, candidates = (space.text, space.audio) if direction == "text to audio" else (space.audio, space.text)
    names = space.audio_names if direction == "text to audio" else space.text_names
    # A list long enough that each candidate is in one on average; else every count is 0 or 1 and has no shape.
    k = max(_LIST_LENGTH, math.ceil(len(candidates) / len(queries)))
    if k > len(candidates) / 2:
        return not_judged(
            "hubness", direction, f"lists of {k} among {len(candidates)} candidates hold nearly all of them"
        )
    counts = geometry.k_occurrence(queries, candidates, k)
    expected = geometry.chance_skewness(len(queries), len(candidates), k)
    found = geometry.skewness(counts)
    order = counts.argsort(descending=True)[:_NAMED].tolist()
    never = float((counts == 0).double().mean())
    detail = (
        f"skewness {found:.2f} of how often an item is in a top {k} (a draw without aim: {expected:.2f}); "
        f"the largest hub is in {int(counts.max())} of {len(queries)} lists, {never:.0%} are in none"
    )
    hubs = [f"{names[item]} ({int(counts[item])})" for item in order if counts[item] > 2 * counts.double().mean()]
    return judge("hubness", direction, found - expected, detail, hubs)


def _at_chance(space: Space, direction: str) -> Finding:
    sides = (space.audio, space.text, space.relevance)
    if direction == "text to audio":
        sides = (space.text, space.audio, space.relevance.T)
    judged = sides[2].any(dim=1)
    if int(judged.sum()) < 2:
        return not_judged("retrieval at chance", direction, "fewer than two queries have a right answer")
    ranking = rank_vectors(*sides, without_right="leave_out")
    values, expected = ranking.reciprocal_rank(), ranking.chance((1,))["MRR"]
    error = max(float(values.std()) / math.sqrt(len(values)), 1e-9)
    mean = float(values.mean())
    sure = min((mean - expected) / error, _SURE)
    detail = f"MRR {mean:.3f}, by chance {expected:.3f}: {sure:.1f} standard errors above it"
    return judge("retrieval at chance", direction, sure, detail)


@torch.no_grad()
def _loss_at_chance(space: Space, loss: nn.Module) -> Finding:
    name = type(loss).__name__
    space = space.sample(_LOSS_ITEMS)
    draw = torch.Generator().manual_seed(0)
    was_training = loss.training
    loss.eval()
    try:
        device = next((parameter.device for parameter in loss.parameters()), torch.device("cpu"))
        audio, text, relevance = (each.to(device) for each in (space.audio, space.text, space.relevance))
        value = float(apply_loss(loss, audio, text, relevance))
        dealt = [torch.randperm(len(text), generator=draw).to(device) for _ in range(_SHUFFLES)]
        chance = torch.stack([apply_loss(loss, audio, text[order], relevance).double().cpu() for order in dealt])
    except ValueError as error:  # an objective that needs more than vectors: keys, a vocabulary, features
        return not_judged("loss at chance", name, str(error))
    finally:
        loss.train(was_training)
    if not (math.isfinite(value) and bool(chance.isfinite().all())):
        return not_judged("loss at chance", name, f"the loss is {value:.4g} and {float(chance.mean()):.4g} by chance")
    spread = max(float(chance.std()), 1e-9)
    below = max(min((float(chance.mean()) - value) / spread, _SURE), -_SURE)
    detail = f"{value:.4g}; with the texts dealt out at random {float(chance.mean()):.4g} ± {spread:.2g}"
    return judge("loss at chance", name, below, detail)
