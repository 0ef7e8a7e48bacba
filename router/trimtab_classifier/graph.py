"""The ONNX graph of the classifier, built node by node so that the same weights give the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trimtab_classifier.linear import Linear
from trimtab_classifier.network import Parameters
from trimtab_classifier.tfidf import CLIP, Scaler

Floats = NDArray[np.float32]
OPSET: Final = 17
IR_VERSION: Final = 8
MAX_TOKENS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Familiarity:
    """What the out-of-domain score compares with."""

    centres: Floats
    energy_knots: Floats
    distance_knots: Floats
    sum_knots: Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything the graph holds."""

    scaler: Scaler
    parameters: Parameters
    class_gain: Floats
    gain: Linear
    familiarity: Familiarity
    temperature: float
    tools_column: int

    @property
    def classes(self) -> int:
        """Classes that the text decides; agentic comes after them."""
        return len(self.parameters.out_bias) - 2


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


def _unit_weights(b: _Builder, w: Weights) -> str:
    """Counts become TF-IDF weights of length one, [batch, 1, tokens]."""
    one = b.constant("one", np.float32(1))
    seen = b.add("Min", "counts", one)
    frequency = b.add("Mul", seen, b.add("Add", b.add("Log", b.add("Max", "counts", one)), one))
    weight = b.add("Mul", frequency, b.add("Gather", b.constant("idf", w.scaler.idf), "ids", axis=0))
    length = b.add("ReduceL2", weight, axes=[1], keepdims=1)
    unit = b.add("Div", weight, b.add("Max", length, b.constant("epsilon", np.float32(1e-6))))
    return b.add("Unsqueeze", unit, b.constant("axis_1", np.array([1], np.int64)))


def _pooled(b: _Builder, unit: str, name: str, table: NDArray[Any]) -> str:
    """The weighted sum of table rows, [batch, columns]."""
    rows = b.add("Gather", b.constant(name, table), "ids", axis=0)
    if table.dtype == np.int8:
        rows = b.add("Cast", rows, to=TensorProto.FLOAT)
    return b.add("Squeeze", b.add("MatMul", unit, rows), "axis_1")


def _standard(b: _Builder, w: Weights) -> str:
    """Dense features in standard deviations, clipped."""
    centred = b.add("Sub", "dense", b.constant("mean", w.scaler.mean))
    scaled = b.add("Div", centred, b.constant("scale", w.scaler.scale))
    limits = [b.constant(name, np.float32(limit)) for name, limit in (("low", -CLIP), ("high", CLIP))]
    return b.add("Clip", scaled, *limits)


def _hidden(b: _Builder, w: Weights, unit: str, standard: str) -> str:
    table, scale = quantize(w.parameters.table)
    tokens = b.add("Mul", _pooled(b, unit, "table", table), b.constant("table_scale", scale))
    weights = b.constant("dense_weights", w.parameters.dense_weights)
    dense = b.add("Gemm", standard, weights, b.constant("hidden_bias", w.parameters.hidden_bias))
    return b.add("Relu", b.add("Add", tokens, dense))


def _gain(b: _Builder, w: Weights, plain: str, unit: str, standard: str) -> str:
    frequencies = b.constant("frequencies", w.gain.frequencies)
    waves = b.add("Cos", b.add("Gemm", standard, frequencies, b.constant("phases", w.gain.phases)))
    intercept = b.constant("intercept", np.array([w.gain.intercept], np.float32))
    structure = b.add("Gemm", waves, b.constant("wave_weights", w.gain.weights[:, None]), intercept)
    of_class = b.add("MatMul", plain, b.constant("class_gain", w.class_gain[:, None]))
    of_text = b.add("Add", structure, _pooled(b, unit, "gain_table", w.gain.table[:, None]))
    total = b.add("Add", of_class, of_text)
    limited = b.add("Clip", total, b.constant("minus_one", np.float32(-1)), "one")
    return b.add("Squeeze", limited, "axis_1")


def _slice(b: _Builder, source: str, name: str, start: int, stop: int) -> str:
    """Columns start..stop."""
    bounds = [b.constant(f"{name}_{edge}", np.array([at], np.int64)) for edge, at in (("from", start), ("to", stop))]
    axis = b.constant(f"{name}_axis", np.array([1], np.int64))
    return b.add("Slice", source, *bounds, axis)


def _class_probabilities(b: _Builder, w: Weights, plain: str) -> str:
    """A request that offers tools is agentic, which is the last class, and no other is."""
    tools = _slice(b, "dense", "tools", w.tools_column, w.tools_column + 1)
    return b.add("Concat", b.add("Mul", plain, b.add("Sub", "one", tools)), tools, axis=1)


def _percentile(b: _Builder, name: str, raw: str, knots: Floats, keepdims: int = 1) -> str:
    """`familiarity.percentile` as nodes."""
    widths = np.maximum(np.diff(knots), np.float32(1e-6)).astype(np.float32)
    above = b.add("Sub", raw, b.constant(f"{name}_knots", knots[:-1][None, :]))
    ramps = b.add("Div", above, b.constant(f"{name}_widths", widths[None, :]))
    return b.add("ReduceMean", b.add("Clip", ramps, "zero", "one"), axes=[1], keepdims=keepdims)


def _distance(b: _Builder, hidden: str, centres: Floats) -> str:
    """`familiarity.distance` as nodes, [batch, 1]."""
    own = b.add("ReduceSumSquare", hidden, axes=[1], keepdims=1)
    minus_twice = b.constant("centres", np.ascontiguousarray(-2 * centres.T))
    cross = b.add("Gemm", hidden, minus_twice, b.constant("centre_norms", (centres * centres).sum(axis=1)))
    squared = b.add("Max", b.add("Add", own, cross), "zero")
    return b.add("Sqrt", b.add("ReduceMin", squared, axes=[1], keepdims=1))


def _out_of_domain(b: _Builder, w: Weights, hidden: str, logits: str) -> str:
    f = w.familiarity
    b.constant("zero", np.float32(0))
    energy = b.add("Neg", b.add("ReduceLogSumExp", logits, axes=[1], keepdims=1))
    parts = (
        _percentile(b, "energy", energy, f.energy_knots),
        _percentile(b, "distance", _distance(b, hidden, f.centres), f.distance_knots),
    )
    return _percentile(b, "sum", b.add("Add", *parts), f.sum_knots, keepdims=0)


def _lengths(b: _Builder, raw: str, classes: int) -> str:
    """Median and 90 % length in tokens; the upper one is never below the median."""
    logs = _slice(b, raw, "lengths", classes, classes + 2)
    limits = [b.constant(name, np.float32(np.log(limit))) for name, limit in (("log_min", 1), ("log_max", MAX_TOKENS))]
    median = _slice(b, logs, "median", 0, 1)
    return b.add("Exp", b.add("Clip", b.add("Max", logs, median), *limits))


def build(w: Weights) -> bytes:
    """The serialized model."""
    b = _Builder()
    unit, standard = _unit_weights(b, w), _standard(b, w)
    hidden = _hidden(b, w, unit, standard)
    out_bias = b.constant("out_bias", w.parameters.out_bias)
    raw = b.add("Gemm", hidden, b.constant("out_weights", w.parameters.out_weights), out_bias)
    logits = _slice(b, raw, "logits", 0, w.classes)
    plain = b.add("Softmax", b.add("Div", logits, b.constant("temperature", np.float32(w.temperature))), axis=1)
    b.output("class_probabilities", _class_probabilities(b, w, plain))
    b.output("gain", _gain(b, w, plain, unit, standard))
    b.output("output_tokens", _lengths(b, raw, w.classes))
    b.output("out_of_domain", _out_of_domain(b, w, hidden, logits))
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
        _value("dense", TensorProto.FLOAT, ("batch", len(w.scaler.mean))),
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
