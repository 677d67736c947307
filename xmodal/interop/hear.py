"""The HEAR API (Turian et al. 2022, arXiv:2203.03022): a model of xmodal for the HEAR benchmark and its validator.

    hear-validator xmodal.interop.hear --model demo/model

A scene embedding is the vector that ``xmodal embed`` gives for the clip. A timestamp embedding is the unit vector of
one short window whose centre is the timestamp, with zeros beyond the ends of the clip; there is one every 50 ms.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

import xmodal.compat  # noqa: F401  (makes torchaudio importable beside a CPU build of torch)

# isort: split
from torchaudio.functional import resample

from xmodal.embedder import load
from xmodal.errors import ModelError
from xmodal.interop.sounds import embed_samples
from xmodal.model import TwoTower

SAMPLE_RATES_HZ = (16_000, 22_050, 44_100, 48_000)
"""The rates at which HEAR hands over audio; a tower of another rate gets the next higher one, resampled."""

HOP_MILLISECONDS = 50.0
_WINDOW_SECONDS = 1.0
_BATCH_WINDOWS = 64


class HearModel(nn.Module):
    """A model with the attributes that HEAR reads.

    Attributes:
        sample_rate: Of the audio that it wants, one of :data:`SAMPLE_RATES_HZ`.
        scene_embedding_size: Length of the vectors of clips.
        timestamp_embedding_size: Length of the vectors of timestamps.

    Args:
        model: The model.

    Raises:
        ModelError: If its tower wants more than 48 kHz.
    """

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        rates = [rate for rate in SAMPLE_RATES_HZ if rate >= model.sample_rate]
        if not rates:
            raise ModelError(f"HEAR has audio of at most 48000 Hz, and this model wants {model.sample_rate}")
        self.model = model.eval()
        self.sample_rate = rates[0]
        self.scene_embedding_size = self.timestamp_embedding_size = model.dim

    def heard(self, audio: Float[Tensor, "sounds samples"]) -> Float[Tensor, "sounds samples"]:
        """The audio at the tower's own rate.

        Raises:
            ValueError: If it is no matrix of samples.
        """
        if audio.dim() != 2 or not audio.shape[1] or not audio.is_floating_point():
            raise ValueError(f"audio must be float samples [sounds, samples], got {audio.dtype} {list(audio.shape)}")
        return resample(audio.float(), self.sample_rate, self.model.sample_rate).clamp(-1.0, 1.0)


def load_model(model_file_path: str = "", device: str | None = None) -> HearModel:
    """Load a model folder, or what the Hugging Face Hub holds under an id.

    Raises:
        ModelError: If no path is given, or the folder is no model.
    """
    if not model_file_path:
        raise ModelError("HEAR must be told which model: hear-validator xmodal.interop.hear --model MODEL")
    embedder = load(model_file_path, device=device)
    return HearModel(embedder.model)


@torch.no_grad()
def get_scene_embeddings(audio: Float[Tensor, "sounds samples"], model: HearModel) -> Float[Tensor, "sounds dim"]:
    """One vector for each clip, cut and pooled as files are.

    Args:
        audio: Mono clips in [-1, 1] at ``model.sample_rate``.
        model: What :func:`load_model` gave.
    """
    clips = model.heard(audio).cpu().numpy()
    return embed_samples(model.model, list(clips)).to(audio.device)


@torch.no_grad()
def get_timestamp_embeddings(
    audio: Float[Tensor, "sounds samples"], model: HearModel
) -> tuple[Float[Tensor, "sounds timestamps dim"], Float[Tensor, "sounds timestamps"]]:
    """A vector every 50 ms, and its time.

    Args:
        audio: Mono clips in [-1, 1] at ``model.sample_rate``.
        model: What :func:`load_model` gave.

    Returns:
        Vectors, and the centres of their windows in milliseconds: 0, 50, 100 ... up to the clip's end.
    """
    tower = model.model
    clips = model.heard(audio).to(tower.device)
    rate = tower.sample_rate
    window = round(min(_WINDOW_SECONDS, tower.windows.window_seconds) * rate)
    count = int(1000.0 * clips.shape[1] / rate // HOP_MILLISECONDS) + 1
    milliseconds = HOP_MILLISECONDS * torch.arange(count, dtype=torch.float64)
    starts = (milliseconds * rate / 1000.0).round().long()
    padded = F.pad(clips, (window // 2, window))
    vectors = torch.empty(len(clips), count, tower.dim, device=tower.device)
    for first in range(0, count, _BATCH_WINDOWS):
        part = [padded[:, start : start + window] for start in starts[first : first + _BATCH_WINDOWS].tolist()]
        heard = tower.embed_audio(torch.stack(part, dim=1).flatten(0, 1)).float()
        vectors[:, first : first + len(part)] = heard.unflatten(0, (len(clips), len(part)))
    times = milliseconds.float().expand(len(clips), -1).contiguous()
    return vectors.to(audio.device), times.to(audio.device)
