"""Writes ``golden_pml.json``: values of pytorch-metric-learning 2.9.0, an independent implementation of many losses.

Not run by the tests, and not a dependency. In an environment of its own:

    python -m venv pml && pml/bin/pip install torch pytorch-metric-learning==2.9.0
    pml/bin/python tests/losses/golden_pml.py

Labels are such that every anchor has the same number of positives where the two projects weigh anchors differently.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners

torch.set_default_dtype(torch.float64)
AUDIO_LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
TEXT_LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])


def vectors(seed: int, items: int) -> torch.Tensor:
    return F.normalize(torch.randn((items, 5), generator=torch.Generator().manual_seed(seed)), dim=1)


def disagreements(audio: torch.Tensor, text: torch.Tensor, single: torch.Tensor) -> dict[str, float | str]:
    """What the other project says where it is not to be followed; ``test_loss_golden.py`` says what is right."""
    alone = torch.tensor([0, 0, 1, 1, 7, 8])  # the last two audio have no text
    twelve = vectors(5, 12)
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    far = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])

    def two_towers(loss: torch.nn.Module, labels: torch.Tensor = AUDIO_LABELS, scale: float = 1.0) -> torch.Tensor:
        return loss(scale * audio, labels, ref_emb=scale * text, ref_labels=TEXT_LABELS)

    def slope_at_equal_vectors() -> torch.Tensor:
        x = twins[:3].clone().requires_grad_()
        losses.TupletMarginLoss()(x, torch.tensor([0, 0, 1])).backward()
        return x.grad.sum()

    cases = {
        "nca at scale 100": lambda: losses.NCALoss(softmax_scale=100)(
            twins[:1], torch.tensor([0]), ref_emb=far, ref_labels=torch.tensor([0, 1])
        ),
        "tuplet margin, slope at a cosine of 1": slope_at_equal_vectors,
        "histogram at a cosine of 1": lambda: losses.HistogramLoss(n_bins=100)(twins, torch.tensor([0, 0, 1, 1])),
        "smooth-ap, 3 classes of 4": lambda: losses.SmoothAPLoss(temperature=0.01)(
            twelve, torch.arange(3).repeat_interleave(4)
        ),
        "smooth-ap, 4 classes of 3": lambda: losses.SmoothAPLoss(temperature=0.01)(
            twelve, torch.arange(4).repeat_interleave(3)
        ),
        "triplet with swap, as many texts as audio": lambda: losses.TripletMarginLoss(margin=0.3, swap=True)(
            audio, AUDIO_LABELS, ref_emb=text[:6], ref_labels=TEXT_LABELS[:6]
        ),
        "triplet with swap, more texts than audio": lambda: two_towers(losses.TripletMarginLoss(0.3, swap=True)),
        "lifted structure": lambda: two_towers(losses.LiftedStructureLoss(neg_margin=1, pos_margin=0)),
        "angular on long vectors": lambda: two_towers(losses.AngularLoss(alpha=40), scale=3.0),
        "multi-similarity, anchors without positives": lambda: two_towers(losses.MultiSimilarityLoss(), alone),
        "generalized lifted, anchors without positives": lambda: two_towers(
            losses.GeneralizedLiftedStructureLoss(neg_margin=0.4, pos_margin=0), alone
        ),
        "n-pair on long vectors": lambda: losses.NPairsLoss()(5 * single, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])),
    }
    found: dict[str, float | str] = {}
    for name, case in cases.items():
        try:
            value = case().item()
            found[name] = "NaN" if math.isnan(value) else value
        except (IndexError, RuntimeError) as error:
            found[name] = type(error).__name__
    return found


def main() -> None:
    audio, text = vectors(0, 6), vectors(1, 9)
    squared = distances.LpDistance(power=2)
    two_towers = {
        "contrastive": losses.ContrastiveLoss(pos_margin=0, neg_margin=1),
        "triplet all": losses.TripletMarginLoss(margin=0.3, distance=squared),
        "nt-xent": losses.NTXentLoss(temperature=0.2),
        "supcon": losses.SupConLoss(temperature=0.2),
        "multi-similarity": losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
        "circle": losses.CircleLoss(m=0.3, gamma=20),
        "generalized lifted": losses.GeneralizedLiftedStructureLoss(neg_margin=0.4, pos_margin=0),
        "margin": losses.MarginLoss(margin=0.2, nu=0, beta=1.1),
        "tuplet margin": losses.TupletMarginLoss(margin=5.73, scale=16),
        "intra-pair variance": losses.IntraPairVarianceLoss(pos_eps=0.05, neg_eps=0.05),
        "nca": losses.NCALoss(softmax_scale=3),
        "snr contrastive": losses.SignalToNoiseRatioContrastiveLoss(pos_margin=0, neg_margin=50),
        "angular": losses.AngularLoss(alpha=40),
    }
    values = {
        name: loss(audio, AUDIO_LABELS, ref_emb=text, ref_labels=TEXT_LABELS).item()
        for name, loss in two_towers.items()
    }
    semi_hard = miners.TripletMarginMiner(margin=0.3, type_of_triplets="semihard", distance=squared)
    triples = semi_hard(audio, AUDIO_LABELS, text, TEXT_LABELS)
    values["triplet semi-hard"] = two_towers["triplet all"](
        audio, AUDIO_LABELS, triples, ref_emb=text, ref_labels=TEXT_LABELS
    ).item()
    hardest = miners.BatchHardMiner(distance=squared)(audio, AUDIO_LABELS, text, TEXT_LABELS)
    values["triplet batch-hard"] = two_towers["triplet all"](
        audio, AUDIO_LABELS, hardest, ref_emb=text, ref_labels=TEXT_LABELS
    ).item()
    one, positive, other, negative = miners.MultiSimilarityMiner(epsilon=0.1)(audio, AUDIO_LABELS, text, TEXT_LABELS)
    kept = torch.zeros(6, 9, dtype=torch.bool)
    kept[one, positive] = kept[other, negative] = True

    single, single_labels = vectors(2, 8), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    one_tower = {
        "fastap": losses.FastAPLoss(num_bins=10),
        "histogram": losses.HistogramLoss(n_bins=50),
        "ranked list": losses.RankedListLoss(margin=0.4, Tn=10, imbalance=0.5, alpha=1.2, Tp=0),
        "lifted": losses.LiftedStructureLoss(neg_margin=1, pos_margin=0),
    }
    values |= {name: loss(single, single_labels).item() for name, loss in one_tower.items()}

    proxies = vectors(3, 6)
    with_proxies = {
        "proxy anchor": losses.ProxyAnchorLoss(num_classes=3, embedding_size=5, margin=0.1, alpha=32),
        "proxy nca": losses.ProxyNCALoss(num_classes=3, embedding_size=5, softmax_scale=3),
    }
    for name, loss in with_proxies.items():
        loss.proxies.data = proxies[:3].clone()
        values[name] = loss(audio, AUDIO_LABELS).item()
    soft_triple = losses.SoftTripleLoss(
        num_classes=3, embedding_size=5, centers_per_class=2, la=20, gamma=0.1, margin=0.01
    )
    soft_triple.fc.data = proxies.T.clone()
    values["soft triple"] = soft_triple(audio, AUDIO_LABELS).item()

    golden = {
        "audio": audio.tolist(),
        "text": text.tolist(),
        "audio_labels": AUDIO_LABELS.tolist(),
        "text_labels": TEXT_LABELS.tolist(),
        "single": single.tolist(),
        "single_labels": single_labels.tolist(),
        "proxies": proxies.tolist(),
        "values": values,
        "disagreements": disagreements(audio, text, single),
        "multi_similarity_miner": kept.tolist(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
