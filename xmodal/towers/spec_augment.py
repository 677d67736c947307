"""SpecAugment: stripes of time and of frequency are blanked in training (Park et al. 2019, arXiv:1904.08779)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xmodal.configurable import Configurable


class SpecAugment(nn.Module, Configurable):
    """Blank random stripes of each clip's features with 0, in training mode only.

    The width of a stripe is uniform from 0 to its share of the clip, and its place uniform among those where it
    fits. Every clip draws its own stripes, in a tower from torch's global generator, as one of ``data.feature_augment``
    by the track and the epoch. 0 is the front end's mean level.

    Args:
        time_masks: Stripes of time a clip.
        time_share: Longest stripe of time, as a share of the clip's valid frames.
        band_masks: Stripes of frequency a clip.
        band_share: Widest stripe of frequency, as a share of the bands.
    """

    def __init__(
        self, time_masks: int = 2, time_share: float = 0.1, band_masks: int = 2, band_share: float = 0.15
    ) -> None:
        super().__init__()
        if time_masks < 0 or band_masks < 0:
            raise ValueError(f"a number of masks cannot be negative, got time {time_masks}, band {band_masks}")
        if not (0 <= time_share <= 1 and 0 <= band_share <= 1):
            raise ValueError(f"the shares must be from 0 to 1, got time {time_share}, band {band_share}")
        self.time_masks, self.time_share = time_masks, time_share
        self.band_masks, self.band_share = band_masks, band_share

    def forward(
        self,
        features: Float[Tensor, "clips bands frames"],
        valid_frames: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "clips bands frames"]:
        """The features, with stripes blanked in training mode and untouched in evaluation mode."""
        return self.blank(features, valid_frames) if self.training else features

    def blank(
        self,
        features: Float[Tensor, "clips bands frames"],
        valid_frames: Int[Tensor, " clips"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "clips bands frames"]:
        """The features with stripes blanked, by the draws of ``generator`` or of torch's global one."""
        clips, bands, frames = features.shape
        lengths = torch.full((clips,), frames, device=features.device) if valid_frames is None else valid_frames
        band_lengths = torch.full((clips,), bands, device=features.device)
        in_time = _stripes(frames, lengths, self.time_masks, self.time_share, generator)
        in_bands = _stripes(bands, band_lengths, self.band_masks, self.band_share, generator)
        return features.masked_fill(in_time[:, None, :] | in_bands[:, :, None], 0.0)


def _stripes(
    size: int, lengths: Int[Tensor, " clips"], count: int, share: float, generator: torch.Generator | None
) -> Bool[Tensor, "clips size"]:
    """True inside ``count`` random stripes among the first ``lengths`` places of each row."""
    draws = torch.rand(2, len(lengths), count, device=lengths.device, generator=generator)
    widths = (draws[0] * (share * lengths[:, None] + 1)).floor().minimum(lengths[:, None])
    starts = (draws[1] * (lengths[:, None] - widths + 1)).floor()
    places = torch.arange(size, device=lengths.device)[:, None, None]
    return ((places >= starts) & (places < starts + widths)).any(dim=2).T
