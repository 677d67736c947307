"""The space doctor: is a space of vectors healthy, and if not, what is wrong with it and what helps.

A check measures one figure, compares it to a limit that has a written reason (:data:`LIMITS`), and gives a verdict and
a sentence of advice. :func:`examine_space` looks at vectors and relevance, :mod:`xmodal.doctor.weights` at a model's
weights. ``xmodal doctor`` runs both, and the callback ``xmodal.training.SpaceDoctor`` the first at each validation.
"""

from xmodal.doctor.checks import Space, examine_space
from xmodal.doctor.findings import LIMITS, Finding, Limit, Report, Verdict
from xmodal.doctor.weights import examine_file, examine_scales, examine_weights

__all__ = [
    "LIMITS",
    "Finding",
    "Limit",
    "Report",
    "Space",
    "Verdict",
    "examine_file",
    "examine_scales",
    "examine_space",
    "examine_weights",
]
