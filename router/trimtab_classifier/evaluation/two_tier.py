"""Weak or strong model (RouteLLM's answers to MMLU): domains seen in training, and domains that were not."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, rivals
from trimtab_classifier.evaluation.learners import Fitted, class_table, encode
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, Split, Table, load
from trimtab_classifier.examples import bucket
from trimtab_classifier.linear import Ridge
from trimtab_classifier.network import Inputs

Doubles = NDArray[np.float64]
FILES: Final = ("routellm/mmlu_responses_1.csv", "routellm/mmlu_responses_2.csv")
RIDGE: Final = Ridge(structure=30.0, tokens=20.0, features=512, rounds=2)
_BASELINE_PENALTY: Final = 10.0


def _halves(splits: list[Split], domain: NDArray[np.str_]) -> list[Split]:
    """One half of the domains teaches, the other is judged, and the other way round."""
    side = np.array([bucket(name, 2, "half") for name in domain])
    found = [
        Split(split.learn[side[split.learn] != half], split.judge[side[split.judge] == half])
        for split in splits
        for half in (0, 1)
    ]
    return [split for split in found if len(split.learn) and len(split.judge)]


def _scores(
    raw: Inputs, split: Split, weak: Doubles, strong: Doubles, domain: NDArray[np.intp], *, known: bool
) -> dict[str, Doubles]:
    """Scores of the judged rows; the table of domains is asked only where their domains are `known`."""
    fitted, gain = Fitted.of(raw, split.learn, split.judge), strong - weak
    classes = int(domain.max()) + 1
    table = class_table(domain[split.learn], gain[split.learn, None], classes, shrink=25.0)
    by_class = np.asarray(fitted.posterior(domain, classes) @ table, np.float64)[:, 0]
    regression = fitted.regression(gain, RIDGE)
    return {
        "trimtab": curves.ranks(regression) + (curves.ranks(by_class) if known else 0.0),
        "class table": by_class,
        "TF-IDF gain": fitted.tokens_only(gain, _BASELINE_PENALTY),
    } | rivals.gains(fitted, weak, strong)


def _judge(name: str, bar: float, table: Table, raw: Inputs, splits: list[Split], *, known: bool) -> Result:
    weak = table.column(lambda row: row["mixtral_correct"] == "True").astype(np.float64)
    strong = table.column(lambda row: row["gpt4_correct"] == "True").astype(np.float64)
    _, domain = np.unique(table.column(lambda row: row["domain"]), return_inverse=True)
    parts: dict[str, list[Doubles]] = {}
    for split in splits:
        scores = _scores(raw, split, weak, strong, domain, known=known)
        scores["prompt length"] = np.log1p([len(table.texts[row]) for row in split.judge])
        for method, score in scores.items():
            parts.setdefault(method, []).append(curves.ranks(score))
    judged = np.concatenate([split.judge for split in splits])
    weak, strong = weak[judged], strong[judged]
    all_scores = {method: np.concatenate(part) for method, part in parts.items()}
    value = {method: curves.apgr(score, weak, strong) for method, score in all_scores.items()}
    ours = all_scores["trimtab"]
    low, high = curves.interval(lambda rows: curves.apgr(ours[rows], weak[rows], strong[rows]), len(ours))
    baselines = {"random mix": 0.5} | {method: v for method, v in value.items() if method != "trimtab"}
    details = {"weak": float(weak.mean()), "strong": float(strong.mean())}
    lines = {method: curves.shared_curve(score, weak, strong) for method, score in all_scores.items()}
    lines["random mix"] = [(0.0, float(weak.mean())), (1.0, float(strong.mean()))]
    picture = curves.Picture("share of queries that go to the strong model", "accuracy", lines)
    return Result(name, value["trimtab"], low, high, len(ours), baselines, bar, details=details, picture=picture)


def run(folders: Folders) -> list[Result]:
    """APGR in domain and on unseen domains."""
    table = load(folders, FILES, "prompt")
    if table is None:
        return []
    raw = encode([text.removesuffix("Answer:").rstrip() for text in table.texts])
    domain = table.column(lambda row: row["domain"])
    everything = np.arange(len(table.rows))
    whole = table.splits if folders.test else [Split(everything, everything)]
    return [
        _judge("mmlu.apgr.in_domain", 0.72, table, raw, table.splits, known=True),
        _judge("mmlu.apgr.unseen_domain", 0.65, table, raw, _halves(whole, domain), known=False),
    ]
