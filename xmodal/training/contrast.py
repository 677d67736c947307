"""From this process's vectors to the batch of all processes: who stands against whom, and who belongs together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float, Real
from torch import Tensor

from xmodal.data.datasets import BatchFacts, PairBatch
from xmodal.training.gather import gather_objects, gather_rows, process_count

Judge = Callable[[BatchFacts, BatchFacts], tuple[Tensor, Tensor, Tensor]]
"""What :meth:`xmodal.data.datasets.TrainingSet.judge` does."""


@dataclass(frozen=True)
class Contrast:
    """Audio, texts, and which of them belong together.

    Attributes:
        audio: Vectors of any norm.
        text: Vectors of any norm.
        relevance: As in every loss.
        valid: As in every loss; None for all.
    """

    audio: Float[Tensor, "audio dim"]
    text: Float[Tensor, "text dim"]
    relevance: Real[Tensor, "audio text"]
    valid: Bool[Tensor, "audio text"] | None = None


@dataclass(frozen=True)
class Contrasts:
    """The two judgements of a step, captions and one-tag prompts, each as rows and as columns.

    For a loss that sees everything both are the whole batch of all processes. In the local form the rows are this
    process's audio against all texts, and the columns all audio against this process's texts. ``facts`` are those of
    the batch of all processes.
    """

    captions: tuple[Contrast, Contrast]
    prompts: tuple[Contrast, Contrast]
    facts: BatchFacts


def contrasts_of(
    batch: PairBatch,
    audio: Float[Tensor, "tracks dim"],
    text: Float[Tensor, "texts dim"],
    prompts: Float[Tensor, "prompts dim"],
    judge: Judge | None,
    *,
    local: bool,
) -> Contrasts:
    """Lay the batches of all processes under one another and say which texts are right for which tracks.

    Args:
        batch: This process's batch.
        audio: Its tracks' vectors.
        text: Its texts' vectors.
        prompts: Its prompts' vectors.
        judge: Says which texts of one batch are right for the tracks of another; one process needs none.
        local: Give each process its own rows and columns alone.
    """
    if process_count() == 1:
        captions = Contrast(audio, text, batch.relevance)
        tags = Contrast(audio, prompts, batch.prompt_relevance, batch.prompt_valid)
        return Contrasts((captions, captions), (tags, tags), batch.facts)
    if judge is None:
        raise ValueError("training on several processes needs a data module whose training set can judge their batches")
    everything = BatchFacts.joined(gather_objects(batch.facts))
    all_audio, all_text, all_prompts = (gather_rows(each, parts=local) for each in (audio, text, prompts))

    def judged(rows: BatchFacts, columns: BatchFacts) -> tuple[Tensor, Tensor, Tensor]:
        right, prompt_right, prompt_valid = judge(rows, columns)
        return right.to(audio.device), prompt_right.to(audio.device), prompt_valid.to(audio.device)

    if not local:
        right, prompt_right, prompt_valid = judged(everything, everything)
        captions = Contrast(all_audio, all_text, right)
        tags = Contrast(all_audio, all_prompts, prompt_right, prompt_valid)
        return Contrasts((captions, captions), (tags, tags), everything)
    right, prompt_right, prompt_valid = judged(batch.facts, everything)
    rows = Contrast(audio, all_text, right), Contrast(audio, all_prompts, prompt_right, prompt_valid)
    right, prompt_right, prompt_valid = judged(everything, batch.facts)
    columns = Contrast(all_audio, text, right), Contrast(all_audio, prompts, prompt_right, prompt_valid)
    return Contrasts((rows[0], columns[0]), (rows[1], columns[1]), everything)
