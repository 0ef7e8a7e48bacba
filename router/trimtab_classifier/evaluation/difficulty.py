"""Level of a MATH problem from its text: levels 4 and 5 against 1 and 2."""

from typing import Final

import numpy as np

from trimtab_classifier.evaluation import curves
from trimtab_classifier.evaluation.learners import Fitted, encode
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, load
from trimtab_classifier.linear import Ridge

FILES: Final = ("math/math_test_levels.jsonl",)
RIDGE: Final = Ridge(structure=0.3, tokens=1.0, features=512, rounds=5)
_BASELINE_PENALTY: Final = 1.0


def run(folders: Folders) -> list[Result]:
    """AUC of hard against easy."""
    table = load(folders, FILES, "problem")
    if table is None:
        return []
    raw = encode(table.texts)
    level = table.column(lambda row: int(row["level"])).astype(np.float64)
    ours, plain = np.zeros(len(level)), np.zeros(len(level))
    for split in table.splits:
        fitted = Fitted.of(raw, split.learn, split.judge)
        ours[split.judge] = fitted.regression(level, RIDGE)
        plain[split.judge] = fitted.tokens_only(level, _BASELINE_PENALTY)
    judged = np.concatenate([split.judge for split in table.splits])
    judged = judged[level[judged] != 3]
    hard, score = level[judged] >= 4, ours[judged]
    length = np.array([float(len(table.texts[row])) for row in judged])
    low, high = curves.interval(lambda rows: curves.auc(score[rows], hard[rows]), len(judged))
    baselines = {"random": 0.5, "prompt length": curves.auc(length, hard), "TF-IDF": curves.auc(plain[judged], hard)}
    return [Result("math.level.auc", curves.auc(score, hard), low, high, len(judged), baselines, 0.86)]
