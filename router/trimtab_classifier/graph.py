"""The ONNX graph of the classifier, built node by node so that the same weights give the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
OPSET: Final = 17
IR_VERSION: Final = 8


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything the graph holds. `hidden` columns of the table are rectified, the others reach `linear` as they are."""

    idf: Floats
    table: NDArray[np.int8]
    table_scale: Floats
    dense_weights: Floats
    bias: Floats
    hidden: int
    out_weights: Floats
    out_bias: Floats
    classes: int
    temperature: float
    tools_column: int
    knots: Floats
    """Raw unfamiliarity at evenly spaced percentiles of the training data, ascending."""


@dataclass(slots=True)
class _Builder:
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node and returns the name of its output."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        """Stores an initializer and returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def output(self, name: str, source: str) -> None:
        """Gives an intermediate value the name of an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [source], [name], name=name))


def _layer(b: _Builder, w: Weights) -> str:
    """The layer over hashed tokens and dense features: counts become TF-IDF weights of length one, times the table."""
    one = b.constant("one", np.float32(1))
    seen = b.add("Min", "counts", one)
    frequency = b.add("Mul", seen, b.add("Add", b.add("Log", b.add("Max", "counts", one)), one))
    weight = b.add("Mul", frequency, b.add("Gather", b.constant("idf", w.idf), "ids", axis=0))
    length = b.add("ReduceL2", weight, axes=[1], keepdims=1)
    unit = b.add("Div", weight, b.add("Max", length, b.constant("epsilon", np.float32(1e-6))))
    rows = b.add("Cast", b.add("Gather", b.constant("table", w.table), "ids", axis=0), to=TensorProto.FLOAT)
    pooled = b.add("MatMul", b.add("Unsqueeze", unit, b.constant("axis_1", np.array([1], np.int64))), rows)
    flat = b.add("Squeeze", pooled, "axis_1")
    scaled = b.add("Mul", flat, b.constant("table_scale", w.table_scale))
    dense = b.add("Gemm", "dense", b.constant("dense_weights", w.dense_weights), b.constant("bias", w.bias))
    return b.add("Add", scaled, dense)


def _slice(b: _Builder, source: str, name: str, start: int, stop: int) -> str:
    """Columns start..stop."""
    bounds = [b.constant(f"{name}_{edge}", np.array([at], np.int64)) for edge, at in (("from", start), ("to", stop))]
    axis = b.constant(f"{name}_axis", np.array([1], np.int64))
    return b.add("Slice", source, *bounds, axis)


def _class_probabilities(b: _Builder, w: Weights, logits: str) -> str:
    """Calibrated probabilities; a request that offers tools is agentic, which is the last class, and no other is."""
    temperature = b.constant("temperature", np.float32(w.temperature))
    plain = b.add("Softmax", b.add("Div", logits, temperature), axis=1)
    tools = _slice(b, "dense", "tools", w.tools_column, w.tools_column + 1)
    return b.add("Concat", b.add("Mul", plain, b.add("Sub", "one", tools)), tools, axis=1)


def _percentile(b: _Builder, w: Weights, raw: str) -> str:
    """Where the raw unfamiliarity lies among the training data: the mean of one clipped ramp per pair of knots."""
    widths = np.maximum(np.diff(w.knots), np.float32(1e-6)).astype(np.float32)
    above = b.add("Sub", raw, b.constant("knots", w.knots[:-1][None, :]))
    ramps = b.add("Div", above, b.constant("knot_widths", widths[None, :]))
    clipped = b.add("Clip", ramps, b.constant("zero", np.float32(0)), "one")
    return b.add("ReduceMean", clipped, axes=[1], keepdims=0)


def _heads(b: _Builder, w: Weights, layer: str) -> None:
    hidden = b.add("Relu", _slice(b, layer, "hidden", 0, w.hidden))
    raw = b.add("Gemm", hidden, b.constant("out_weights", w.out_weights), b.constant("out_bias", w.out_bias))
    logits = _slice(b, raw, "logits", 0, w.classes)
    b.output("class_probabilities", _class_probabilities(b, w, logits))
    gain = b.add("Squeeze", _slice(b, raw, "gain", w.classes, w.classes + 1), "axis_1")
    b.output("gain", b.add("Clip", gain, b.constant("minus_one", np.float32(-1)), "one"))
    b.output("output_tokens", b.add("Exp", _slice(b, raw, "lengths", w.classes + 1, w.classes + 3)))
    energy = b.add("Neg", b.add("ReduceLogSumExp", logits, axes=[1], keepdims=1))
    b.output("out_of_domain", _percentile(b, w, energy))


def build(w: Weights) -> bytes:
    """The serialized model."""
    b = _Builder()
    _heads(b, w, _layer(b, w))
    graph = helper.make_graph(b.nodes, "trimtab_classifier", _inputs(w), _outputs(w), initializer=b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "trimtab"
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _value(name: str, kind: int, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _inputs(w: Weights) -> list[Any]:
    return [
        _value("ids", TensorProto.INT32, ("batch", "tokens")),
        _value("counts", TensorProto.FLOAT, ("batch", "tokens")),
        _value("dense", TensorProto.FLOAT, ("batch", w.dense_weights.shape[0])),
    ]


def _outputs(w: Weights) -> list[Any]:
    return [
        _value("class_probabilities", TensorProto.FLOAT, ("batch", w.classes + 1)),
        _value("gain", TensorProto.FLOAT, ("batch",)),
        _value("output_tokens", TensorProto.FLOAT, ("batch", 2)),
        _value("out_of_domain", TensorProto.FLOAT, ("batch",)),
    ]


def quantize(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric int8 with one scale per column."""
    scale = np.maximum(np.abs(table).max(axis=0) / 127, 1e-12).astype(np.float32)
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale
