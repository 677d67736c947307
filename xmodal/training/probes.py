"""Two questions to ask before a long run: can it learn one batch at all, and at which learning rate does it learn?

    python train.py overfit --config configs/base.yaml --data.manifest tracks.csv --steps 200
    python train.py lr-find --config configs/base.yaml --data.manifest tracks.csv --plot lr.png

Both take the words of ``fit``; the network, the loss, the data and the step are those of the run, and nothing is saved.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xmodal.data.datasets import PairBatch
from xmodal.data.module import AudioTextData
from xmodal.errors import DataError
from xmodal.training.command import Cli, build
from xmodal.training.health import StopOnNonFinite
from xmodal.training.module import AlignmentModule
from xmodal.training.retrieval import both_directions

logger = logging.getLogger(__name__)

_LEARNED = 0.99
_SMOOTHING = 0.8
_FEWEST_POINTS = 10


class OneBatchData(AudioTextData):
    """The data of a run of which only one training batch is ever given."""

    def train_dataloader(self) -> DataLoader[PairBatch]:  # type: ignore[override]  # it need not resume
        """The first batch, again in each epoch."""
        batch = next(iter(super().train_dataloader()))
        if len(batch.features) < 2:
            raise DataError("fewer than two tracks of the first batch could be decoded")
        return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Overfit:
    """What became of learning one batch by heart.

    Attributes:
        steps: Steps taken.
        tracks: Tracks in the batch.
        texts: Texts in the batch.
        first_loss: Training loss of the first step.
        last_loss: Training loss of the last step.
        text_to_audio: R@1 within the batch, in evaluation mode.
        audio_to_text: The other direction.
    """

    steps: int
    tracks: int
    texts: int
    first_loss: float
    last_loss: float
    text_to_audio: float
    audio_to_text: float

    @property
    def learned(self) -> bool:
        """Both directions find the right answer at least 99 times in 100."""
        return min(self.text_to_audio, self.audio_to_text) >= _LEARNED


class _Losses(pl.Callback):
    """Keeps the loss of every step, and the batch."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.values: list[float] = []
        self.batch: PairBatch | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.values.append(float(loss.detach()))
            _say_step(len(self.values), self.steps, self.values[-1])
        self.batch = batch


def overfit(words: Sequence[str], steps: int = 200) -> Overfit:
    """Train on one batch, again and again, and ask whether it was learned.

    Args:
        words: As after ``fit``.
        steps: Steps to take, at least 1.

    Raises:
        XmodalError: If the data cannot be used, or the loss is no number any more.
    """
    # Only one batch is needed, so no window of the others is decoded into a cache.
    cli = build([*words, "--data.cache", "none", "--data.workers", "0"], OneBatchData)
    losses = _Losses(steps)
    module: AlignmentModule = cli.model
    trainer = _trainer(cli, [losses, StopOnNonFinite()], max_epochs=steps, limit_val_batches=0)
    trainer.fit(module, datamodule=cli.datamodule)
    batch = losses.batch
    if batch is None or not losses.values:
        raise DataError("no step was taken; fewer than two tracks of the first batch could be decoded")
    module.eval()
    with torch.no_grad():
        audio = module.embed_windows(batch.to(module.device))
        score = (audio @ module.embed_texts(batch.texts).float().T).cpu()
    figures = both_directions(score, batch.relevance.cpu())
    return Overfit(
        steps=len(losses.values),
        tracks=len(batch.features),
        texts=len(batch.texts),
        first_loss=losses.values[0],
        last_loss=losses.values[-1],
        text_to_audio=figures["text_to_audio/R@1"],
        audio_to_text=figures["audio_to_text/R@1"],
    )


@dataclass(frozen=True)
class RateCurve:
    """The loss over a range of learning rates, one step each.

    Attributes:
        rates: Learning rates, rising.
        losses: Loss of the step at each.
        smooth: The same, smoothed.
        suggestion: The rate at which the smoothed loss falls fastest; None where it never falls.
        lowest: The rate of the lowest smoothed loss.
    """

    rates: list[float]
    losses: list[float]
    smooth: list[float]
    suggestion: float | None
    lowest: float


class _RateRange(pl.Callback):
    """Sets the rate of each step, and ends the run when the loss has left."""

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        self.lowest, self.highest, self.steps = lowest, highest, steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._shares: list[list[float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Groups keep the ratio of their rates: a pretrained text encoder stays slower than the rest.
        peaks = [[group.get("initial_lr", group["lr"]) for group in each.param_groups] for each in trainer.optimizers]
        highest = max(rate for group in peaks for rate in group)
        self._shares = [[rate / highest for rate in group] for group in peaks]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = self.lowest * (self.highest / self.lowest) ** (trainer.global_step / max(self.steps - 1, 1))
        for each, shares in zip(trainer.optimizers, self._shares, strict=True):
            for group, share in zip(each.param_groups, shares, strict=True):
                group["lr"] = rate * share
        self._rate = rate

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        value = float(loss.detach())
        left = bool(self.losses) and value > 4 * max(min(self.losses), 1e-8) and value > self.losses[0]
        if not math.isfinite(value) or (left and len(self.losses) >= _FEWEST_POINTS):
            trainer.should_stop = True
            return
        self.rates.append(self._rate)
        self.losses.append(value)
        _say_step(len(self.losses), self.steps, value)


def find_learning_rate(
    words: Sequence[str], *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100
) -> RateCurve:
    """Raise the learning rate step by step and watch the loss (the range test of Smith 2017, arXiv:1506.01186).

    Args:
        words: As after ``fit``.
        lowest: First rate, above 0.
        highest: Last rate; the test ends before it when the loss has risen to four times its lowest value.
        steps: Steps to take, at least 10.

    Raises:
        ValueError: If the range or the number of steps makes no test.
        XmodalError: If the data cannot be used.
    """
    if not 0 < lowest < highest < math.inf:
        raise ValueError(f"the rates must rise from above 0, got {lowest:g} to {highest:g}")
    if steps < _FEWEST_POINTS:
        raise ValueError(f"a range test needs at least {_FEWEST_POINTS} steps, got {steps}")
    cli = build(words, AudioTextData)
    test = _RateRange(lowest, highest, steps)
    trainer = _trainer(cli, [test], max_epochs=-1, max_steps=steps, limit_val_batches=0)
    trainer.fit(cli.model, datamodule=cli.datamodule)
    if len(test.losses) < _FEWEST_POINTS:
        raise DataError(
            f"the loss was no number after {len(test.losses)} steps; begin lower (--lowest, now {lowest:g}) or look at "
            "the data with train overfit"
        )
    return rate_curve(test.rates, test.losses)


def rate_curve(rates: Sequence[float], losses: Sequence[float]) -> RateCurve:
    """Smooth the losses and find where they fall fastest over log(rate).

    Smoothing is the mean of two exponential means, bias corrected, one from each end: one alone would lag behind and
    make the fall look later, and the rate larger, than it is.
    """
    both = zip(_smoothed(losses), _smoothed(losses[::-1])[::-1], strict=True)
    smooth = [(before + after) / 2 for before, after in both]
    logs = [math.log(rate) for rate in rates]
    slopes = [
        (smooth[place + 1] - smooth[place - 1]) / (logs[place + 1] - logs[place - 1])
        for place in range(1, len(smooth) - 1)
    ]
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    falling = [place for place, slope in enumerate(slopes, start=1) if slope < 0 and place <= lowest]
    steepest = min(falling, key=lambda place: slopes[place - 1], default=None)
    return RateCurve(list(rates), list(losses), smooth, None if steepest is None else rates[steepest], rates[lowest])


def _smoothed(losses: Sequence[float]) -> list[float]:
    smooth: list[float] = []
    mean = 0.0
    for count, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smooth.append(mean / (1 - _SMOOTHING**count))
    return smooth


def draw_rates(curve: RateCurve, path: str | Path) -> None:
    """The curve as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.semilogx(curve.rates, curve.losses, color="#c3c8d0", linewidth=1, label="each step")
    axes.semilogx(curve.rates, curve.smooth, color="#3366cc", linewidth=2, label="smoothed")
    if curve.suggestion is not None:
        axes.axvline(curve.suggestion, color="#e4572e", label=f"falls fastest at {curve.suggestion:.2g}")
    axes.axvline(curve.lowest, color="#8a8f98", linestyle=":", label=f"lowest at {curve.lowest:.2g}")
    axes.set(xlabel="learning rate", ylabel="training loss", title="learning-rate range test")
    axes.grid(color="#e7e9ec", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, facecolor="white")


def overfit_command(words: Sequence[str]) -> int:
    """``train overfit``: 0 if the batch was learned, 1 if not."""
    parser = argparse.ArgumentParser(prog="train overfit", description="Can the model learn one batch by heart?")
    parser.add_argument("--steps", type=int, default=200, help="steps to take (default 200)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options, rest = parser.parse_known_args(words)
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}")
    found = overfit(rest, options.steps)
    if options.json:
        _print(json.dumps({**asdict(found), "learned": found.learned}, indent=2))
    else:
        _print(
            f"{found.tracks} tracks and {found.texts} texts, {found.steps} steps: loss {found.first_loss:.4g} to "
            f"{found.last_loss:.4g}\ntext finds its audio: R@1 {found.text_to_audio:.3f}   "
            f"audio finds its text: R@1 {found.audio_to_text:.3f}"
        )
        _print(
            "learned: towers, loss and optimiser work; what is missing in a long run is data or time"
            if found.learned
            else "not learned: take more --steps, a higher --model.learning_rate (see train lr-find) or no dropout and "
            "augmentation; if it stays so, look at the captions (does each text say something of its own?) and the loss"
        )
    return 0 if found.learned else 1


def lr_find_command(words: Sequence[str]) -> int:
    """``train lr-find``: 0, or 1 if the loss never fell."""
    parser = argparse.ArgumentParser(prog="train lr-find", description="At which learning rate does the loss fall?")
    parser.add_argument("--lowest", type=float, default=1e-6, help="first rate (default 1e-6)")
    parser.add_argument("--highest", type=float, default=1.0, help="last rate (default 1)")
    parser.add_argument("--steps", type=int, default=100, help="steps between them (default 100)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the curve")
    parser.add_argument("--json", action="store_true", help="as JSON, with the curve")
    options, rest = parser.parse_known_args(words)
    curve = find_learning_rate(rest, lowest=options.lowest, highest=options.highest, steps=options.steps)
    if options.plot is not None:
        draw_rates(curve, options.plot)
    if options.json:
        _print(json.dumps(asdict(curve), indent=2))
    elif curve.suggestion is None:
        _print("the loss never fell: see train overfit, whether the model can learn at all")
    else:
        _print(
            f"the loss falls fastest at {curve.suggestion:.2g} and is lowest at {curve.lowest:.2g} "
            f"({len(curve.rates)} steps)\n--model.learning_rate {curve.suggestion:.1e}"
            + (f"\nthe curve is in {options.plot}" if options.plot is not None else "")
        )
    return 0 if curve.suggestion is not None else 1


def _trainer(cli: Cli, callbacks: list[pl.Callback], **limits: Any) -> pl.Trainer:
    """A trainer on the run's device and precision that writes nothing."""
    config = cli.config.trainer
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=1,
        precision=config.precision,
        gradient_clip_val=config.gradient_clip_val,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,  # it writes where the answer goes
        callbacks=callbacks,
        **limits,
    )


def _say_step(step: int, steps: int, loss: float) -> None:
    if step * 10 // steps != (step - 1) * 10 // steps:
        logger.info("step %d of %d, loss %.4g", step, steps, loss)


def _print(text: str) -> None:
    print(text)  # noqa: T201
