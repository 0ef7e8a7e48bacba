"""Level of a MATH problem from its text: levels 4 and 5 against 1 and 2."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, rivals
from trimtab_classifier.evaluation.learners import Fitted, class_table, encode
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, load
from trimtab_classifier.linear import Ridge

FILES: Final = ("math/math_test_levels.jsonl",)
RIDGE: Final = Ridge(structure=0.3, tokens=1.0, features=512, rounds=5)
OURS: Final = "trimtab"
_BASELINE_PENALTY: Final = 1.0


SUBJECT: Final = "class table"


def _scores(fitted: Fitted, level: NDArray[np.float64], subject: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Predicted level of the judged rows by method."""
    embedded, taught = rivals.Embedded.of(fitted), level[fitted.learn, None]
    classes = int(subject.max()) + 1
    table = class_table(subject[fitted.learn], taught, classes)
    return {
        OURS: fitted.regression(level, RIDGE),
        SUBJECT: np.asarray(fitted.posterior(subject, classes) @ table, np.float64)[:, 0],
        "TF-IDF": fitted.tokens_only(level, _BASELINE_PENALTY),
        rivals.SIMILARITY: embedded.similarity(taught)[:, 0],
        rivals.FACTORS: embedded.factorised(taught)[:, 0],
        rivals.CLUSTERS: embedded.clusters(taught)[:, 0],
    }


def run(folders: Folders) -> list[Result]:
    """AUC of hard against easy."""
    table = load(folders, FILES, "problem")
    if table is None:
        return []
    raw = encode(table.texts)
    level = table.column(lambda row: int(row["level"])).astype(np.float64)
    _, subject = np.unique(table.column(lambda row: str(row.get("subject", ""))), return_inverse=True)
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for split in table.splits:
        for method, found in _scores(Fitted.of(raw, split.learn, split.judge), level, subject).items():
            parts.setdefault(method, []).append(found)
    judged = np.concatenate([split.judge for split in table.splits])
    told = level[judged] != 3
    judged, hard = judged[told], level[judged[told]] >= 4
    scores = {method: np.concatenate(part)[told] for method, part in parts.items()}
    scores["prompt length"] = np.array([float(len(table.texts[row])) for row in judged])
    value = {method: curves.auc(score, hard) for method, score in scores.items()}
    ours = scores[OURS]
    low, high = curves.interval(lambda rows: curves.auc(ours[rows], hard[rows]), len(judged))
    baselines = {"random": 0.5} | {method: found for method, found in value.items() if method != OURS}
    lines = {method: curves.roc(score, hard) for method, score in scores.items()}
    picture = curves.Picture("easy problems taken for hard", "hard problems found", lines)
    return [Result("math.level.auc", value[OURS], low, high, len(judged), baselines, 0.86, picture=picture)]
