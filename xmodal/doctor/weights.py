"""The checks of a model's weights: is everything there, finite, and has it been trained?"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from scipy.stats import ks_2samp
from torch import Tensor, nn

from xmodal.configurable import instantiate
from xmodal.doctor.findings import Finding, judge, not_judged
from xmodal.errors import ModelError
from xmodal.losses.numerics import MAX_LOG_SCALE
from xmodal.model import WEIGHTS_FILE, TwoTower, build_described, read_description

PARTS = ("audio", "text", "audio_projection", "text_projection")
_NAMED = 5
_SAMPLED = 20_000
# A fresh tensor of the same law falls below this once in ten thousand; training moves a small one far beyond it.
_SAME_LAW = 1e-4
_FEWEST = 32


def examine_file(folder: str | Path, *, trust: bool = False) -> Finding:
    """Compare the names and shapes in a model folder's weights with what its config makes, without loading it.

    Raises:
        ModelError: If the folder has no readable config or weights.
    """
    folder = Path(folder)
    expected = build_described(folder, read_description(folder), trust=trust)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); copy the model folder again") from error
    assets = _in_assets(expected)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in expected.state_dict().items()
        if not (assets and name.startswith(assets))
    }
    missing, unexpected = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
    other = sorted(name for name in shapes.keys() & found.keys() if shapes[name] != found[name])
    detail = (
        f"{len(missing)} weights are missing, {len(unexpected)} are not of this model, {len(other)} of another shape"
    )
    named = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    named += [f"{name} {found[name]} instead of {shapes[name]}" for name in other]
    return judge("weights file", "model", float(len(named)), detail, named[:_NAMED])


def examine_weights(model: TwoTower) -> list[Finding]:
    """Look for weights that are not finite, and for parts that are as their constructor made them.

    A part counts as untrained where nothing speaks for training: its constant parameters (gains of one, biases of
    zero) and statistics are exactly as made, and the values of its other parameters have the distribution of a fresh
    part's (two-sample Kolmogorov-Smirnov test). What a text tower brings of its own, pretrained, is left out.
    """
    broken = [name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    found = [judge("finite", "weights", float(len(broken)), f"{len(broken)} weights are not finite", broken[:_NAMED])]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = _fresh(model)
        torch.manual_seed(1)
        other = _fresh(model)
    skipped = _in_assets(model)
    for part in PARTS:
        names = [
            name
            for name, value in model.state_dict().items()
            if name.startswith(f"{part}.")
            and not (skipped and name.startswith(skipped))
            and value.is_floating_point()
            and _is_learned(model, name)
        ]
        found.append(_untrained(part, names, model.state_dict(), fresh.state_dict(), other.state_dict()))
    return found


def examine_scales(state: Mapping[str, Tensor]) -> list[Finding]:
    """Look at every learned logit scale (``*.log_scale``) of a training state.

    Args:
        state: A module's state dict, for instance a checkpoint's.
    """
    found = []
    for name, value in state.items():
        if name.rpartition(".")[2] == "log_scale" and value.numel() == 1:
            scale = math.exp(min(float(value), MAX_LOG_SCALE))
            share = scale / math.exp(MAX_LOG_SCALE)
            detail = f"logit scale {scale:.1f} of at most {math.exp(MAX_LOG_SCALE):.0f} (temperature {1 / scale:.3f})"
            found.append(judge("temperature", name.rpartition(".")[0], share, detail))
    return found


def _untrained(
    part: str, names: list[str], state: Mapping[str, Tensor], fresh: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> Finding:
    if not names:
        return not_judged("untrained weights", part, "it has no weights of its own")
    as_made: list[str] = []
    moved: list[str] = []
    for name in names:
        if torch.equal(fresh[name], other[name]):  # a constant at the start
            same = torch.equal(state[name].cpu(), fresh[name])
        elif state[name].numel() < _FEWEST:
            continue
        else:
            same = _same_law(state[name], fresh[name])
        (as_made if same else moved).append(name)
    if not as_made and not moved:
        return not_judged("untrained weights", part, "its weights are too few to tell trained from fresh ones")
    detail = f"{len(as_made)} of {len(as_made) + len(moved)} weights look as they were made"
    # Constants that training left alone (an embedding's padding, a gain without gradient) are named, but only a part
    # in which nothing moved is untrained.
    figure = 0.0 if moved else 1.0
    return judge("untrained weights", part, figure, detail, as_made[:_NAMED] if figure else ())


def _same_law(values: Tensor, fresh: Tensor) -> bool:
    one, two = (_sampled(each) for each in (values, fresh))
    return bool(torch.isfinite(one).all()) and float(ks_2samp(one.numpy(), two.numpy()).pvalue) > _SAME_LAW


def _sampled(values: Tensor) -> Tensor:
    flat = values.detach().float().cpu().flatten()
    return flat[:: max(1, math.ceil(len(flat) / _SAMPLED))]


def _is_learned(model: nn.Module, name: str) -> bool:
    """Parameters and batch statistics; a front end's window or filter bank is fixed."""
    parameters = dict(model.named_parameters())
    if name in parameters:
        return parameters[name].requires_grad or name.rpartition(".")[2] in ("weight", "bias")
    return name.endswith(("running_mean", "running_var"))


def _fresh(model: TwoTower) -> TwoTower:
    config = copy.deepcopy(model.config)
    made = instantiate(config, trust=True)  # the classes are those of a model that is already in memory
    assert isinstance(made, TwoTower)
    return made


def _in_assets(model: TwoTower) -> tuple[str, ...]:
    """Prefixes of what towers bring of their own: pretrained, and in folders beside the weights."""
    sides = (("audio", model.audio.asset_prefixes), ("text", model.text.asset_prefixes))
    return tuple(f"{side}.{prefix}" for side, prefixes in sides for prefix in prefixes)
