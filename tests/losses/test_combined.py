"""Sums of objectives, the memory, and streaming."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_cases import CASES

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import (
    BatchItems,
    CombinedObjective,
    CrossModalMemory,
    PairwiseLoss,
    StreamedLoss,
    Vocabulary,
    apply_loss,
    needs_of,
)


def vectors(seed, items, dim=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((items, dim), generator=generator, dtype=torch.float64)


AUDIO, TEXT = vectors(0, 5), vectors(1, 6)
RELEVANCE = (torch.rand((5, 6), generator=torch.Generator().manual_seed(2)) < 0.4).double()
AUDIO_KEYS, TEXT_KEYS = torch.arange(5), torch.arange(6)


def test_the_sum_is_the_weighted_sum_of_its_parts():
    parts = [losses.InfoNCELoss(), losses.TripletLoss(mining="all")]
    objective = CombinedObjective(parts, [1.0, 0.25])
    expected = apply_loss(parts[0], AUDIO, TEXT, RELEVANCE) + 0.25 * apply_loss(parts[1], AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(objective(AUDIO, TEXT, RELEVANCE), expected)
    assert len(objective.parts(AUDIO, TEXT, RELEVANCE)) == 2


def test_a_sum_without_weights_adds_its_losses():
    objective = CombinedObjective([losses.ContrastiveLoss(), losses.ContrastiveLoss()])
    torch.testing.assert_close(
        objective(AUDIO, TEXT, RELEVANCE), 2 * apply_loss(losses.ContrastiveLoss(), AUDIO, TEXT, RELEVANCE)
    )


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0]])
def test_weights_must_be_one_a_loss(weights):
    with pytest.raises(ValueError, match="weights must be one number a loss"):
        CombinedObjective([losses.InfoNCELoss(), losses.SigLIPLoss()], weights)


def test_an_objective_is_made_from_its_config_with_all_that_is_inside():
    objective = CombinedObjective(
        [losses.InfoNCELoss(0.1), losses.MarginLoss()],
        [1.0, 0.5],
        miner=losses.HardNegativeMiner(2),
        memory=CrossModalMemory(4, 8),
    )
    again = instantiate(objective.config)
    assert again.config == objective.config
    again.load_state_dict(objective.state_dict())
    keys = {"items": BatchItems(AUDIO_KEYS, TEXT_KEYS)}
    assert again(AUDIO, TEXT, RELEVANCE, **keys) == objective(AUDIO, TEXT, RELEVANCE, **keys)


def test_a_miner_chooses_for_each_direction_by_itself():
    objective = CombinedObjective([losses.TripletLoss(0.5, mining="all")], miner=losses.HardNegativeMiner(1))
    hard = losses.TripletLoss(0.5, mining="hard")
    torch.testing.assert_close(objective(AUDIO, TEXT, RELEVANCE), apply_loss(hard, AUDIO, TEXT, RELEVANCE))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_memory_of_length_0_changes_nothing(case):
    loss = case.make().double()
    objective = CombinedObjective([loss], memory=CrossModalMemory(4, 0)).double()
    for _ in range(2):
        value = objective(AUDIO, TEXT, RELEVANCE, items=BatchItems(AUDIO_KEYS, TEXT_KEYS))
        torch.testing.assert_close(value, apply_loss(loss, AUDIO, TEXT, RELEVANCE))


def remembering(loss, size=16, **settings):
    """An objective whose memory has seen another batch with keys 10, 11, ..."""
    objective = CombinedObjective([loss], memory=CrossModalMemory(4, size, **settings)).double()
    objective(
        vectors(5, 3), vectors(6, 2), torch.ones(3, 2), items=BatchItems(torch.arange(10, 13), torch.arange(10, 12))
    )
    return objective


def rule(audio_keys, text_keys):
    return ((audio_keys[:, None] + text_keys[None, :]) % 3 == 0).double()


def test_remembered_items_are_further_candidates_of_each_direction():
    objective = remembering(losses.InfoNCELoss(0.2))
    value = objective(AUDIO, TEXT, RELEVANCE, items=BatchItems(AUDIO_KEYS, TEXT_KEYS, rule))
    loss = losses.InfoNCELoss(0.2).double()
    audio, text, old_audio, old_text = (
        F.normalize(each, dim=1) for each in (AUDIO, TEXT, vectors(5, 3), vectors(6, 2))
    )
    loss.direction_weights = (1.0, 0.0)
    rows = loss(
        audio @ torch.cat([text, old_text]).T,
        torch.cat([RELEVANCE, rule(AUDIO_KEYS, torch.arange(10, 12))], dim=1),
    )
    loss.direction_weights = (0.0, 1.0)
    columns = loss(
        torch.cat([audio, old_audio]) @ text.T,
        torch.cat([RELEVANCE, rule(torch.arange(10, 13), TEXT_KEYS)]),
    )
    torch.testing.assert_close(value, (rows + columns) / 2, rtol=1e-6, atol=1e-6)


def test_an_item_of_the_batch_is_not_its_own_negative_from_the_memory():
    objective = remembering(losses.InfoNCELoss(0.2))
    expected = apply_loss(losses.InfoNCELoss(0.2).double(), vectors(5, 3), vectors(6, 2), torch.ones(3, 2))
    keys = {"items": BatchItems(torch.arange(10, 13), torch.arange(10, 12))}
    torch.testing.assert_close(objective(vectors(5, 3), vectors(6, 2), torch.ones(3, 2), **keys), expected)


def test_a_momentum_encoder_gives_all_candidates_and_only_anchors_get_a_gradient():
    objective = CombinedObjective([losses.InfoNCELoss(0.2)], memory=CrossModalMemory(4, 16)).double()
    slow_audio, slow_text = vectors(20, 5), vectors(21, 6)
    audio, text = AUDIO.clone().requires_grad_(), TEXT.clone().requires_grad_()
    items = BatchItems(AUDIO_KEYS, TEXT_KEYS, key_audio=slow_audio, key_text=3.0 * slow_text)
    value = objective(audio, text, RELEVANCE, items=items)
    rows, columns = (losses.InfoNCELoss(0.2, direction_weights=each).double() for each in ((1.0, 0.0), (0.0, 1.0)))
    expected = (apply_loss(rows, audio, slow_text, RELEVANCE) + apply_loss(columns, slow_audio, text, RELEVANCE)) / 2
    torch.testing.assert_close(value, expected)
    inputs = (audio, text)
    torch.testing.assert_close(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs))
    torch.testing.assert_close(objective.memory.audio[:5], F.normalize(slow_audio, dim=1))
    torch.testing.assert_close(objective.memory.text[:6], F.normalize(slow_text, dim=1))


def test_a_remembered_pair_that_nobody_may_judge_is_no_negative():
    def unknown(audio_keys, text_keys):
        return torch.full((len(audio_keys), len(text_keys)), torch.nan)

    objective = remembering(losses.InfoNCELoss(0.2))
    value = objective(AUDIO, TEXT, RELEVANCE, items=BatchItems(AUDIO_KEYS, TEXT_KEYS, unknown))
    torch.testing.assert_close(value, apply_loss(losses.InfoNCELoss(0.2).double(), AUDIO, TEXT, RELEVANCE))


def test_items_of_all_processes_are_laid_under_one_another():
    given = BatchItems(AUDIO_KEYS, None, rule, vocabulary=Vocabulary(TEXT, RELEVANCE, RELEVANCE > 0))
    both = given.gathered(lambda each: torch.cat([each, each]))
    assert both.audio_keys.tolist() == AUDIO_KEYS.tolist() * 2
    assert both.relevance_of is rule
    assert both.vocabulary.text is TEXT
    assert both.vocabulary.relevance.shape == both.vocabulary.valid.shape == (10, 6)
    assert both.gathered(lambda each: each[:1]).audio_keys.shape == (1,)
    assert BatchItems(vocabulary=Vocabulary(TEXT, RELEVANCE)).gathered(lambda each: each).vocabulary.valid is None


def test_an_objective_says_what_it_and_its_parts_need():
    assert needs_of(losses.InfoNCELoss()) == frozenset()
    anchors = losses.LearnedAnchors(losses.NCALoss(), 4)
    assert needs_of(CombinedObjective([losses.InfoNCELoss(), anchors])) == {"vocabulary"}
    assert needs_of(CombinedObjective([anchors], memory=CrossModalMemory(4))) == {"vocabulary", "keys"}


def test_remembered_vectors_get_no_gradient_and_the_batch_does():
    objective = remembering(losses.InfoNCELoss())
    audio = AUDIO.clone().requires_grad_()
    objective(audio, TEXT, RELEVANCE, items=BatchItems(AUDIO_KEYS, TEXT_KEYS)).backward()
    assert audio.grad.abs().sum() > 0
    assert not objective.memory.audio.requires_grad


def test_a_full_queue_forgets_the_oldest():
    memory = CrossModalMemory(2, 3)
    for key in range(5):
        memory.remember(torch.full((1, 2), float(key)), torch.zeros(1, 2), torch.tensor([key]), torch.tensor([key]))
    assert sorted(memory.audio_keys.tolist()) == [2, 3, 4]
    assert sorted(memory.audio[:, 0].tolist()) == [2.0, 3.0, 4.0]
    memory.remember(torch.arange(10.0).reshape(5, 2), torch.zeros(5, 2), torch.arange(5), torch.arange(5))
    assert sorted(memory.audio_keys.tolist()) == [2, 3, 4]


def test_a_memory_waits_for_its_warm_up_and_is_still_in_evaluation():
    objective = remembering(losses.InfoNCELoss(0.2), warmup_steps=2)
    keys = {"items": BatchItems(AUDIO_KEYS, TEXT_KEYS)}
    alone = apply_loss(losses.InfoNCELoss(0.2).double(), AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(objective(AUDIO, TEXT, RELEVANCE, **keys), alone)  # the second step is still warm-up
    assert (objective(vectors(7, 5), TEXT, RELEVANCE, items=BatchItems(AUDIO_KEYS + 50, TEXT_KEYS)) != alone).all()
    seen = objective.memory.seen.clone()
    objective.eval()(AUDIO, TEXT, RELEVANCE, **keys)
    assert torch.equal(objective.memory.seen, seen)


def test_queues_travel_in_the_checkpoint():
    objective = remembering(losses.InfoNCELoss(0.2))
    again = CombinedObjective([losses.InfoNCELoss(0.2)], memory=CrossModalMemory(4, 16)).double()
    again.load_state_dict(objective.state_dict())
    keys = {"items": BatchItems(AUDIO_KEYS, TEXT_KEYS)}
    assert again(AUDIO, TEXT, RELEVANCE, **keys) == objective(AUDIO, TEXT, RELEVANCE, **keys)


def test_a_memory_without_keys_is_refused():
    with pytest.raises(ValueError, match="a memory needs audio_keys and text_keys"):
        CombinedObjective([losses.InfoNCELoss()], memory=CrossModalMemory(4))(AUDIO, TEXT, RELEVANCE)


def is_rowwise(case):
    kind = type(case.make())
    return kind.one_direction is PairwiseLoss.one_direction and kind.forward is PairwiseLoss.forward


@pytest.mark.parametrize("case", [case for case in CASES if is_rowwise(case)], ids=lambda case: case.name)
def test_a_streamed_loss_has_the_value_and_gradients_of_the_whole(case):
    valid = torch.rand((5, 6), generator=torch.Generator().manual_seed(3)) < 0.8
    weight = torch.rand((5, 6), generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.5
    results = []
    for streamed in (False, True):
        loss = case.make().double()
        audio, text = AUDIO.clone().requires_grad_(), TEXT.clone().requires_grad_()
        inputs = (audio, text, RELEVANCE, valid, weight)
        value = StreamedLoss(loss, block=2)(*inputs) if streamed else apply_loss(loss, *inputs)
        value.backward()
        results.append([value.detach(), audio.grad, text.grad, *(each.grad for each in loss.parameters())])
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole)


@pytest.mark.parametrize(
    "loss",
    [
        losses.InfoNCELoss(0.2, direction_weights=(1.0, 3.0)),
        losses.InfoNCELoss(0.1, margin=0.2),
        losses.InfoNCELoss(0.02),  # exponentials that need maxima
        losses.TripletLoss(0.4),
        losses.TripletLoss(0.4, mining="all", distance="squared", average="all"),
    ],
)
@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("relevance", [RELEVANCE > 0, RELEVANCE * 0.5], ids=["boolean", "graded"])
@pytest.mark.parametrize("valid", [None, torch.arange(30).reshape(5, 6) % 7 > 0], ids=["all valid", "some valid"])
def test_a_streamed_loss_takes_a_plain_batch_a_factor_from_above_and_a_vector_of_no_length(
    loss, block, relevance, valid
):
    results = []
    for streamed in (False, True):
        audio, text = AUDIO.float(), TEXT.float()
        audio[1] = 0.0
        leaves = audio.requires_grad_(), text.requires_grad_(), *loss.parameters()
        inputs = (audio, text, relevance, valid)
        value = StreamedLoss(loss, block)(*inputs) if streamed else apply_loss(loss, *inputs)
        results.append([value.detach(), *torch.autograd.grad(value * 2.5, leaves)])
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(StreamedLoss(loss, block)(*inputs), results[0][0])


def test_positives_are_found_eight_at_a_time_as_well():
    chosen = torch.rand((7, 24), generator=torch.Generator().manual_seed(0)) < 0.1
    audio, text = vectors(5, 7).requires_grad_(), vectors(6, 24)
    values = [
        torch.autograd.grad(loss(audio, text, chosen), audio)[0]
        for loss in (StreamedLoss(losses.InfoNCELoss()), StreamedLoss(losses.InfoNCELoss(), 2))
    ]
    expected = torch.autograd.grad(apply_loss(losses.InfoNCELoss(), audio, text, chosen), audio)[0]
    for value in values:
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("loss", [losses.InfoNCELoss(), losses.ContrastiveLoss()])
def test_a_streamed_loss_lets_a_nan_through_where_a_pair_is_valid(loss):
    audio = AUDIO.float()
    audio[0, 0] = torch.nan
    valid = torch.ones(5, 6, dtype=torch.bool)
    assert StreamedLoss(loss)(audio, TEXT.float(), torch.zeros(5, 6)).isnan()
    valid[0] = False
    assert StreamedLoss(loss)(audio, TEXT.float(), RELEVANCE, valid).isfinite()


def test_a_streamed_loss_of_nothing_is_0_with_a_graph():
    audio = torch.zeros((0, 4), requires_grad=True)
    loss = StreamedLoss(losses.SigLIPLoss())
    value = loss(audio, TEXT.float(), torch.zeros(0, 6))
    assert value == 0
    value.backward()
    assert all(each.grad is not None for each in loss.parameters())


@pytest.mark.parametrize("loss", [losses.SigLIPLoss(), losses.TripletLoss(), losses.InfoNCELoss()])
def test_a_streamed_loss_without_texts_moves_nothing(loss):
    audio = AUDIO.float().requires_grad_()
    StreamedLoss(loss)(audio, torch.zeros(0, 4), torch.zeros(5, 0)).backward()
    assert (audio.grad == 0).all()


def test_tiles_that_cut_rows_and_columns_add_up_to_the_whole(monkeypatch):
    monkeypatch.setattr("xmodal.losses.two_way._TILE", 8)
    audio, text = vectors(5, 21).requires_grad_(), vectors(6, 19).requires_grad_()
    chosen = torch.rand((21, 19), generator=torch.Generator().manual_seed(0)) < 0.1
    for loss in (losses.InfoNCELoss(0.1), losses.InfoNCELoss(0.2, margin=0.3, direction_weights=(2.0, 1.0))):
        leaves = audio, text, *loss.parameters()
        streamed, whole = StreamedLoss(loss)(audio, text, chosen), apply_loss(loss, audio, text, chosen)
        torch.testing.assert_close(streamed, whole)
        for own, expected in zip(
            torch.autograd.grad(streamed, leaves), torch.autograd.grad(whole, leaves), strict=True
        ):
            torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("loss", [losses.HistogramLoss(), losses.LiftedStructureLoss(), losses.SeraphLoss()])
def test_a_loss_of_the_whole_matrix_cannot_be_streamed(loss):
    with pytest.raises(ValueError, match=f"{type(loss).__name__} looks at the whole matrix at once"):
        StreamedLoss(loss)


YAML = """
loss:
  class_path: xmodal.losses.CombinedObjective
  init_args:
    losses:
      - class_path: xmodal.losses.InfoNCELoss
        init_args: {temperature: 0.05, direction_weights: [2, 1]}
      - class_path: xmodal.losses.TripletLoss
        init_args: {margin: 0.2, mining: hard}
      - class_path: xmodal.losses.SpreadOutRegularizer
    weights: [1.0, 0.5, 0.1]
    miner: {class_path: xmodal.losses.MultiSimilarityMiner, init_args: {epsilon: 0.2}}
    memory: {class_path: xmodal.losses.CrossModalMemory, init_args: {dim: 4, size: 8}}
"""


def parser():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=PairwiseLoss | losses.EmbeddingLoss)
    return parser


def test_an_objective_with_all_its_parts_is_written_in_yaml():
    made = parser().instantiate_classes(parser().parse_string(YAML)).loss
    assert [type(each).__name__ for each in made.losses] == ["InfoNCELoss", "TripletLoss", "SpreadOutRegularizer"]
    assert made.weights == [1.0, 0.5, 0.1]
    assert made.losses[0].direction_weights == (2.0, 1.0)
    assert made.losses[1].mining == "hard"
    assert made.miner.epsilon == 0.2
    assert made.memory.size == 8
    assert made(AUDIO, TEXT, RELEVANCE, items=BatchItems(AUDIO_KEYS, TEXT_KEYS)).isfinite()


def test_a_typo_in_yaml_is_answered_by_name():
    from jsonargparse import ArgumentError

    with pytest.raises(ArgumentError, match="margins"):
        parser().parse_string(YAML.replace("margin: 0.2", "margins: 0.2"))
