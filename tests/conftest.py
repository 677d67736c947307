"""Fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """Real recordings that lie beside the checkout, not in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "audio"
    if not folder.is_dir():
        pytest.skip("the real recordings are not beside this checkout (shared/audio)")
    return folder
