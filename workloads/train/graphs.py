"""The networks as ONNX graphs (opset 17), in float32 and, where ONNX Runtime has the kernels, in float64.

Initialisers are declared as external data; `workloads.ort` supplies them from the weight file at load, so that
weights exist once on disk and graphs stay a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from workloads.forward import EPSILON

Tensors = Mapping[str, NDArray[np.float32]]


class Builder:
    """Adds nodes one by one; every method returns the name of its result."""

    def __init__(self, tensors: Tensors, dtype: type[np.floating]) -> None:
        self.tensors, self.dtype = tensors, np.dtype(dtype)
        self.elements = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.used: set[str] = set()

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """One node; with more outputs their names are the result plus `_0`, `_1`..."""
        name = f"n{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return name

    def constant(self, value: object, dtype: Any = None) -> str:
        """A small constant inside the graph."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype or self.dtype), name))
        return name

    def whole(self, *values: int) -> str:
        """A constant i8 vector."""
        return self.constant(values, np.int64)

    def weight(self, name: str) -> str:
        """A tensor of the weight file."""
        self.used.add(name)
        return name

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def layer_norm(self, name: str, x: str) -> str:
        scale, shift = self.weight(name + ".weight"), self.weight(name + ".bias")
        return self.op("LayerNormalization", x, scale, shift, epsilon=EPSILON)

    def product(self, x: str, name: str) -> str:
        return self.op("MatMul", x, self.weight(name))

    def dense(self, name: str, x: str) -> str:
        return self.op("Add", self.product(x, name + ".weight"), self.weight(name + ".bias"))

    def finish(self, inputs: dict[str, tuple[int, list[str | int]]], outputs: dict[str, str]) -> bytes:
        """The serialised graph; `outputs` maps public names to results."""
        for public, result in outputs.items():
            self.nodes.append(helper.make_node("Identity", [result], [public]))
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(name, self.elements, None) for name in outputs],
            [*self.constants, *(self._external(name) for name in sorted(self.used))],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return bytes(model.SerializeToString(deterministic=True))

    def _external(self, name: str) -> onnx.TensorProto:
        tensor = TensorProto(name=name, data_type=self.elements, dims=self.tensors[name].shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.safetensors")
        return tensor


def build(model: str, config: Mapping[str, int], tensors: Tensors) -> dict[str, bytes]:
    """The graph files of a model by name."""
    if model == "image":
        return {"graph.onnx": image(config, Builder(tensors, np.float32))}
    make = {"text": text, "embed": embed}[model]
    return {
        "graph.onnx": make(config, Builder(tensors, np.float32)),
        "graph64.onnx": make(config, Builder(tensors, np.float64)),
    }


def _rotate(g: Builder, x: str) -> str:
    half = g.op("Split", x, outputs=2, axis=-1)
    a, b = half + "_0", half + "_1"
    first = g.op("Sub", g.op("Mul", a, "cos"), g.op("Mul", b, "sin"))
    return g.op("Concat", first, g.op("Add", g.op("Mul", b, "cos"), g.op("Mul", a, "sin")), axis=-1)


def _text_block(
    g: Builder, config: Mapping[str, int], name: str, x: str, past: tuple[str, str]
) -> tuple[str, str, str]:
    heads, width = config["heads"], config["width"]
    qkv = g.product(g.layer_norm(name + "norm1", x), name + "qkv.weight")
    parts = g.op("Split", g.op("Reshape", qkv, g.whole(0, 0, 3 * heads, width // heads)), outputs=3, axis=2)
    q, k, v = (g.op("Transpose", f"{parts}_{i}", perm=[0, 2, 1, 3]) for i in range(3))
    k = g.op("Concat", past[0], _rotate(g, k), axis=2)
    v = g.op("Concat", past[1], v, axis=2)
    scores = g.op("MatMul", _rotate(g, q), g.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g.op("Add", g.op("Mul", scores, g.constant((width // heads) ** -0.5)), "mask")
    y = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    x = g.op("Add", x, g.product(g.op("Reshape", y, g.whole(0, 0, width)), name + "out.weight"))
    up = g.silu(g.product(g.layer_norm(name + "norm2", x), name + "up.weight"))
    return g.op("Add", x, g.product(up, name + "down.weight")), k, v


def text(config: Mapping[str, int], g: Builder) -> bytes:
    """tokens, cos, sin, mask, past -> logits, hidden, present (shapes: `workloads.forward.TextNetwork`)."""
    layers, heads = config["layers"], config["heads"]
    x = g.op("Gather", g.weight("embed.weight"), "tokens", axis=0)
    past = g.op("Split", "past", outputs=2 * layers, axis=0)
    present = []
    for layer in range(layers):
        earlier = [g.op("Squeeze", f"{past}_{2 * layer + i}", g.whole(0)) for i in range(2)]
        x, key, value = _text_block(g, config, f"blocks.{layer}.", x, (earlier[0], earlier[1]))
        present += [g.op("Unsqueeze", part, g.whole(0)) for part in (key, value)]
    x = g.layer_norm("norm", x)
    logits = g.op("MatMul", x, g.op("Transpose", "embed.weight", perm=[1, 0]))
    outputs = {"logits": logits, "hidden": x, "present": g.op("Concat", *present, axis=0)}
    size = config["width"] // heads
    inputs: dict[str, tuple[int, list[str | int]]] = {
        "tokens": (TensorProto.INT64, ["b", "t"]),
        "cos": (g.elements, ["t", size // 2]),
        "sin": (g.elements, ["t", size // 2]),
        "mask": (g.elements, ["t", "s"]),
        "past": (g.elements, [2 * layers, "b", heads, "p", size]),
    }
    return g.finish(inputs, outputs)


def embed(config: Mapping[str, int], g: Builder) -> bytes:
    """features -> vectors (shapes: `workloads.forward.EmbedNetwork`)."""
    x = g.layer_norm("norm", g.product("features", "table.weight"))
    x = g.op("Add", x, g.dense("down", g.silu(g.dense("up", x))))
    length = g.op("Sqrt", g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1))
    scale = g.constant(config["width"] ** 0.5)
    return g.finish(
        {"features": (g.elements, ["n", config["buckets"]])}, {"vectors": g.op("Div", x, g.op("Mul", length, scale))}
    )


def _group_norm(g: Builder, config: Mapping[str, int], name: str, x: str) -> str:
    groups = config["groups"]
    channels = g.tensors[name + ".weight"].shape[0]
    grouped = g.op("Reshape", x, g.whole(0, groups, -1))
    ones, zeros = g.constant([1.0] * groups), g.constant([0.0] * groups)
    y = g.op("InstanceNormalization", grouped, ones, zeros, epsilon=EPSILON)
    y = g.op("Reshape", y, g.op("Shape", x))
    scale, shift = (g.op("Reshape", g.weight(name + end), g.whole(channels, 1, 1)) for end in (".weight", ".bias"))
    return g.op("Add", g.op("Mul", y, scale), shift)


def _conv(g: Builder, name: str, x: str, stride: int = 1) -> str:
    size = g.tensors[name + ".weight"].shape[2]
    return g.op(
        "Conv",
        x,
        g.weight(name + ".weight"),
        g.weight(name + ".bias"),
        kernel_shape=[size, size],
        pads=[size // 2] * 4,
        strides=[stride, stride],
    )


def _res(g: Builder, config: Mapping[str, int], name: str, x: str, c: str) -> str:
    y = _conv(g, name + ".conv1", g.silu(_group_norm(g, config, name + ".norm1", x)))
    y = g.op("Add", y, g.op("Unsqueeze", g.dense(name + ".cond", c), g.whole(2, 3)))
    y = _conv(g, name + ".conv2", g.silu(_group_norm(g, config, name + ".norm2", y)))
    return g.op("Add", _conv(g, name + ".skip", x) if name + ".skip.weight" in g.tensors else x, y)


def _double(g: Builder, x: str) -> str:
    scales = g.constant([1.0, 1.0, 2.0, 2.0], np.float32)
    modes: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return g.op("Resize", x, "", scales, **modes)


def image(config: Mapping[str, int], g: Builder) -> bytes:
    """x, features -> v (shapes: `workloads.forward.ImageNetwork`)."""
    c = g.silu(g.dense("cond2", g.silu(g.dense("cond1", "features"))))
    h1 = _res(g, config, "res1", _conv(g, "head", g.op("Unsqueeze", "x", g.whole(1))), c)
    h2 = _res(g, config, "res2", _conv(g, "down1", h1, 2), c)
    y = _res(g, config, "res3", _conv(g, "down2", h2, 2), c)
    y = _double(g, _res(g, config, "res4", y, c))
    y = _double(g, _res(g, config, "res5", g.op("Concat", y, h2, axis=1), c))
    y = _res(g, config, "res6", g.op("Concat", y, h1, axis=1), c)
    v = g.op("Squeeze", _conv(g, "tail", g.silu(_group_norm(g, config, "norm", y))), g.whole(1))
    inputs: dict[str, tuple[int, list[str | int]]] = {
        "x": (g.elements, ["n", config["height"], config["width"]]),
        "features": (g.elements, ["n", config["features"]]),
    }
    return g.finish(inputs, {"v": v})
