"""The local form of a loss: each process judges its own anchors against everybody's others.

A matrix of all audio against all texts grows with (N·B)²; here a process holds its own rows and its own columns, N·B²
numbers. That is possible where the loss is a ratio of sums over anchors that do not look at one another, which a loss
says by defining ``row_terms`` and leaving :meth:`~xmodal.losses.base.PairwiseLoss.one_direction` as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.losses import BlackboxRankLoss, PairwiseLoss, StreamedLoss
from xmodal.losses.base import in_full_precision
from xmodal.losses.combined import decomposes, summed_terms
from xmodal.training.contrast import Contrast
from xmodal.training.gather import process_count, sum_over_processes


def has_local_form(loss: nn.Module) -> bool:
    """Whether :func:`local_loss` gives a loss's value and gradients.

    A loss of true ranks is left out: the gradient that it makes up is not proportional to what is asked of it, and
    shares of a loss are asked for more.
    """
    inner = loss.loss if isinstance(loss, StreamedLoss) else loss
    return decomposes(inner) and not isinstance(inner, BlackboxRankLoss)


def check_local(loss: nn.Module) -> None:
    """Refuse a loss that has no local form.

    Raises:
        ValueError: If its rows look at one another, or at the vectors.
    """
    if not has_local_form(loss):
        raise ValueError(
            f"{type(loss).__name__} looks at the whole batch at once, so it has no local form; leave local_loss off, "
            "or choose a loss that defines row_terms"
        )


def local_loss(
    loss: PairwiseLoss | StreamedLoss, rows: Contrast, columns: Contrast
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of all processes' pairs, each computing its share.

    Args:
        loss: One that :func:`check_local` lets through.
        rows: This process's audio against all texts, as ``gather_rows(..., parts=True)`` gave them.
        columns: All audio against this process's texts.

    Returns:
        What to differentiate (averaged over the processes it has the gradient of the whole loss), and the value of
        the whole loss.
    """
    inner, block = (loss.loss, loss.block) if isinstance(loss, StreamedLoss) else (loss, None)
    row_weight, column_weight = inner.direction_weights if inner.directional else (1.0, 0.0)
    share = rows.audio.new_zeros((), dtype=torch.float32)
    with torch.autocast(rows.audio.device.type, enabled=False):
        if row_weight:
            share = share + row_weight * _direction(inner, rows.audio, rows.text, rows.relevance, rows.valid, block)
        if column_weight:
            valid = None if columns.valid is None else columns.valid.T
            share = share + column_weight * _direction(
                inner, columns.text, columns.audio, columns.relevance.T, valid, block
            )
    share = share / (row_weight + column_weight)
    return share * process_count(), sum_over_processes(share)


def _direction(
    loss: PairwiseLoss, anchors: Tensor, others: Tensor, relevance: Tensor, valid: Tensor | None, block: int | None
) -> Tensor:
    anchors, others = (F.normalize(in_full_precision(each), dim=1) for each in (anchors, others))
    total, count = summed_terms(loss, anchors, others, (relevance, valid, None), block or max(len(anchors), 1))
    everywhere = sum_over_processes(count)
    share = torch.where(everywhere > 0, total / torch.where(everywhere > 0, everywhere, 1.0), 0.0).sum()
    # A zero that holds the graph of every vector and of the loss's own scalars, whatever the batch holds.
    return share + 0.0 * (anchors.sum() + others.sum() + sum(each.sum() for each in loss.parameters()))
