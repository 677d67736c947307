"""Write a model as two ONNX graphs, in full or reduced precision.

A folder holds::

    onnx.json             sample rate, windows, tokenizer settings, spaces and files: all that a runner needs
    audio.fp32.onnx       waveform [windows, samples], valid_samples [windows] -> vectors [windows, dim]
    text.fp32.onnx        tokens of chunks -> vectors [texts, dim]
    tokenizer/            the tokenizer, where the text tower has one

Batch and length are free in every graph. In fp16 and int8 the front end stays in float32: half precision cannot hold
the range of a power spectrum.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmodal import __version__
from xmodal.errors import ModelError
from xmodal.interop.onnx.graphs import AudioGraph, TextGraph, text_inputs
from xmodal.interop.onnx.half import to_half
from xmodal.model import TwoTower
from xmodal.model_folder import swap_in, sync
from xmodal.towers import HashedBagOfWordsTower
from xmodal.towers.front_end import RawWaveform
from xmodal.towers.pretrained import quiet_transformers

PRECISIONS = ("fp32", "fp16", "int8")
SETTINGS_FILE = "onnx.json"
FORMAT_VERSION = 1
# What the graphs are traced with: several texts, one of them of several chunks, so that no axis looks constant.
_TRACED_TEXTS = ["slow sad piano", "fast drums and a happy banjo " * 300, "a flute"]
_AXES = {
    "input_ids": ("chunks", "tokens"),
    "attention_mask": ("chunks", "tokens"),
    "token_type_ids": ("chunks", "tokens"),
    "chunk_weight": ("chunks",),
    "belongs": ("texts", "chunks"),
    "ids": ("texts", "terms"),
}


def export_onnx(
    model: TwoTower, folder: str | Path, *, precisions: Sequence[str] = ("fp32",), overwrite: bool = False
) -> dict[str, Any]:
    """Write both towers with their front end and tokenizer; the folder appears whole under its name or not at all.

    Args:
        model: The model; it is put in evaluation mode and stays on its device.
        folder: Where to.
        precisions: Some of fp32, fp16 and int8 (dynamic quantisation of matrix products, weights in 8 bits).
        overwrite: Replace an export that is there. Nothing else is ever replaced.

    Returns:
        The settings, as in ``onnx.json``.

    Raises:
        ModelError: If the folder holds something, a tower cannot be exported, or a library is missing.
        ValueError: If a precision is unknown.
    """
    folder = Path(folder)
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        raise ValueError(f"precision must be some of {', '.join(PRECISIONS)}, got {', '.join(unknown) or 'none'}")
    if folder.exists() and any(folder.iterdir()) and not (overwrite and (folder / SETTINGS_FILE).is_file()):
        raise ModelError(
            f"{folder} holds something already; choose another folder, or overwrite an export with --force"
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(f"ONNX needs {error.name}; install it with: pip install 'xmodal[onnx]'") from error
    model = model.eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _trace_audio(model, aside / "audio.fp32.onnx")
        _trace_text(model, aside / "text.fp32.onnx")
        settings = _settings(model, aside, precisions)
        for precision in precisions:
            for side in ("audio", "text"):
                if precision != "fp32":
                    _reduce(aside / f"{side}.fp32.onnx", aside / f"{side}.{precision}.onnx", precision)
        if "fp32" not in precisions:
            for side in ("audio", "text"):
                (aside / f"{side}.fp32.onnx").unlink()
        settings["files"] = {path.name: _digest(path) for path in sorted(aside.glob("*.onnx"))}
        (aside / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        os.chmod(aside, 0o755)
        sync(aside)
        swap_in(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return settings


def _settings(model: TwoTower, aside: Path, precisions: Sequence[str]) -> dict[str, Any]:
    space_id = model.space_id()
    tower: Any = model.text
    if isinstance(tower, HashedBagOfWordsTower):
        text: dict[str, Any] = {"kind": "hashed words", "buckets": tower.buckets, "pairs": tower.pairs}
    else:
        with quiet_transformers():
            tower.tokenizer.save_pretrained(aside / "tokenizer")
        chunker = tower.chunker
        text = {
            "kind": "tokens",
            "max_tokens": chunker.max_tokens,
            "chunk_overlap": chunker.overlap,
            "prompt": tower._prompt() if hasattr(tower, "_prompt") else "",
        }
    return {
        "format_version": FORMAT_VERSION,
        "xmodal_version": __version__,
        "space_id": space_id,
        # Rounded weights make a space of their own, near to the model's but not the same.
        "spaces": {name: space_id if name == "fp32" else _other_space(space_id, name) for name in precisions},
        "dim": model.dim,
        "sample_rate": model.sample_rate,
        "windows": model.identity()["windows"],
        "pooling": model.pooling,
        "top_windows": model.top_windows,
        "audio": {
            "inputs": ["waveform", "valid_samples"],
            "padding": not isinstance(model.audio.front_end, RawWaveform),
            "shortest": model.audio.shortest,
        },
        "text": text | {"inputs": list(text_inputs(model, model.text.tokenize(["a"])))},
    }


def _other_space(space_id: str, precision: str) -> str:
    return hashlib.sha256(f"{space_id}|onnx|{precision}".encode()).hexdigest()[:16]


def _trace_audio(model: TwoTower, path: Path) -> None:
    # Long enough for every pooling to leave several frames: a size of one would be taken for a constant.
    samples = max(model.window_samples, 2 * model.audio.shortest + 1)
    waveform = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0)).to(model.device)
    # Both full: a tower that groups clips by length takes no other.
    valid = torch.full((2,), samples, device=model.device)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {"waveform": {0: dynamic, 1: dynamic}, "valid_samples": {0: dynamic}}
    _trace(AudioGraph(model), {"waveform": waveform, "valid_samples": valid}, shapes, path)


def _trace_text(model: TwoTower, path: Path) -> None:
    inputs = text_inputs(model, model.text.tokenize(_TRACED_TEXTS))
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    shapes = (tuple(dict.fromkeys(range(len(_AXES[name])), torch.export.Dim.DYNAMIC) for name in inputs),)
    _trace(TextGraph(model), inputs, shapes, path)


def _trace(graph: nn.Module, inputs: dict[str, Tensor], shapes: Any, path: Path) -> None:
    try:
        with _quiet_exporter():
            torch.onnx.export(
                graph.eval(),
                tuple(inputs.values()),
                str(path),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(inputs),
                output_names=["vectors"],
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises what it likes
        reason = _innermost(error)
        tower = type(graph.model.audio if isinstance(graph, AudioGraph) else graph.model.text).__name__  # type: ignore[union-attr]
        raise ModelError(f"{tower} cannot be exported to ONNX: {reason}") from error


def _innermost(error: BaseException) -> str:
    """The first line of what went wrong first; what is around it tells of the exporter's steps, in colour."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\x1b\[[0-9;]*m", "", first)[:300]


def _reduce(source: Path, target: Path, precision: str) -> None:
    """Half precision, or 8-bit weights, everywhere but in the front end."""
    import onnx

    graph = onnx.load(str(source))
    front_end = [node.name for node in graph.graph.node if _of_front_end(node)]
    # The traced shapes contradict what both do to the graph; who runs it infers its own.
    del graph.graph.value_info[:]
    if precision == "fp16":
        to_half(graph, front_end)
        onnx.save(graph, str(target))
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet_exporter():
        quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=front_end,
        )


def _of_front_end(node: Any) -> bool:
    """Whether a node is of a front end, or of an audio tower's own methods, where towers of others have theirs."""
    for entry in node.metadata_props:
        if entry.key.endswith("name_scopes"):
            *modules, _ = ast.literal_eval(entry.value)
            parts = {part for module in modules for part in module.split(".")}
            return modules[-1:] == ["model.audio"] or bool(parts & {"front_end", "spectrum"})
    return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes on operators of libraries that are not installed, and others' deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
