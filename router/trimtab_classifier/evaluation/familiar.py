"""The packaged recipe itself: class of prompts from held-out questions, and prompts of sources it never saw."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier import familiarity, metrics, network, sources, synthetic, tfidf, train
from trimtab_classifier.evaluation import curves
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, Rows
from trimtab_classifier.examples import Example, bucket
from trimtab_classifier.features import Query
from trimtab_classifier.network import Inputs

Floats = NDArray[np.float32]
UNSEEN: Final[tuple[tuple[str, str], ...]] = (
    ("bbh/direct_vs_cot.jsonl", "question"),
    ("alpaca_eval/preference_matrix.csv", "instruction"),
    ("esc_last_letters/gpt35_t07.jsonl", "question"),
    ("mot_cascade/crepe_gpt-4.jsonl", "question"),
    ("mot_cascade/tabmwp_gpt-4.jsonl", "question"),
    ("routerdc/ceval.jsonl", "question"),
    ("routerdc/cmmlu_test.jsonl", "question"),
    ("routerdc/javascript.jsonl", "question"),
)
"""Sources that no packaged model learns from; read here to see whether they are flagged."""
_PER_SOURCE: Final = 400


def _judged(folders: Folders, learned: list[Example]) -> list[Example]:
    """Labelled rows of the test folder whose questions the training folder does not hold."""
    seen = {bucket(example.query.text, 1 << 62) for example in learned}
    return [e for e in sources.load(folders.test or folders.train) if bucket(e.query.text, 1 << 62) not in seen]


def _divide(folders: Folders) -> tuple[list[Example], list[Example]]:
    """Examples to learn from and to judge; without a test folder a fifth of the questions is judged."""
    everything = sources.load(folders.train)
    if folders.test is not None:
        return everything, _judged(folders, everything)
    place = [bucket(example.query.text, 5, "fold") for example in everything]
    learn = [example for example, fold in zip(everything, place, strict=True) if fold != 0]
    return learn, [example for example, fold in zip(everything, place, strict=True) if fold == 0]


def _unseen(folders: Folders) -> dict[str, list[Query]]:
    folder = folders.test or folders.train
    found: dict[str, list[Query]] = {}
    for file, column in UNSEEN:
        if (folder / file).is_file():
            texts = sorted({str(row[column]) for row in sources.rows(folder / file)}, key=lambda t: bucket(t, 1 << 62))
            found[file.split("/", maxsplit=1)[0] + "/" + file.split("/")[1].split(".")[0]] = [
                Query(text) for text in texts[:_PER_SOURCE]
            ]
    return found


def _unfamiliarity(model: train.Model, inputs: Inputs) -> NDArray[np.float64]:
    hidden = network.hidden(model.parameters, inputs)
    logits = network.outputs(model.parameters, inputs)[:, : len(train.TEXT_CLASSES)]
    f = model.familiarity
    energy = familiarity.percentile(familiarity.energy(logits), f.energy_knots)
    return np.asarray(energy + familiarity.percentile(familiarity.distance(hidden, f.centres), f.distance_knots), float)


def _confusion(predicted: Rows, label: Rows) -> dict[str, dict[str, int]]:
    names = train.TEXT_CLASSES
    table: dict[str, dict[str, int]] = {}
    for true, guess in zip(label, predicted, strict=True):
        row = table.setdefault(names[true], {})
        row[names[guess]] = row.get(names[guess], 0) + 1
    return table


def _class_result(model: train.Model, inputs: Inputs, examples: list[Example]) -> Result:
    label = train.targets(examples).label
    probabilities = model.probabilities(inputs)
    predicted = probabilities.argmax(axis=1)
    right = (predicted == label).astype(np.float64)
    low, high = curves.interval(lambda rows: float(right[rows].mean()), len(right))
    majority = float(np.bincount(label).max() / len(label))
    details: dict[str, Any] = {
        "confusion": _confusion(predicted, label),
        "expected_calibration_error": metrics.expected_calibration_error(probabilities, label),
    }
    return Result("class.accuracy", float(right.mean()), low, high, len(right), {"majority": majority}, details=details)


def _familiar_result(model: train.Model, scaler: tfidf.Scaler, known: Inputs, unseen: dict[str, list[Query]]) -> Result:
    inside = _unfamiliarity(model, known)
    outside = {name: tfidf.encode_rows(queries) for name, queries in unseen.items()}
    scores = {name: _unfamiliarity(model, scaler.apply(raw)) for name, raw in outside.items()}
    everything = np.concatenate([inside, *scores.values()])
    strange = np.arange(len(everything)) >= len(inside)
    low, high = curves.interval(lambda rows: curves.auc(everything[rows], strange[rows]), len(everything))
    single = {
        name: curves.auc(np.concatenate([inside, part]), np.arange(len(inside) + len(part)) >= len(inside))
        for name, part in scores.items()
    }
    value = curves.auc(everything, strange)
    return Result("ood.auc", value, low, high, len(everything), {"random": 0.5}, details={"by_source": single})


def run(
    folders: Folders, recipe: network.Recipe | None = None, prompts_per_class: int = synthetic.PER_CLASS
) -> list[Result]:
    """Class accuracy with the confusion table, and how well unseen sources are told from known ones."""
    learned, judged = _divide(folders)
    if not judged:
        return []
    examples = learned + synthetic.generate(per_class=prompts_per_class)
    learn, held = train.split(examples)
    prepared = train.prepare(examples, learn)
    model = train.fit(prepared, learn, held, recipe)
    inputs = prepared.scaler.apply(tfidf.encode_rows([example.query for example in judged]))
    results = [_class_result(model, inputs, judged)]
    unseen = _unseen(folders)
    return [*results, _familiar_result(model, prepared.scaler, inputs, unseen)] if unseen else results
