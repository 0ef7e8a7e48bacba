"""Traffic of 70 % easy, 25 % medium and 5 % hard prompts: what planning saves against the dearest mode for everything.

The stratum of a row is that of its task: easy where the cheapest mode is right on two thirds of its rows to learn
from, hard where on less than a third. It says how often a row comes and is never shown to a router; labels of judged
rows decide nothing. Both sets count alike, cost is in units of the dearest mode of the set; each set has its price of
quality, and they are chosen together on the rows to learn from.
"""

from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, ladder, ladders
from trimtab_classifier.evaluation.ladder import OURS, Plans, Problem, Routed
from trimtab_classifier.evaluation.learners import class_table
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders

Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]

SHARES: Final = (0.05, 0.25, 0.70)
"""Of hard, medium and easy prompts."""
CUTS: Final = (1 / 3, 2 / 3)
ALLOWANCE: Final = 0.005
AIM: Final = 0.75 * ALLOWANCE
"""What is spent where prices are chosen: there, the cheapest of many price pairs looks better than it is."""


def strata(problem: Problem, learn: Rows) -> Rows:
    """0 hard, 1 medium, 2 easy for every row, from the rows to learn from alone."""
    cheap = int(problem.cost[learn].mean(axis=0).argmin())
    success = class_table(problem.label[learn], problem.quality[learn][:, [cheap]], problem.classes, shrink=1e-6)
    return np.asarray(np.digitize(success[problem.label, 0], CUTS), np.intp)


def _weight(stratum: Rows, rows: Rows) -> Doubles:
    """Weights that sum to one and give every stratum its share; one without rows leaves its share to the others."""
    count = np.bincount(stratum[rows], minlength=len(SHARES))
    share = np.where(count > 0, SHARES, 0.0)
    return np.asarray((share / share.sum() / np.maximum(count, 1))[stratum[rows]], np.float64)


@dataclass(frozen=True, slots=True)
class Side:
    """One set in one split: weighted to the mix, cost in units of its dearest mode."""

    problem: Problem
    plan: Plans

    @classmethod
    def of(cls, problem: Problem, plan: Plans) -> "Side":
        """Weights on each side of the split come from the stratum of the task."""
        split, stratum = plan.split, strata(problem, plan.split.learn)
        weight = np.zeros(len(stratum))
        for rows in (split.learn, split.judge):
            weight[rows] = _weight(stratum, rows)
        weighted = replace(problem, weight=weight)
        unit = float(weighted.mean(problem.cost[split.learn, ladder.dearest(weighted, split.learn)], split.learn))
        tuned = {name: _scaled(e, unit) for name, e in plan.tuned.items()}
        final = {name: _scaled(e, unit) for name, e in plan.final.items()}
        return cls(replace(weighted, cost=problem.cost / unit), Plans(split, tuned, final))

    def learned(self, method: str, price: float) -> Doubles:
        """Accuracy minus that of the dearest mode, and cost, on the rows to learn from."""
        rows, problem = self.plan.split.learn, self.problem
        option = ladder.choose(self.plan.tuned[method], price, 1.0)
        single = ladder.dearest(problem, rows)
        kept = problem.quality[rows, option] - problem.quality[rows, single]
        return problem.mean(np.stack([kept, problem.cost[rows, option]], axis=1), rows)

    def judged(self, method: str, price: float) -> Routed:
        """What the price leads to on the judged rows."""
        option = ladder.choose(self.plan.final[method], price, 1.0)
        return ladder.outcome(self.problem, self.plan.split, option, ladder.dearest)


def _scaled(expected: ladder.Expected, unit: float) -> ladder.Expected:
    return ladder.Expected(expected.quality, expected.cost / unit)


def prices_of_quality(sides: list[Side], method: str) -> list[float]:
    """A price a set: together the cheapest that keep the accuracy on the rows to learn from; 0 if none do."""
    tables = [np.array([side.learned(method, float(price)) for price in ladder.PRICES]) for side in sides]
    kept = reduce(np.add.outer, [table[:, 0] for table in tables]) / len(sides)
    cost = reduce(np.add.outer, [table[:, 1] for table in tables]) / len(sides)
    if not (kept >= -AIM).any():
        return [0.0] * len(sides)
    place = np.unravel_index(np.where(kept >= -AIM, cost, np.inf).argmin(), cost.shape)
    return [float(ladder.PRICES[at]) for at in place]


def _rounds(studies: list[ladders.Study]) -> list[list[Side]]:
    """The sets side by side, one entry a split."""
    return [
        [Side.of(study.problem, plan) for study, plan in zip(studies, plans, strict=True)]
        for plans in zip(*(study.planned for study in studies), strict=True)
    ]


def _blind(sides: list[Side]) -> float:
    """Cost share of the best blind mix of options in each set."""
    shares = []
    for side in sides:
        rows, single = side.plan.split.judge, ladder.dearest(side.problem, side.plan.split.learn)
        target = float(side.problem.mean(side.problem.quality[rows, single], rows)) - ALLOWANCE
        shares.append(ladder.random_mix(side.problem, rows, target, single))
    return float(np.mean(shares))


def _picture(rounds: list[list[Side]], methods: list[str], point: Routed) -> curves.Picture:
    lines: dict[str, curves.Curve] = {}
    for method in methods:
        for price in ladder.PRICES[::3]:
            whole = ladder.joined([side.judged(method, float(price)) for sides in rounds for side in sides])
            lines.setdefault(method, []).append((whole.share(), whole.accuracy()))
    return curves.Picture(
        x="cost over that of the dearest mode",
        y="accuracy",
        curves=lines,
        point=(point.share(), point.accuracy()),
        level=point.accuracy() - point.difference() - ALLOWANCE,
    )


def run(folders: Folders) -> list[Result]:
    """Saving at the accuracy of the dearest mode minus half a point."""
    studies = [s for s in (ladders.bbh_study(folders), ladders.llmrouter_study(folders)) if s is not None]
    return [judge(studies)] if studies else []


def judge(studies: list[ladders.Study]) -> Result:
    """The figure over the given sets."""
    rounds, methods = _rounds(studies), list(studies[0].planned[0].final)
    parts: dict[str, list[list[Routed]]] = {method: [] for method in methods}
    for sides in rounds:
        for method in methods:
            prices = prices_of_quality(sides, method)
            parts[method].append([side.judged(method, price) for side, price in zip(sides, prices, strict=True)])
    whole = {method: ladder.joined([part for each in found for part in each]) for method, found in parts.items()}
    by_set = [ladder.joined([each[place] for each in parts[OURS]]) for place in range(len(studies))]
    ours, count = whole.pop(OURS), len(by_set)
    low, high = curves.interval(lambda rows: 1 - ours.share(rows), len(ours.cost))
    baselines = {"best single": 0.0, "random mix": 1 - float(np.mean([_blind(sides) for sides in rounds]))}
    baselines |= {method: 1 - other.share() for method, other in whole.items()}
    details = {
        "allowance": ALLOWANCE,
        "accuracy_kept": ours.difference() >= -ALLOWANCE,
        "accuracy_difference": {OURS: ours.difference()} | {m: other.difference() for m, other in whole.items()},
        "accuracy_difference_interval": list(curves.interval(ours.difference, len(ours.cost))),
        "saving_by_set": [1 - part.share() for part in by_set],
        "accuracy_difference_by_set": [part.difference() for part in by_set],
        "sets": [study.name for study in studies],
        "rows_by_stratum": [_counts(study, rounds, place) for study, place in zip(studies, range(count), strict=True)],
    }
    picture = _picture(rounds, methods, ours)
    value = 1 - ours.share()
    return Result("mix.saving", value, low, high, len(ours.cost), baselines, 0.60, details=details, picture=picture)


def _counts(study: ladders.Study, rounds: list[list[Side]], place: int) -> dict[str, int]:
    """Judged rows of each stratum."""
    total = np.zeros(len(SHARES), np.intp)
    for sides in rounds:
        split = sides[place].plan.split
        total += np.bincount(strata(study.problem, split.learn)[split.judge], minlength=len(SHARES))
    return dict(zip(("hard", "medium", "easy"), total.tolist(), strict=True))
