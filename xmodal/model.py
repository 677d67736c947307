"""TwoTower: an audio tower and a text tower that meet in one space of unit vectors.

A model knows everything that shapes its vectors: weights, front end, tokenizer, window policy, pooling and
normalisation. ``space_id`` is a hash of all of it, so two artefacts can be compared only if they agree on it.

On disk a model is a folder::

    config.json          how to build it: class paths and constructor arguments, format version, space_id
    model.safetensors    the weights; no pickle anywhere
    text_encoder/ ...    what a text tower brings of its own (tokenizer, pretrained encoder)
    audio_encoder/ ...   what a pretrained audio tower brings of its own
    README.md            the model card
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from xmodal import __version__
from xmodal.audio import WindowPolicy
from xmodal.configurable import Configurable, instantiate
from xmodal.errors import ModelError
from xmodal.hub import fetch, push
from xmodal.model_folder import (
    CONFIG_FILE,
    FORMAT_VERSION,
    WEIGHTS_FILE,
    argument_place,
    model_card,
    read_description,
    swap_in,
    sync,
)
from xmodal.projections import Centring, PartedProjection, Projection
from xmodal.towers.base import AudioTower, TextBatch, TextTower
from xmodal.towers.metric import MetricHead
from xmodal.view import Pooling, View, check_pooling, pooling_rule

# Projections and the description of a folder are part of a model, wherever their code lies.
__all__ = [
    "CONFIG_FILE", "FORMAT_VERSION", "WEIGHTS_FILE", "Centring", "PartedProjection", "Projection", "TwoTower",
    "build_described", "read_description",
]  # fmt: skip


class TwoTower(nn.Module, Configurable):
    """Two towers, a projection each, unit vectors out.

    Args:
        audio: The audio tower; its sample rate is the model's.
        text: The text tower.
        dim: Dimension of the joint space.
        audio_hidden: Hidden width of the audio projection; None for a linear one.
        text_hidden: Hidden width of the text projection; None for a linear one.
        dropout: Dropout in the projections' hidden layers.
        window_seconds: Length of the windows that a file is cut into.
        hop_seconds: Step from window to window; None for windows side by side.
        last_window: What happens where the audio is no multiple of the hop (see :class:`xmodal.audio.WindowPolicy`).
        pooling: How the windows of a track become its vector (see :func:`xmodal.view.pool`).
        top_windows: How many windows the pooling ``top_k`` keeps.
        keep_dim: Keep so many of the ``dim`` dimensions, the first ones; None for all. For a model that was trained
            so that its first dimensions say most (Matryoshka).
        centred: End each projection with a :class:`Centring`.
        audio_parts: Project the tower's features in so many parts that do not see one another: for ensembles.
        metric: A learned map that both sides pass behind their projections; None for none.
    """

    def __init__(
        self,
        audio: AudioTower,
        text: TextTower,
        dim: int = 256,
        *,
        audio_hidden: int | None = None,
        text_hidden: int | None = None,
        dropout: float = 0.0,
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        last_window: Literal["shift", "pad", "drop"] = "shift",
        pooling: Pooling = "mean",
        top_windows: int = 3,
        keep_dim: int | None = None,
        centred: bool = False,
        audio_parts: int = 1,
        metric: MetricHead | None = None,
    ) -> None:
        super().__init__()
        if dim < 1 or audio_parts < 1:
            raise ValueError(f"dim and audio_parts must be at least 1, got {dim} and {audio_parts}")
        if keep_dim is not None and not 1 <= keep_dim <= dim:
            raise ValueError(f"the model has {dim} dimensions, so from 1 to {dim} can be kept, got {keep_dim}")
        check_pooling(pooling, top_windows)
        self.audio = audio
        self.text = text
        self.dim = keep_dim or dim
        self.pooling = pooling
        self.top_windows = top_windows
        self.audio_projection: Projection | PartedProjection
        if audio_parts == 1:
            self.audio_projection = Projection(audio.feature_dim, dim, audio_hidden, dropout, centred)
        else:
            self.audio_projection = PartedProjection(
                audio.feature_dim, dim, audio_parts, audio_hidden, dropout, centred
            )
        self.text_projection = Projection(text.feature_dim, dim, text_hidden, dropout, centred)
        self.metric = metric
        if metric is not None:
            metric.prepare(dim)
        self.windows = WindowPolicy(window_seconds, hop_seconds, last_window)

    @property
    def sample_rate(self) -> int:
        """Samples a second that the audio tower expects."""
        return self.audio.sample_rate

    @property
    def window_samples(self) -> int:
        """Length of one window in samples."""
        return round(self.windows.window_seconds * self.sample_rate)

    def embed_audio(
        self, waveform: Float[Tensor, "windows samples"], valid_samples: Int[Tensor, " windows"] | None = None
    ) -> Float[Tensor, "windows dim"]:
        """Unit vectors of audio windows, one a window.

        Args:
            waveform: Mono samples in [-1, 1] at :attr:`sample_rate`.
            valid_samples: How many samples of each window are audio and not padding; None if all are.
        """
        return self._unit(self.project_encoded(self.audio(waveform, valid_samples)))

    def embed_audio_features(
        self, features: Float[Tensor, "windows bands frames"], valid_frames: Int[Tensor, " windows"] | None = None
    ) -> Float[Tensor, "windows dim"]:
        """Unit vectors from what ``audio.features`` gave, wherever it was computed."""
        return self._unit(self.project_audio(features, valid_frames))

    def project_audio(
        self, features: Float[Tensor, "windows bands frames"], valid_frames: Int[Tensor, " windows"] | None = None
    ) -> Float[Tensor, "windows dim"]:
        """As :meth:`embed_audio_features`, before normalisation: some losses look at the norms."""
        return self.project_encoded(self.audio.encode(features, valid_frames))

    def embed_encoded(self, encoded: Float[Tensor, "windows audio_features"]) -> Float[Tensor, "windows dim"]:
        """Unit vectors from what ``audio.encode`` gave: a frozen tower's vectors may come from a cache."""
        return self._unit(self.project_encoded(encoded))

    def project_encoded(self, encoded: Float[Tensor, "windows audio_features"]) -> Float[Tensor, "windows dim"]:
        """Vectors before normalisation from what ``audio.encode`` gave."""
        projected: Tensor = self.audio_projection(encoded)
        return projected if self.metric is None else self.metric(projected)

    def embed_text(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Unit vectors of texts of any length (long ones are chunked and pooled, never cut)."""
        if isinstance(texts, str):
            raise ValueError("embed_text takes a list of texts, got one string; wrap it in a list")
        if not len(texts):
            return torch.zeros(0, self.dim, device=self.device)
        return self.embed_text_batch(self.text.tokenize(texts).to(self.device))

    def embed_text_batch(self, batch: TextBatch) -> Float[Tensor, "texts dim"]:
        """Unit vectors of tokenised texts."""
        return self.embed_text_features(self.text.encode(batch))

    def embed_text_features(self, features: Float[Tensor, "texts features"]) -> Float[Tensor, "texts dim"]:
        """Unit vectors from what ``text.encode`` gave: a frozen tower's features may come from a cache."""
        return self._unit(self.project_text(features))

    def project_text(self, features: Float[Tensor, "texts features"]) -> Float[Tensor, "texts dim"]:
        """As :meth:`embed_text_features`, before normalisation."""
        projected: Tensor = self.text_projection(features)
        return projected if self.metric is None else self.metric(projected)

    def _unit(self, vectors: Float[Tensor, "items outputs"]) -> Float[Tensor, "items dim"]:
        # In float32 even under autocast: a unit vector in bfloat16 is up to 0.4 % too long or too short.
        return normalize(vectors[..., : self.dim].float(), dim=-1)

    def viewed(self, view: View | Mapping[str, Any]) -> TwoTower:
        """The same weights, looked at in another way; this model is not changed.

        Saved, the result is a model folder that makes such vectors without a view.

        Raises:
            ValueError: If the view does not fit the model, such as more dimensions than it has.
        """
        view = View.of(view)
        changes = view.as_json()
        if "dim" in changes:
            changes["keep_dim"] = changes.pop("dim")
        arguments = {**self._init_args, **changes}
        if arguments["hop_seconds"] == arguments["window_seconds"]:
            arguments["hop_seconds"] = None  # the same windows must not be two spaces
        if not 1 <= (arguments["keep_dim"] or arguments["dim"]) <= arguments["dim"]:
            raise ValueError(
                f"the model has {arguments['dim']} dimensions, so from 1 to {arguments['dim']} can be kept, got "
                f"{arguments['keep_dim']}"
            )
        check_pooling(arguments["pooling"], arguments["top_windows"])
        other = copy.copy(self)  # shares every tower and weight
        other._init_args = arguments
        other.dim = arguments["keep_dim"] or arguments["dim"]
        other.pooling, other.top_windows = arguments["pooling"], arguments["top_windows"]
        other.windows = WindowPolicy(arguments["window_seconds"], arguments["hop_seconds"], arguments["last_window"])
        return other

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def identity(self) -> dict[str, Any]:
        """Everything besides the weights that shapes a vector, as plain JSON values."""
        return {
            "audio": self.audio.identity(),
            "text": self.text.identity(),
            "dim": self.dim,
            "audio_projection": self.audio_projection.identity(),
            "text_projection": self.text_projection.identity(),
            "windows": {
                "window_seconds": self.windows.window_seconds,
                "hop_seconds": self.windows.hop_seconds,
                "last": self.windows.last,
            },
            "window_pooling": pooling_rule(self.pooling, self.top_windows),
            "normalisation": "l2",
        } | ({} if self.metric is None else {"metric": self.metric.config})

    def space_id(self) -> str:
        """Name of the space that the vectors live in: 16 hex digits of SHA-256 over weights and :meth:`identity`.

        It does not depend on the device or on where files lie. Hashing takes a second a gigabyte; keep the result.
        """
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            if name.endswith("num_batches_tracked"):  # counts training steps, shapes nothing
                continue
            array = tensor.detach().cpu().contiguous()
            digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
            digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def _kept_in_assets(self) -> tuple[str, ...]:
        """Prefixes of the weights that a tower's own folder holds, and so not ``model.safetensors``."""
        sides = (("audio", self.audio.asset_prefixes), ("text", self.text.asset_prefixes))
        return tuple(f"{side}.{prefix}" for side, prefixes in sides for prefix in prefixes)

    def _facts(self, space_id: str) -> dict[str, object]:
        """What a model card says at a glance."""
        windows = self.windows
        return {
            "space": f"`{space_id}`",
            "dimension": self.dim,
            "audio tower": f"`{type(self.audio).__name__}`, {self.sample_rate} Hz",
            "text tower": f"`{type(self.text).__name__}`" + (", frozen" if self.text.frozen else ""),
            "windows": f"{windows.window_seconds:g} s, hop {windows.hop_seconds or windows.window_seconds:g} s",
            "parameters": f"{sum(parameter.numel() for parameter in self.parameters()):,}",
        }

    def save(self, folder: str | Path, *, card: str | None = None, overwrite: bool = False) -> str:
        """Write the model folder; it appears whole under its name or not at all.

        Args:
            folder: Where to; made if absent.
            card: Markdown about the training and its figures, added to the model card.
            overwrite: Replace a model that is there. Nothing else is ever replaced.

        Returns:
            The ``space_id``.

        Raises:
            ModelError: If ``folder`` holds something already and ``overwrite`` is off, or holds no model.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            if not (folder / CONFIG_FILE).is_file():
                raise ModelError(f"{folder} is not empty and holds no model; choose another folder")
            if not overwrite:
                raise ModelError(f"{folder} holds a model already; choose another folder or pass overwrite=True")
        folder.parent.mkdir(parents=True, exist_ok=True)
        space_id = self.space_id()
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            assets = {"audio": self.audio.save_assets(aside), "text": self.text.save_assets(aside)}
            kept_elsewhere = self._kept_in_assets()
            weights = {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in self.state_dict().items()
                if not (kept_elsewhere and name.startswith(kept_elsewhere))
            }
            save_file(weights, aside / WEIGHTS_FILE, metadata={"format": "pt", "space_id": space_id})
            config = self.config
            for side, arguments in assets.items():
                for name, value in arguments.items():
                    place, last = argument_place(config["init_args"][side], name)
                    place[last] = value
            description = {
                "format_version": FORMAT_VERSION,
                "xmodal_version": __version__,
                "space_id": space_id,
                # Arguments that are paths inside this folder. Older readers know "assets" alone.
                "assets": sorted(name for name, value in assets["text"].items() if isinstance(value, str)),
                "audio_assets": sorted(name for name, value in assets["audio"].items() if isinstance(value, str)),
                "model": config,
            }
            (aside / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n")
            (aside / "README.md").write_text(model_card(self._facts(space_id), card))
            os.chmod(aside, 0o755)
            sync(aside)
            swap_in(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return space_id

    @classmethod
    def load(cls, folder: str | Path, *, trust: bool = False) -> TwoTower:
        """Read a model folder, strictly: every weight is used, and the ``space_id`` must come out as written.

        Args:
            folder: What :meth:`save` wrote.
            trust: Allow the config to name classes from outside xmodal.

        Raises:
            ModelError: If the folder is no model, is damaged, or is of a newer format.
        """
        folder = Path(folder)
        description = read_description(folder)
        config = description["model"]
        model = build_described(folder, description, trust=trust)
        if not isinstance(model, cls):
            raise ModelError(f"{folder / CONFIG_FILE} describes {config['class_path']}, which is not a {cls.__name__}")
        try:
            weights = load_file(folder / WEIGHTS_FILE)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{folder / WEIGHTS_FILE} cannot be read ({error}); copy the model folder again"
            ) from error
        kept_elsewhere = model._kept_in_assets()
        if kept_elsewhere:
            weights |= {name: value for name, value in model.state_dict().items() if name.startswith(kept_elsewhere)}
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise ModelError(
                f"{folder / WEIGHTS_FILE} does not fit the model that config.json describes: {error}"
            ) from error
        found = model.space_id()
        if found != description["space_id"]:
            raise ModelError(
                f"{folder} says it is space {description['space_id']} but its files make {found}; "
                "they were changed or damaged, copy or export the model again"
            )
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> str:
        """As :meth:`save`, replacing a model that is there; the name that Hugging Face's users expect."""
        return self.save(folder, card=card, overwrite=True)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        trust: bool = False,
    ) -> TwoTower:
        """Load a model folder, or what the Hugging Face Hub holds under an id.

        Args:
            source: A folder, or an id such as ``"user/model"``.
            revision: A branch, tag or commit of the Hub repository.
            cache_dir: Where copies are kept; None means Hugging Face's own cache.
            token: For private repositories; None means the one that ``hf auth login`` stored.
            local_files_only: Never ask the network.
            trust: Allow the config to name classes from outside xmodal.

        Raises:
            ModelError: If it cannot be found, or is no model, damaged, or of a newer format.
        """
        place = fetch(source, revision=revision, cache_dir=cache_dir, token=token, offline=local_files_only)
        return cls.load(place, trust=trust)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | None = None,
        private: bool = False,
        revision: str | None = None,
        message: str = "Upload an xmodal model",
        token: str | None = None,
    ) -> str:
        """Publish the model on the Hugging Face Hub: weights, configs and card. Give the address of the commit.

        Args:
            repo_id: Such as ``"user/model"``; the repository is made if it is not there.
            card: Markdown about the training and its figures, added to the model card.
            private: Make a new repository private.
            revision: The branch to write to; None means the main one.
            message: Of the commit.
            token: None means the one that ``hf auth login`` stored.

        Raises:
            ModelError: If the id is none, or the Hub refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder, card=card)
            return push(folder, repo_id, private=private, revision=revision, message=message, token=token)


def build_described(folder: str | Path, description: dict[str, Any], *, trust: bool = False) -> TwoTower:
    """Make the model that :func:`read_description` describes, with the assets in its folder and fresh weights.

    Raises:
        ModelError: If the config names what it may not, or makes no :class:`TwoTower`.
    """
    folder, config = Path(folder), copy.deepcopy(description["model"])
    for side, key in (("text", "assets"), ("audio", "audio_assets")):
        for name in description.get(key, []):
            place, last = argument_place(config["init_args"][side], name)
            asset = (folder / place[last]).resolve()
            if not asset.is_relative_to(folder.resolve()):
                raise ModelError(f"{folder / CONFIG_FILE}: the asset {place[last]!r} lies outside the model folder")
            place[last] = str(asset)
    model = instantiate(config, trust=trust)
    if not isinstance(model, TwoTower):
        raise ModelError(f"{folder / CONFIG_FILE} describes {config['class_path']}, which is not a TwoTower")
    return model
