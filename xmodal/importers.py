"""Models of others as models of xmodal: the same vectors, behind our window policy, identity and file format."""

from __future__ import annotations

import torch

from xmodal.model import TwoTower
from xmodal.towers import ClapAudioTower, ClapTextTower


def import_clap(source: str) -> TwoTower:
    """A CLAP model of transformers in its own joint space: the projections on top are the identity.

    Files are cut into windows as long as the model hears, side by side, where its authors' code crops at random.

    Args:
        source: A folder, or the id of a model on the Hugging Face Hub, such as ``"laion/clap-htsat-unfused"``.

    Raises:
        ModelError: If it cannot be found or loaded.
    """
    audio, text = ClapAudioTower(source), ClapTextTower(source)
    model = TwoTower(
        audio, text, dim=audio.feature_dim, window_seconds=audio.extractor.nb_max_samples / audio.sample_rate
    )
    with torch.no_grad():
        for projection in (model.audio_projection, model.text_projection):
            projection.layers.weight.copy_(torch.eye(model.dim))  # type: ignore[operator, union-attr]
    return model.eval()
