"""Several models or modes with a price each: the cheapest choice whose accuracy is that of the best single one.

Quality of every option is predicted as class table + a regression of what the class does not say, its cost by the class
table alone. The price of quality is chosen by folds inside the rows to learn from and then applied once.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves
from trimtab_classifier.evaluation.learners import Fitted, by_length, class_table
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Split, folds
from trimtab_classifier.linear import Ridge
from trimtab_classifier.network import Inputs

Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]

OURS: Final = "trimtab"
RIDGE: Final = Ridge(structure=3.0, tokens=15.0, features=256, rounds=2)
TEXT_SHARE: Final = 0.6
"""How much of the regression is added to the class table; below 1 because each option's error is part of a maximum."""
INNER_FOLDS: Final = 3
_BASELINE_PENALTY: Final = 3.0
_PRICES: Final = np.concatenate(([0.0], np.exp(np.linspace(np.log(1e-3), np.log(3.0), 120))))


@dataclass(frozen=True, slots=True)
class Problem:
    """Queries, their class, and quality and cost of every option."""

    texts: list[str]
    raw: Inputs
    label: Rows
    quality: Doubles
    cost: Doubles

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.label.max()) + 1


@dataclass(frozen=True, slots=True)
class Expected:
    """Predicted quality and cost of every option, [rows, options]."""

    quality: Doubles
    cost: Doubles


def predict(problem: Problem, split: Split) -> dict[str, Expected]:
    """Expected quality and cost by every method: ours, and the baselines that predict."""
    fitted = Fitted.of(problem.raw, split.learn, split.judge)
    label, options = problem.label[split.learn], range(problem.quality.shape[1])
    posterior = fitted.posterior(problem.label, problem.classes).astype(np.float64)
    table = class_table(label, problem.quality[split.learn], problem.classes)
    cost = posterior @ class_table(label, problem.cost[split.learn], problem.classes)
    left = problem.quality - table[problem.label]
    text = np.stack([fitted.regression(left[:, option], RIDGE) for option in options], axis=1)
    tokens = np.stack([fitted.tokens_only(problem.quality[:, option], _BASELINE_PENALTY) for option in options], axis=1)
    by_class = posterior @ table
    length = (by_length(problem.texts, y, split.learn, split.judge) for y in (problem.quality, problem.cost))
    return {
        OURS: Expected(by_class + TEXT_SHARE * text, cost),
        "prompt length": Expected(*length),
        "class table": Expected(by_class, cost),
        "TF-IDF": Expected(tokens, np.broadcast_to(problem.cost[split.learn].mean(axis=0), tokens.shape)),
    }


def choose(expected: Expected, price: float, unit: float) -> Rows:
    """The option with the best predicted quality minus price times cost in units."""
    return np.asarray((expected.quality - price * expected.cost / unit).argmax(axis=1), np.intp)


def operating_price(expected: Expected, problem: Problem, split: Split, unit: float, target: float) -> float:
    """The price of quality with the least cost on the rows to learn from that reaches `target`; 0 if none does.

    `expected` holds out-of-fold predictions for the rows to learn from, in their order.
    """
    best, found, rows = np.inf, 0.0, split.learn
    for price in _PRICES:
        option = choose(expected, float(price), unit)
        accuracy, cost = problem.quality[rows, option].mean(), problem.cost[rows, option].mean()
        if accuracy >= target and cost < best:
            best, found = cost, float(price)
    return found


def _out_of_fold(problem: Problem, split: Split) -> dict[str, Expected]:
    """Predictions for the rows to learn from, each made without its own fold."""
    found: dict[str, Expected] = {}
    for inner in folds(problem.texts, split.learn, INNER_FOLDS, "inner"):
        for method, part in predict(problem, inner).items():
            empty = Expected(np.zeros_like(problem.quality), np.zeros_like(problem.cost))
            whole = found.setdefault(method, empty)
            whole.quality[inner.judge], whole.cost[inner.judge] = part.quality, part.cost
    return {method: Expected(e.quality[split.learn], e.cost[split.learn]) for method, e in found.items()}


def route(problem: Problem, split: Split, allowance: float) -> dict[str, Rows]:
    """Options for the judged rows by every method; operating points come from folds inside the rows to learn from."""
    unit = float(problem.cost[split.learn].mean(axis=0).max())
    target = float(problem.quality[split.learn].mean(axis=0).max()) - allowance
    tuned, final = _out_of_fold(problem, split), predict(problem, split)
    prices = {method: operating_price(e, problem, split, unit, target) for method, e in tuned.items()}
    return {method: choose(final[method], price, unit) for method, price in prices.items()}


@dataclass(frozen=True, slots=True)
class Routed:
    """Quality and cost per judged row, of a router and of the best single option."""

    quality: Doubles
    cost: Doubles
    single_quality: Doubles
    single_cost: Doubles

    def share(self, rows: Rows | slice = slice(None)) -> float:
        """Cost over that of the best single option."""
        return float(self.cost[rows].sum() / self.single_cost[rows].sum())

    def difference(self, rows: Rows | slice = slice(None)) -> float:
        """Accuracy minus that of the best single option."""
        return float(self.quality[rows].mean() - self.single_quality[rows].mean())


def _routed(problem: Problem, splits: list[Split], allowance: float) -> dict[str, Routed]:
    parts: dict[str, list[tuple[Doubles, ...]]] = {}
    for split in splits:
        single = int(problem.quality[split.learn].mean(axis=0).argmax())
        judge = split.judge
        alone = (problem.quality[judge, single], problem.cost[judge, single])
        for method, option in route(problem, split, allowance).items():
            chosen = (problem.quality[judge, option], problem.cost[judge, option])
            parts.setdefault(method, []).append((*chosen, *alone))
    return {
        method: Routed(*(np.concatenate(column) for column in zip(*part, strict=True)))
        for method, part in parts.items()
    }


def random_mix(problem: Problem, judged: Rows, target: float) -> float:
    """Cost share of the cheapest blind mix of two options that reaches `target` on average; at most 1."""
    quality, cost = problem.quality[judged].mean(axis=0), problem.cost[judged].mean(axis=0)
    best = float(cost[int(quality.argmax())])
    mixes = [best]
    for low in range(len(cost)):
        for high in range(len(cost)):
            if quality[low] < target <= quality[high]:
                share = (target - quality[low]) / (quality[high] - quality[low])
                mixes.append(float(cost[low] + share * (cost[high] - cost[low])))
    return min(mixes) / best


def judge(name: str, bar: float, problem: Problem, splits: list[Split], allowance: float) -> Result:
    """Cost share of the router at the accuracy of the best single option minus `allowance`, with baselines."""
    routed = _routed(problem, splits, allowance)
    ours = routed.pop(OURS)
    judged = np.concatenate([split.judge for split in splits])
    low, high = curves.interval(ours.share, len(judged))
    target = float(ours.single_quality.mean()) - allowance
    baselines = {"best single": 1.0, "random mix": random_mix(problem, judged, target)}
    baselines |= {method: other.share() for method, other in routed.items()}
    differences = {OURS: ours.difference()} | {method: other.difference() for method, other in routed.items()}
    details = {
        "allowance": allowance,
        "accuracy_kept": ours.difference() >= -allowance,
        "accuracy_difference": differences,
        "accuracy_difference_interval": list(curves.interval(ours.difference, len(judged))),
    }
    return Result(name, ours.share(), low, high, len(judged), baselines, bar, higher=False, details=details)
