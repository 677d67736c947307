"""Which entries of the list of methods (sections 1 to 5) the losses implement, and why the others are not here.

The list is the survey of metric learning that the project follows, numbered by section; every class names its entries
in ``method_ids``.
"""

from __future__ import annotations

import inspect

from xmodal import losses

METHODS_PER_SECTION = {1: 22, 2: 19, 3: 3, 4: 15, 5: 2}

NOT_HERE: dict[str, str] = {
    "1.17": "Curvilinear distance metric learning is a learned distance and not an objective, and is not built; with "
    "straight curves it is a linear projection under a Euclidean distance, which every tower ends in.",
    "2.01": "Order-statistics pooling of frames and their fusion by kernels belong to an audio tower's pooling.",
    "2.05": "Formula not available: subtype fuzzy clustering (SCDM). Closest: LearnedAnchors with several anchors a "
    "concept, which also gives a concept soft sub-clusters.",
    "2.17": "A protocol for evaluation: MAP@R and R-precision belong to the metrics.",
    "2.18": "Formula not available: virtual samples by discriminant analysis. Closest: EmbeddingExpansionLoss and "
    "HardnessAwareLoss, which make virtual negatives by published formulas.",
    "4.08": "Out: attention that crops objects from pictures has no meaning for audio and text; its decorrelated heads "
    "are DecorrelationRegularizer.",
}


def implemented() -> dict[str, list[str]]:
    """Names of the public classes that implement each entry."""
    found: dict[str, list[str]] = {}
    for name in losses.__all__:
        kind = getattr(losses, name)
        if inspect.isclass(kind):
            for method in getattr(kind, "method_ids", ()):
                found.setdefault(method, []).append(name)
    return dict(sorted(found.items()))
