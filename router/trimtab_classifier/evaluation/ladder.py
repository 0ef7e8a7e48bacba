"""Several models or modes with a price each: the cheapest choice whose accuracy is that of the best single one.

Quality and cost of every option are predicted as class table + what the text says beyond its class: for quality a
linear regression and a forest, for cost a forest. The price of quality is chosen within a budget of cost by folds
inside the rows to learn from, and then applied once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, rivals
from trimtab_classifier.evaluation.forest import Forest, grow
from trimtab_classifier.evaluation.learners import Fitted, by_length, class_table
from trimtab_classifier.evaluation.operating import Points, budget
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Split, folds
from trimtab_classifier.linear import Ridge
from trimtab_classifier.network import Inputs

Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]

OURS: Final = "trimtab"
RIDGE: Final = Ridge(structure=3.0, tokens=15.0, features=256, rounds=2)
LINEAR_SHARE: Final = 0.4
"""How much of the regression is added to the class table; below 1 because each option's error is part of a maximum."""
FOREST_SHARE: Final = 0.6
QUALITY_FOREST: Final = Forest(trees=150, leaf=8, share=0.4)
COST_FOREST: Final = Forest(trees=60, leaf=3, share=0.5)
_COST_FLOOR: Final = 0.02
"""Added to costs, in units of the dearest option's mean, before the logarithm: tiny costs need no ratio."""
INNER_FOLDS: Final = 3
_BASELINE_PENALTY: Final = 3.0
PRICES: Final = np.concatenate(([0.0], np.exp(np.linspace(np.log(1e-3), np.log(3.0), 120))))


@dataclass(frozen=True, slots=True)
class Problem:
    """Queries, their class, and quality and cost of every option."""

    texts: list[str]
    raw: Inputs
    label: Rows
    quality: Doubles
    cost: Doubles
    weight: Doubles | None = None
    """How often each row comes; all alike when absent."""

    def mean(self, values: Doubles, rows: Rows) -> Doubles:
        """Mean of `values`, one entry or line for each of `rows`, by how often they come."""
        return np.asarray(np.average(values, axis=0, weights=None if self.weight is None else self.weight[rows]))

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.label.max()) + 1


Reference = Callable[[Problem, Rows], int]
"""The single option that a router is measured against, found on the rows to learn from."""


def best_single(problem: Problem, learn: Rows) -> int:
    """The most accurate option."""
    return int(problem.mean(problem.quality[learn], learn).argmax())


def dearest(problem: Problem, learn: Rows) -> int:
    """The option with the highest price; of several the most accurate."""
    cost, quality = problem.mean(problem.cost[learn], learn), problem.mean(problem.quality[learn], learn)
    return int(np.where(cost >= cost.max() * (1 - 1e-9), quality, -np.inf).argmax())


@dataclass(frozen=True, slots=True)
class Expected:
    """Predicted quality and cost of every option, [rows, options]."""

    quality: Doubles
    cost: Doubles


def _beyond_class(fitted: Fitted, problem: Problem, by_class: Expected, learned: Expected) -> Expected:
    """What the text says of quality (to add) and of cost (to multiply) beyond the class.

    `by_class` holds the class tables' values of the judged rows, `learned` those of the rows to learn from.
    """
    learn, dense = fitted.learn, fitted.inputs.dense
    known = np.hstack([dense[learn], learned.quality, learned.cost])
    asked = np.hstack([dense[fitted.judge], by_class.quality, by_class.cost])
    floor = _COST_FLOOR * unit_cost(problem, learn)
    ratio = np.log((problem.cost[learn] + floor) / (learned.cost + floor))
    quality = grow(QUALITY_FOREST, known, problem.quality[learn] - learned.quality, asked)
    return Expected(quality, np.exp(grow(COST_FOREST, known, ratio, asked)))


def _ours(fitted: Fitted, problem: Problem, by_class: Expected, learned: Expected) -> Expected:
    beyond = _beyond_class(fitted, problem, by_class, learned)
    left = np.zeros_like(problem.quality)
    left[fitted.learn] = problem.quality[fitted.learn] - learned.quality
    linear = np.stack([fitted.regression(column, RIDGE) for column in left.T], axis=1)
    quality = by_class.quality + LINEAR_SHARE * linear + FOREST_SHARE * beyond.quality
    return Expected(quality, by_class.cost * beyond.cost)


def predict(problem: Problem, split: Split) -> dict[str, Expected]:
    """Expected quality and cost by every method: ours, and the baselines that predict."""
    fitted = Fitted.of(problem.raw, split.learn, split.judge)
    label, options = problem.label[split.learn], range(problem.quality.shape[1])
    posterior = fitted.posterior(problem.label, problem.classes).astype(np.float64)
    table = Expected(*(class_table(label, y[split.learn], problem.classes) for y in (problem.quality, problem.cost)))
    by_class = Expected(posterior @ table.quality, posterior @ table.cost)
    tokens = np.stack([fitted.tokens_only(problem.quality[:, option], _BASELINE_PENALTY) for option in options], axis=1)
    length = (by_length(problem.texts, y, split.learn, split.judge) for y in (problem.quality, problem.cost))
    published = rivals.options(fitted, problem.quality, problem.cost)
    return {
        OURS: _ours(fitted, problem, by_class, Expected(table.quality[label], table.cost[label])),
        "prompt length": Expected(*length),
        "class table": by_class,
        "TF-IDF": Expected(tokens, np.broadcast_to(problem.cost[split.learn].mean(axis=0), tokens.shape)),
    } | {method: Expected(*pair) for method, pair in published.items()}


def choose(expected: Expected, price: float, unit: float) -> Rows:
    """The option with the best predicted quality minus price times cost in units."""
    return np.asarray((expected.quality - price * expected.cost / unit).argmax(axis=1), np.intp)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a price of quality is chosen for."""

    spend: float
    """Budget of cost, over that of the reference."""
    allowance: float
    """Accuracy that may be lost."""
    reference: Reference = best_single


def operating_price(expected: Expected, problem: Problem, split: Split, aim: Aim) -> float:
    """The price of quality that suits the rows to learn from.

    `expected` holds out-of-fold predictions for the rows to learn from, in their order.
    """
    rows, single, unit = split.learn, aim.reference(problem, split.learn), unit_cost(problem, split.learn)
    options = np.stack([choose(expected, float(price), unit) for price in PRICES])
    kept = problem.quality[rows, options] - problem.quality[rows, single]
    cost = problem.mean(problem.cost[rows, options].T, rows) / problem.mean(problem.cost[rows, single], rows)
    points = Points.of(cost, kept, None if problem.weight is None else problem.weight[rows])
    return float(PRICES[points.best(aim.spend, -aim.allowance)])


@dataclass(frozen=True, slots=True)
class Plans:
    """What every method expects: of the rows to learn from, each without its own fold, and of the judged rows."""

    split: Split
    tuned: dict[str, Expected]
    final: dict[str, Expected]


def _out_of_fold(problem: Problem, split: Split) -> dict[str, Expected]:
    found: dict[str, Expected] = {}
    for inner in folds(problem.texts, split.learn, INNER_FOLDS, "inner"):
        for method, part in predict(problem, inner).items():
            empty = Expected(np.zeros_like(problem.quality), np.zeros_like(problem.cost))
            whole = found.setdefault(method, empty)
            whole.quality[inner.judge], whole.cost[inner.judge] = part.quality, part.cost
    return {method: Expected(e.quality[split.learn], e.cost[split.learn]) for method, e in found.items()}


def plans(problem: Problem, split: Split) -> Plans:
    """Predictions by every method; independent of weights, reference and allowance."""
    return Plans(split, _out_of_fold(problem, split), predict(problem, split))


@dataclass(frozen=True, slots=True)
class Routed:
    """Quality, cost and weight per judged row, of a router and of the single option it is measured against."""

    quality: Doubles
    cost: Doubles
    single_quality: Doubles
    single_cost: Doubles
    weight: Doubles

    def share(self, rows: Rows | slice = slice(None)) -> float:
        """Cost over that of the single option."""
        weight = self.weight[rows]
        return float((weight * self.cost[rows]).sum() / (weight * self.single_cost[rows]).sum())

    def difference(self, rows: Rows | slice = slice(None)) -> float:
        """Accuracy minus that of the single option."""
        return float(np.average(self.quality[rows] - self.single_quality[rows], weights=self.weight[rows]))

    def accuracy(self) -> float:
        """Mean quality of the router."""
        return float(np.average(self.quality, weights=self.weight))


def unit_cost(problem: Problem, learn: Rows) -> float:
    """The dearest option's mean cost: what prices of quality are counted in."""
    return float(problem.mean(problem.cost[learn], learn).max())


def route(problem: Problem, planned: Plans, aim: Aim) -> dict[str, Rows]:
    """Options for the judged rows by every method; operating points come from folds inside the rows to learn from."""
    unit = unit_cost(problem, planned.split.learn)
    prices = {method: operating_price(e, problem, planned.split, aim) for method, e in planned.tuned.items()}
    return {method: choose(planned.final[method], price, unit) for method, price in prices.items()}


def outcome(problem: Problem, split: Split, option: Rows, reference: Reference = best_single) -> Routed:
    """What the chosen options of the judged rows lead to, beside the reference."""
    rows, single = split.judge, reference(problem, split.learn)
    alone = (problem.quality[rows, single], problem.cost[rows, single])
    weight = np.ones(len(rows)) if problem.weight is None else problem.weight[rows]
    return Routed(problem.quality[rows, option], problem.cost[rows, option], *alone, weight)


def joined(parts: list[Routed]) -> Routed:
    """The parts as one."""
    names = ("quality", "cost", "single_quality", "single_cost", "weight")
    return Routed(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def routed(problem: Problem, planned: list[Plans], aim: Aim) -> dict[str, Routed]:
    """Outcome of every method over all judged rows."""
    parts: dict[str, list[Routed]] = {}
    for plan in planned:
        for method, option in route(problem, plan, aim).items():
            parts.setdefault(method, []).append(outcome(problem, plan.split, option, aim.reference))
    return {method: joined(part) for method, part in parts.items()}


def frontier(problem: Problem, planned: list[Plans], reference: Reference = best_single) -> dict[str, curves.Curve]:
    """Cost over that of the reference and accuracy by every method, the price of quality swept; for pictures only."""
    found: dict[str, curves.Curve] = {}
    for method in planned[0].final:
        for price in PRICES[::3]:
            parts = []
            for plan in planned:
                option = choose(plan.final[method], float(price), unit_cost(problem, plan.split.learn))
                parts.append(outcome(problem, plan.split, option, reference))
            whole = joined(parts)
            found.setdefault(method, []).append((whole.share(), whole.accuracy()))
    return found


def random_mix(problem: Problem, judged: Rows, target: float, single: int | None = None) -> float:
    """Cost share of the cheapest blind mix of two options that reaches `target` on average; at most 1."""
    quality = problem.mean(problem.quality[judged], judged)
    cost = problem.mean(problem.cost[judged], judged)
    best = float(cost[int(quality.argmax()) if single is None else single])
    mixes = [best, *(float(c) for q, c in zip(quality, cost, strict=True) if q >= target)]
    for low in range(len(cost)):
        for high in range(len(cost)):
            if quality[low] < target <= quality[high]:
                share = (target - quality[low]) / (quality[high] - quality[low])
                mixes.append(float(cost[low] + share * (cost[high] - cost[low])))
    return min(mixes) / best


def best_mix(problem: Problem, judged: Rows, spent: float) -> float:
    """Accuracy of the best blind mix of two options at the mean cost `spent`: what a router has to beat."""
    quality = problem.mean(problem.quality[judged], judged)
    cost = problem.mean(problem.cost[judged], judged)
    found = [float(q) for q, c in zip(quality, cost, strict=True) if c <= spent]
    for low in range(len(cost)):
        for high in range(len(cost)):
            if cost[low] < spent < cost[high]:
                share = (spent - cost[low]) / (cost[high] - cost[low])
                found.append(float(quality[low] + share * (quality[high] - quality[low])))
    return max(found, default=float(quality[int(cost.argmin())]))


def blind(problem: Problem, judged: Rows, unit: float) -> curves.Curve:
    """Cost in units and accuracy of the best blind mixes, for pictures."""
    cost = problem.mean(problem.cost[judged], judged)
    spent = np.linspace(float(cost.min()), float(cost.max()), 25)
    return [(float(each) / unit, best_mix(problem, judged, float(each))) for each in spent]


def judge(name: str, bar: float, problem: Problem, planned: list[Plans], allowance: float) -> Result:
    """Cost share of the router at the accuracy of the best single option minus `allowance`, with baselines."""
    everything = routed(problem, planned, Aim(budget(bar), allowance))
    ours = everything.pop(OURS)
    judged = np.concatenate([plan.split.judge for plan in planned])
    low, high = curves.interval(ours.share, len(judged))
    target = float(ours.single_quality.mean()) - allowance
    baselines = {"best single": 1.0, "random mix": random_mix(problem, judged, target)}
    baselines |= {method: other.share() for method, other in everything.items()}
    differences = {OURS: ours.difference()} | {method: other.difference() for method, other in everything.items()}
    details = {
        "allowance": allowance,
        "accuracy_kept": ours.difference() >= -allowance,
        "accuracy_difference": differences,
        "accuracy_difference_interval": list(curves.interval(ours.difference, len(judged))),
        "over_random_mix": float(ours.quality.mean()) - best_mix(problem, judged, float(ours.cost.mean())),
    }
    mixes = {"random mix": blind(problem, judged, float(ours.single_cost.mean()))}
    picture = curves.Picture(
        x="cost over that of the best single option",
        y="accuracy",
        curves=frontier(problem, planned) | mixes,
        point=(ours.share(), float(ours.quality.mean())),
        level=target,
    )
    return Result(
        name, ours.share(), low, high, len(judged), baselines, bar, higher=False, details=details, picture=picture
    )
