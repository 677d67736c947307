"""Models as ONNX graphs: both towers with their front end, run without torch's network code by onnxruntime.

``export_onnx`` writes a folder, ``load_onnx`` opens it as an Embedder, and ``parity`` says how far each precision is
from the model it came from.
"""

from xmodal.interop.onnx.export import PRECISIONS, export_onnx
from xmodal.interop.onnx.parity import Parity, parity
from xmodal.interop.onnx.run import OnnxModel, load_onnx

__all__ = ["PRECISIONS", "OnnxModel", "Parity", "export_onnx", "load_onnx", "parity"]
