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
from trimtab_classifier.graph import CLIP, Familiarity
from trimtab_classifier.labels import AGENTIC, CLASSES
from trimtab_classifier.linear import Linear
from trimtab_classifier.network import Inputs, Parameters, Recipe, Targets

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

VERSION: Final = "1"
TEXT_CLASSES: Final = tuple(name for name in CLASSES if name != CLASSES[AGENTIC])
_SAMPLES: Final = 5
_HELD_OUT: Final = 10
_MIN_SCALE: Final = np.float32(0.01)
_PRIOR_WEIGHT: Final = 0.3


@dataclass(frozen=True, slots=True)
class Prepared:
    """Examples as arrays, dense features in standard deviations."""

    inputs: Inputs
    targets: Targets
    gain: Floats
    """NaN where unknown."""
    gain_weight: Floats
    idf: Floats
    mean: Floats
    scale: Floats


@dataclass(frozen=True, slots=True)
class Model:
    """The trained parts."""

    parameters: Parameters
    gain: Linear
    familiarity: Familiarity
    temperature: float


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
    idf = tfidf.inverse_frequency(raw.tokens[learn])
    mean, scale = raw.dense[learn].mean(axis=0), raw.dense[learn].std(axis=0) + _MIN_SCALE
    dense = np.clip((raw.dense - mean) / scale, -CLIP, CLIP)
    return Prepared(
        inputs=Inputs(tfidf.weigh(raw.tokens, idf), dense),
        targets=targets(examples),
        gain=np.array([np.nan if e.gain is None else e.gain for e in examples], np.float32),
        gain_weight=np.array([_PRIOR_WEIGHT if e.source == synthetic.SOURCE else 1.0 for e in examples], np.float32),
        idf=idf,
        mean=mean,
        scale=scale,
    )


def _familiarity(hidden: Floats, held_hidden: Floats, held_logits: Floats, seed: int) -> Familiarity:
    """Clusters of the training rows; percentiles of the rows that were held out."""
    centres = familiarity.clusters(hidden, seed)
    energy, distance = familiarity.energy(held_logits), familiarity.distance(held_hidden, centres)
    energy_knots, distance_knots = familiarity.knots(energy), familiarity.knots(distance)
    total = familiarity.percentile(energy, energy_knots) + familiarity.percentile(distance, distance_knots)
    return Familiarity(centres, energy_knots, distance_knots, familiarity.knots(total))


def fit(prepared: Prepared, learn: Rows, held: Rows, recipe: Recipe | None = None) -> Model:
    """Trains on the rows in `learn`, calibrates on those in `held`."""
    recipe = recipe or Recipe()
    inputs, held_inputs = prepared.inputs.take(learn), prepared.inputs.take(held)
    parameters = network.train(inputs, prepared.targets.take(learn), len(TEXT_CLASSES), recipe)
    logits = network.outputs(parameters, held_inputs)[:, : len(TEXT_CLASSES)]
    known = learn[~np.isnan(prepared.gain[learn])]
    gained = prepared.inputs.take(known)
    return Model(
        parameters=parameters,
        gain=linear.fit(gained.tokens, gained.dense, prepared.gain[known], prepared.gain_weight[known]),
        familiarity=_familiarity(
            network.hidden(parameters, inputs), network.hidden(parameters, held_inputs), logits, recipe.seed
        ),
        temperature=metrics.temperature(logits, prepared.targets.label[held]),
    )


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
    logits = network.outputs(model.parameters, inputs)[:, : len(TEXT_CLASSES)]
    probabilities = network.softmax(logits / np.float32(model.temperature))
    right = probabilities.argmax(axis=1) == label
    gain, truth = model.gain.predict(inputs.tokens, inputs.dense), prepared.gain[held]
    labelled = np.array([examples[row].source != synthetic.SOURCE for row in held])
    measured = labelled & ~np.isnan(truth)
    return {
        "held_out_rows": len(held),
        "class_accuracy": round(float(right.mean()), 4),
        "class_accuracy_labelled_sources": round(float(right[labelled].mean()), 4) if labelled.any() else None,
        "class_accuracy_unseen_templates": round(float(right[~labelled].mean()), 4) if (~labelled).any() else None,
        "class_ece": round(metrics.expected_calibration_error(probabilities, label), 4),
        "gain_correlation": metrics.correlation(gain[measured], truth[measured]),
        "temperature": round(model.temperature, 4),
    }


def export(prepared: Prepared, model: Model) -> bytes:
    """The ONNX file."""
    return graph.build(
        graph.Weights(
            idf=prepared.idf,
            mean=prepared.mean,
            scale=prepared.scale,
            parameters=model.parameters,
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


def run(data: Path, out: Path) -> dict[str, Any]:
    """Trains on `data`, writes the model to `out` and the metadata beside it; returns the metadata."""
    command = f"python -m trimtab_classifier train --data DIR --out {out.name}"
    exported, metadata = train(sources.load(data) + synthetic.generate(), command)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(exported)
    out.with_suffix(".json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n")
    return metadata
