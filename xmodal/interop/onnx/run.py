"""Run an exported folder with onnxruntime, behind the same Embedder as any model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xmodal.audio import WindowPolicy
from xmodal.embedder import Embedder
from xmodal.errors import ModelError
from xmodal.interop.onnx.export import FORMAT_VERSION, SETTINGS_FILE
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower
from xmodal.towers.chunks import Chunker
from xmodal.towers.front_end import by_length
from xmodal.towers.pretrained import load_part


class OnnxModel(nn.Module):
    """What an Embedder needs of a model, computed by onnxruntime on the CPU.

    Args:
        folder: What :func:`xmodal.interop.onnx.export_onnx` wrote.
        precision: fp32, fp16 or int8, if the folder has it.
        threads: Of onnxruntime; 0 for as many as cores.

    Raises:
        ModelError: If the folder is no export, is damaged, or lacks the precision.
    """

    def __init__(self, folder: str | Path, precision: str = "fp32", threads: int = 0) -> None:
        super().__init__()
        folder = Path(folder)
        try:
            self.settings = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
            version = self.settings["format_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder} holds no ONNX export ({error}); make one with: xmodal export-onnx") from error
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{folder} has format version {version} but this xmodal reads {FORMAT_VERSION}; export again"
            )
        if precision not in self.settings["spaces"]:
            raise ModelError(f"{folder} has no {precision} but {', '.join(self.settings['spaces'])}; export again")
        self.precision = precision
        self.dim = int(self.settings["dim"])
        self.sample_rate = int(self.settings["sample_rate"])
        self.windows = WindowPolicy(
            *(self.settings["windows"][name] for name in ("window_seconds", "hop_seconds", "last"))
        )
        self.pooling, self.top_windows = self.settings["pooling"], int(self.settings["top_windows"])
        self._audio = self._session(folder, f"audio.{precision}.onnx", threads)
        self._text = self._session(folder, f"text.{precision}.onnx", threads)
        text = self.settings["text"]
        self._tokenize: Any
        if text["kind"] == "hashed words":
            self._tokenize = HashedBagOfWordsTower(text["buckets"], 1, 1, text["pairs"]).tokenize
        else:
            tokenizer = load_part(str(folder / "tokenizer"), "AutoTokenizer")
            limit = int(text["max_tokens"])
            chunker = Chunker(tokenizer, str(folder), limit, limit, int(text["chunk_overlap"]))
            self._tokenize = lambda texts: chunker(texts, text["prompt"])

    def space_id(self) -> str:
        """The model's own in fp32; a space of its own in a reduced precision."""
        return str(self.settings["spaces"][self.precision])

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Stay on the CPU."""
        return self

    def embed_audio(
        self, waveform: Float[Tensor, "windows samples"], valid_samples: Int[Tensor, " windows"] | None = None
    ) -> Float[Tensor, "windows dim"]:
        """As :meth:`TwoTower.embed_audio`."""
        audio = self.settings["audio"]
        waveform = waveform.float()
        if audio["padding"]:
            valid = torch.full((len(waveform),), waveform.shape[1]) if valid_samples is None else valid_samples
            return self._hear(waveform, valid)
        return by_length(
            lambda clips: self._hear(clips, torch.full((len(clips),), clips.shape[1])),
            waveform[:, None],
            valid_samples,
            shortest=int(audio["shortest"]),
        )

    def embed_text(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """As :meth:`TwoTower.embed_text`."""
        batch = self._tokenize(texts)
        inputs: dict[str, Any] = {name: tensor for name, tensor in batch.inputs.items() if name != "chunk_weight"}
        if "chunk_weight" in batch.inputs:
            inputs["chunk_weight"] = batch.inputs["chunk_weight"].float()
            inputs["belongs"] = (batch.owner[None, :] == torch.arange(batch.count)[:, None]).float()
        wanted = {node.name for node in self._text.get_inputs()}
        feeds = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items() if name in wanted}
        return torch.from_numpy(self._text.run(None, feeds)[0])

    def _hear(self, waveform: Tensor, valid: Tensor) -> Tensor:
        wanted = {node.name for node in self._audio.get_inputs()}  # an input that a tower never reads is left out
        feeds = {"waveform": waveform.cpu().numpy(), "valid_samples": valid.cpu().long().numpy()}
        return torch.from_numpy(self._audio.run(None, {name: feeds[name] for name in wanted})[0])

    def _session(self, folder: Path, name: str, threads: int) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError("ONNX needs onnxruntime; install it with: pip install 'xmodal[onnx]'") from error
        path = folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}); copy the folder again") from error
        if hashlib.sha256(content).hexdigest() != self.settings["files"].get(name):
            raise ModelError(f"{path} was changed or damaged; copy the folder or export the model again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def load_onnx(
    folder: str | Path, precision: str = "fp32", *, threads: int = 0, batch_size: int = 32, workers: int = 2
) -> Embedder:
    """Open an export, ready to embed files and texts.

    Args:
        folder: What :func:`xmodal.interop.onnx.export_onnx` wrote.
        precision: fp32, fp16 or int8, if the folder has it.
        threads: Of onnxruntime; 0 for as many as cores.
        batch_size: Windows or texts to a run.
        workers: Decoding threads.

    Raises:
        ModelError: If the folder is no export, is damaged, or lacks the precision.
    """
    model = cast(TwoTower, OnnxModel(folder, precision, threads))
    return Embedder(model, device="cpu", batch_size=batch_size, workers=workers, source=folder)
