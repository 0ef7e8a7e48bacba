"""Trains the packaged model and writes it with its metadata; the same data gives the same bytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from trimtab_classifier import (
    familiarity,
    features,
    graph,
    linear,
    metrics,
    network,
    sources,
    structure,
    synthetic,
    tfidf,
)
from trimtab_classifier.examples import Example, part
from trimtab_classifier.graph import Familiarity
from trimtab_classifier.labels import AGENTIC, CLASSES
from trimtab_classifier.linear import Linear
from trimtab_classifier.network import Inputs, Parameters, Recipe, Targets
from trimtab_classifier.tfidf import Scaler

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

VERSION: Final = "1"
TEXT_CLASSES: Final = tuple(name for name in CLASSES if name != CLASSES[AGENTIC])
_SAMPLES: Final = 5
_HELD_OUT: Final = 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """Examples as arrays, dense features in standard deviations."""

    inputs: Inputs
    targets: Targets
    gain: Floats
    """NaN where unknown."""
    gain_weight: Floats
    scaler: Scaler


@dataclass(frozen=True, slots=True)
class Model:
    """The trained parts."""

    parameters: Parameters
    class_gain: Floats
    """Mean gain of each class; what the text says beyond its class is in `gain`."""
    gain: Linear
    familiarity: Familiarity
    temperature: float

    def probabilities(self, inputs: Inputs) -> Floats:
        """Calibrated probabilities of the classes that text decides."""
        logits = network.outputs(self.parameters, inputs)[:, : len(TEXT_CLASSES)]
        return network.softmax(logits / np.float32(self.temperature))

    def expected_gain(self, inputs: Inputs) -> Floats:
        """Gain of each row."""
        linear_part = self.gain.predict(inputs.tokens, inputs.dense)
        return np.asarray(self.probabilities(inputs) @ self.class_gain + linear_part, np.float32)


def targets(examples: Sequence[Example]) -> Targets:
    """The targets of the network."""
    lengths = np.full((len(examples), _SAMPLES), np.nan, np.float32)
    for row, example in enumerate(examples):
        logs = [np.log(max(tokens, 1.0)) for tokens in example.tokens[:_SAMPLES]]
        lengths[row, : len(logs)] = logs
    return Targets(
        label=np.array([TEXT_CLASSES.index(e.label) if e.label else -1 for e in examples], np.intp),
        lengths=lengths,
        weight=np.array([e.weight for e in examples], np.float32),
    )


def prepare(examples: Sequence[Example], learn: Rows) -> Prepared:
    """Encodes the examples; document frequencies, means and scales come from the rows in `learn` alone."""
    raw = tfidf.encode_rows([example.query for example in examples])
    scaler = Scaler.fit(raw, learn)
    weights = {source.name: source.gain_weight for source in sources.SOURCES}
    return Prepared(
        inputs=scaler.apply(raw),
        targets=targets(examples),
        gain=np.array([np.nan if e.gain is None else e.gain for e in examples], np.float32),
        gain_weight=np.array([weights.get(e.source, 1.0) for e in examples], np.float32),
        scaler=scaler,
    )


def _familiarity(hidden: Floats, held_hidden: Floats, held_logits: Floats, seed: int) -> Familiarity:
    """Clusters of the training rows; percentiles of the rows that were held out."""
    centres = familiarity.clusters(hidden, seed)
    energy, distance = familiarity.energy(held_logits), familiarity.distance(held_hidden, centres)
    energy_knots, distance_knots = familiarity.knots(energy), familiarity.knots(distance)
    total = familiarity.percentile(energy, energy_knots) + familiarity.percentile(distance, distance_knots)
    return Familiarity(centres, energy_knots, distance_knots, familiarity.knots(total))


def _class_gain(gain: Floats, weight: Floats, label: Rows) -> Floats:
    """Weighted mean gain of each class; 0 for a class without a known gain."""
    totals = np.bincount(label, weight, len(TEXT_CLASSES))
    sums = np.bincount(label, weight * gain, len(TEXT_CLASSES))
    return np.asarray(sums / np.maximum(totals, 1e-9), np.float32)


def _gain(prepared: Prepared, probabilities: Floats, known: Rows) -> tuple[Floats, Linear]:
    """The mean gain of each class, and a regression of what is left."""
    inputs, gain, weight = prepared.inputs.take(known), prepared.gain[known], prepared.gain_weight[known]
    by_class = _class_gain(gain, weight, prepared.targets.label[known])
    return by_class, linear.fit(inputs.tokens, inputs.dense, gain - probabilities[known] @ by_class, weight)


def fit(prepared: Prepared, learn: Rows, held: Rows, recipe: Recipe | None = None) -> Model:
    """Trains on the rows in `learn`, calibrates on those in `held`."""
    recipe, classes = recipe or Recipe(), len(TEXT_CLASSES)
    inputs = prepared.inputs.take(learn)
    parameters = network.train(inputs, prepared.targets.take(learn), classes, recipe)
    logits = network.outputs(parameters, prepared.inputs)[:, :classes]
    heat = metrics.temperature(logits[held], prepared.targets.label[held])
    probabilities = network.softmax(logits / np.float32(heat))
    class_gain, gain = _gain(prepared, probabilities, learn[~np.isnan(prepared.gain[learn])])
    held_hidden = network.hidden(parameters, prepared.inputs.take(held))
    seen = _familiarity(network.hidden(parameters, inputs), held_hidden, logits[held], recipe.seed)
    return Model(parameters, class_gain, gain, seen, heat)


def split(examples: Sequence[Example]) -> tuple[Rows, Rows]:
    """Rows to learn from and the tenth to calibrate on; raises ValueError when either is empty."""
    place = np.array([part(example, _HELD_OUT, "calibration") for example in examples])
    learn, held = np.flatnonzero(place != 0), np.flatnonzero(place == 0)
    if not len(learn) or not len(held):
        raise ValueError(f"{len(examples)} examples are too few to train and to calibrate; give more rows")
    return learn, held


def figures(prepared: Prepared, model: Model, held: Rows, examples: Sequence[Example]) -> dict[str, Any]:
    """What the held-out tenth says."""
    inputs, label = prepared.inputs.take(held), prepared.targets.label[held]
    probabilities = model.probabilities(inputs)
    right = probabilities.argmax(axis=1) == label
    gain, truth = model.expected_gain(inputs), prepared.gain[held]
    labelled = np.array([examples[row].source != synthetic.SOURCE for row in held])
    measured = labelled & ~np.isnan(truth)
    return {
        "held_out_rows": len(held),
        "class_accuracy": round(float(right.mean()), 4),
        "class_accuracy_labelled_sources": round(float(right[labelled].mean()), 4) if labelled.any() else None,
        "class_accuracy_unseen_templates": round(float(right[~labelled].mean()), 4) if (~labelled).any() else None,
        "class_ece": round(metrics.expected_calibration_error(probabilities, label), 4),
        "gain_correlation": metrics.correlation(gain[measured], truth[measured]),
        "class_gain": {name: round(float(g), 3) for name, g in zip(TEXT_CLASSES, model.class_gain, strict=True)},
        "temperature": round(model.temperature, 4),
    }


def export(prepared: Prepared, model: Model) -> bytes:
    """The ONNX file."""
    return graph.build(
        graph.Weights(
            scaler=prepared.scaler,
            parameters=model.parameters,
            class_gain=model.class_gain,
            gain=model.gain,
            familiarity=model.familiarity,
            temperature=model.temperature,
            tools_column=structure.NAMES.index("tools"),
        )
    )


def describe(model: bytes, command: str, examples: Sequence[Example]) -> dict[str, Any]:
    """The metadata that is packaged beside the model."""
    rows = Counter(example.source for example in examples)
    licences = {source.name: source.licence for source in sources.SOURCES} | {synthetic.SOURCE: "written for Trimtab"}
    return {
        "version": VERSION,
        "sha256": hashlib.sha256(model).hexdigest(),
        "bytes": len(model),
        "classes": list(CLASSES),
        "inputs": {"buckets": features.BUCKETS, "dense": structure.WIDTH},
        "command": command,
        "data": {name: {"rows": rows[name], "licence": licences[name]} for name in sorted(rows)},
    }


def train(examples: Sequence[Example], command: str, recipe: Recipe | None = None) -> tuple[bytes, dict[str, Any]]:
    """The ONNX file and its metadata; one thread, so that sums are added in one order."""
    with threadpool_limits(1):
        learn, held = split(examples)
        prepared = prepare(examples, learn)
        model = fit(prepared, learn, held, recipe)
        exported = export(prepared, model)
        metadata = describe(exported, command, examples)
        return exported, metadata | {"figures": figures(prepared, model, held, examples)}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `run` may be told."""

    data: Path
    out: Path
    prompts_per_class: int = synthetic.PER_CLASS
    epochs: int = Recipe().epochs


def _command(settings: Settings) -> str:
    """The command that repeats the run, for the metadata."""
    words = ["python -m trimtab_classifier train --data DIR --out", settings.out.name]
    if settings.prompts_per_class != synthetic.PER_CLASS:
        words.append(f"--prompts-per-class {settings.prompts_per_class}")
    if settings.epochs != Recipe().epochs:
        words.append(f"--epochs {settings.epochs}")
    return " ".join(words)


def run(settings: Settings) -> dict[str, Any]:
    """Trains on the folder, writes the model and the metadata beside it; returns the metadata."""
    examples = sources.load(settings.data) + synthetic.generate(per_class=settings.prompts_per_class)
    exported, metadata = train(examples, _command(settings), Recipe(epochs=settings.epochs))
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_bytes(exported)
    settings.out.with_suffix(".json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n")
    return metadata
