"""Trains the packaged model and writes it with its metadata; the same data gives the same bytes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from trimtab_classifier import features, graph, network, sources, structure, synthetic, tfidf
from trimtab_classifier.examples import Example, bucket
from trimtab_classifier.labels import AGENTIC, CLASSES
from trimtab_classifier.network import Inputs, Parameters, Recipe, Targets

Floats = NDArray[np.float32]
VERSION: Final = "1"
TEXT_CLASSES: Final = tuple(name for name in CLASSES if name != CLASSES[AGENTIC])
_SAMPLES: Final = 5
_HELD_OUT: Final = 10


@dataclass(frozen=True, slots=True)
class Trained:
    """A model and what its held-out tenth says about it."""

    model: bytes
    metadata: dict[str, Any]


def targets(examples: Sequence[Example]) -> Targets:
    """The targets of the heads."""
    lengths = np.full((len(examples), _SAMPLES), np.nan, np.float32)
    for row, example in enumerate(examples):
        logs = [np.log(max(tokens, 1.0)) for tokens in example.tokens[:_SAMPLES]]
        lengths[row, : len(logs)] = logs
    return Targets(
        label=np.array([TEXT_CLASSES.index(e.label) if e.label else -1 for e in examples], np.intp),
        gain=np.array([np.nan if e.gain is None else e.gain for e in examples], np.float32),
        lengths=lengths,
        weight=np.array([e.weight for e in examples], np.float32),
    )


def expected_calibration_error(probabilities: Floats, label: NDArray[np.intp], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == label
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in set(place)]
    return float(sum(gaps))


def temperature(logits: Floats, label: NDArray[np.intp]) -> float:
    """The temperature with the least negative log likelihood, from a fixed grid."""
    grid = np.exp(np.linspace(np.log(0.5), np.log(5.0), 93))
    rows = np.arange(len(label))
    losses = [-np.log(network.softmax(logits / np.float32(t))[rows, label] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])


def energy(logits: Floats) -> Floats:
    """Free energy of the class logits: high for a query that no class claims (Liu et al., 2020)."""
    top = logits.max(axis=1)
    return np.asarray(-(top + np.log(np.exp(logits - top[:, None]).sum(axis=1))), np.float32)


def _weights(parameters: Parameters, idf: Floats, heat: float, knots: Floats) -> graph.Weights:
    table, scale = graph.quantize(parameters.table)
    return graph.Weights(
        idf=idf,
        table=table,
        table_scale=scale,
        dense_weights=parameters.dense_weights,
        bias=parameters.hidden_bias,
        hidden=parameters.table.shape[1],
        out_weights=parameters.out_weights,
        out_bias=parameters.out_bias,
        classes=len(TEXT_CLASSES),
        temperature=heat,
        tools_column=structure.NAMES.index("tools"),
        knots=knots,
    )


def fit(examples: Sequence[Example], recipe: Recipe | None = None) -> Trained:
    """Trains on nine tenths and calibrates on the last; raises ValueError when either part is empty."""
    recipe = recipe or Recipe()
    raw = tfidf.encode_rows([example.query for example in examples])
    goal = targets(examples)
    place = np.array([bucket(example.query.text, _HELD_OUT, "calibration") for example in examples])
    learn, held = np.flatnonzero(place != 0), np.flatnonzero(place == 0)
    if not len(learn) or not len(held):
        raise ValueError(f"{len(examples)} examples are too few to train and to calibrate; give more rows")
    idf = tfidf.inverse_frequency(raw.tokens[learn])
    inputs = Inputs(tfidf.weigh(raw.tokens, idf), raw.dense)
    parameters = network.train(inputs.take(learn), goal.take(learn), len(TEXT_CLASSES), recipe)
    logits = network.outputs(parameters, inputs.take(held))[:, : len(TEXT_CLASSES)]
    label = goal.label[held]
    heat = temperature(logits, label)
    knots = np.quantile(energy(logits), np.linspace(0, 1, 101)).astype(np.float32)
    probabilities = network.softmax(logits / np.float32(heat))
    figures = {
        "held_out_rows": len(held),
        "class_accuracy": round(float((probabilities.argmax(axis=1) == label).mean()), 4),
        "class_ece": round(expected_calibration_error(probabilities, label), 4),
        "temperature": round(heat, 4),
    }
    model = graph.build(_weights(parameters, idf, heat, knots))
    return Trained(model, {"figures": figures, "rows": len(examples)})


def describe(trained: Trained, command: str) -> dict[str, Any]:
    """The metadata that is packaged beside the model."""
    return {
        "version": VERSION,
        "sha256": hashlib.sha256(trained.model).hexdigest(),
        "bytes": len(trained.model),
        "classes": list(CLASSES),
        "inputs": {"buckets": features.BUCKETS, "dense": list(structure.NAMES)},
        "command": command,
        **trained.metadata,
    }


def run(data: Path, out: Path) -> dict[str, Any]:
    """Trains on `data`, writes the model to `out` and the metadata beside it; returns the metadata."""
    with threadpool_limits(1):
        trained = fit(sources.load(data) + synthetic.generate())
    metadata = describe(trained, f"python -m trimtab_classifier train --data DIR --out {out.name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(trained.model)
    out.with_suffix(".json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n")
    return metadata
