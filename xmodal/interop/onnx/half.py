"""Weights in half precision, and half-precision arithmetic where the weights are used; the rest stays float32.

Converters that turn a whole graph round put a cast to half between any two nodes, also where a power spectrum would
overflow. Nearly all bytes and all work are in convolutions, matrix products and tables, so only those change.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

_WITH_WEIGHTS = frozenset({"Conv", "MatMul", "Gemm", "Gather"})


def to_half(model: Any, keep: Collection[str]) -> None:
    """Change an ONNX model in place.

    Args:
        model: An ``onnx.ModelProto`` in float32.
        keep: Names of nodes to leave as they are.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    weights = {entry.name: entry for entry in graph.initializer if entry.data_type == TensorProto.FLOAT}
    halves: dict[str, Any] = {}
    nodes: list[Any] = []

    def half_weight(name: str) -> str:
        if name not in halves:
            values = numpy_helper.to_array(weights[name])
            limits = np.finfo(np.float16)
            rounded = values.clip(limits.min, limits.max).astype(np.float16)
            halves[name] = numpy_helper.from_array(rounded, f"{name}.half")
        return f"{name}.half"

    for number, node in enumerate(graph.node):
        heavy = [name for name in node.input if name in weights and len(weights[name].dims) >= 2]
        if node.op_type not in _WITH_WEIGHTS or node.name in keep or not heavy:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if name in weights:
                node.input[place] = half_weight(name)
            elif name and node.op_type != "Gather":  # a table's other input is the rows to take
                cast = f"{name}.half{number}"
                nodes.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT16))
                node.input[place] = cast
        out = node.output[0]
        node.output[0] = f"{out}.half"
        nodes += [node, helper.make_node("Cast", [f"{out}.half"], [out], to=TensorProto.FLOAT)]
    used = {name for node in nodes for name in node.input}
    kept = [entry for entry in graph.initializer if entry.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *halves.values()])
