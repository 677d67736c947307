"""What a checkpoint holds of this project besides Lightning's own state, and what it leaves out.

Encoders that are frozen and lie somewhere as they were published are in no checkpoint: every run builds them from their
own files. The checkpoint names their settings and their weights, so that it cannot go on beside others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xmodal.errors import ModelError
from xmodal.towers.base import tensors_digest
from xmodal.training.formats import CHECKPOINT_VERSION, migrate

if TYPE_CHECKING:
    from xmodal.training.module import AlignmentModule

_SIDES = ("audio", "text")


def write_stamp(module: AlignmentModule, checkpoint: dict[str, Any]) -> None:
    """Leave out what frozen towers bring of their own, and say how to build the rest."""
    frozen = frozen_names(module)
    checkpoint["state_dict"] = {
        name: value for name, value in checkpoint["state_dict"].items() if name not in frozen["audio"] | frozen["text"]
    }
    network = module.network if module.sharded is None else module.sharded.built
    checkpoint["xmodal"] = {
        "format_version": CHECKPOINT_VERSION,
        "network": network.config,
        "text_identity": network.text.identity(),
        "audio_identity": network.audio.identity(),
        "frozen_weights": module.frozen_weights(),
        "seed": module.seed,
        "averaged": None if module.averaged is None else module.averaged.state_dict(),
    }
    if module.item_source is not None:
        checkpoint["xmodal"]["remembered_texts"] = module.item_source.remembered_texts()


def read_stamp(module: AlignmentModule, checkpoint: dict[str, Any]) -> None:
    """Bring the checkpoint to today's format, check the towers it was made with, and add what was left out.

    Raises:
        ModelError: If it was trained with another tower, or beside other weights of a frozen one.
    """
    migrate(checkpoint)
    stamp = checkpoint["xmodal"]
    network = module.network if module.sharded is None else module.sharded.built
    for side in _SIDES:
        said, now = stamp[f"{side}_identity"], getattr(network, side).identity()
        if said is not None and said != now:
            raise ModelError(
                f"the checkpoint was trained with another {side} tower than the config names: {said} against {now}"
            )
    frozen, weights = frozen_names(module), module.frozen_weights()
    for side in _SIDES:
        trained_beside, here = stamp["frozen_weights"].get(side), weights[side]
        if trained_beside is not None and here is not None and trained_beside != here:
            raise ModelError(
                f"the checkpoint was trained beside a frozen {side} encoder with other weights than the one that the "
                f"config names ({trained_beside[:16]}… against {here[:16]}…); name the encoder that it was trained with"
            )
    module.seed = stamp["seed"]
    if module.averaged is not None and stamp["averaged"] is not None:
        module.averaged.load_state_dict(stamp["averaged"])
    if module.item_source is not None:
        module.item_source.register.load_state(stamp.get("remembered_texts", []))
    current = module.state_dict()
    left_out = {name: current[name] for name in frozen["audio"] | frozen["text"]}
    checkpoint["state_dict"] = left_out | checkpoint["state_dict"]


def frozen_names(module: AlignmentModule) -> dict[str, set[str]]:
    """By side the tensors of the state dict that a frozen tower's own files hold."""
    found: dict[str, set[str]] = {}
    for side in _SIDES:
        tower = getattr(module.network, side)
        homes = (f"network.{side}.", f"key_encoder.network.{side}.")
        prefixes = tuple(home + prefix for home in homes for prefix in tower.asset_prefixes) if tower.frozen else ()
        found[side] = {name for name in module.state_dict() if prefixes and name.startswith(prefixes)}
    return found


def digest_frozen(module: AlignmentModule) -> dict[str, str | None]:
    """By side a name of those tensors; None where there are none."""
    state = module.state_dict()
    named = frozen_names(module)
    return {
        side: tensors_digest({name: state[name] for name in named[side]}) if named[side] else None for side in named
    }
