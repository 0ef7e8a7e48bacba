"""From observations to a class table: the cheapest arm of every class at the quality that there is now.

A router sends hard queries to strong tiers, so what an arm did says little of what it would do for the others. Arms are
therefore compared within strata of the predicted gain (direct standardisation): an arm is a candidate for a class only
where it was judged in every stratum that matters, and its quality is that of the strata at the class's own shares.

Of all combinations of one arm a class, the cheapest is proposed whose expected quality is that of now.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

from trimtab_router.core.curve import Curve, Point
from trimtab_router.core.curve import fit as fit_curve
from trimtab_router.core.journal import Observation
from trimtab_router.core.outcomes import PRIOR_WEIGHT, Z_95, Arm, Beta, posterior, prior

STRATA: Final = 6
"""Parts of a class by predicted gain. More of them leave queries of one part more alike, and need more tries."""
MIN_JUDGED: Final = 20
"""Judged answers of an arm in a class before it can be proposed."""
MIN_JUDGED_IN_A_STRATUM: Final = 3
_NEGLIGIBLE: Final = 1e-4
_POINT: Final = 0.01
MATTERS: Final = 0.05
"""Share of a class below which a stratum need not have been tried."""


@dataclass(slots=True)
class Cell:
    """Counts of one arm in one stratum of one class."""

    decisions: int = 0
    judged: int = 0
    right: float = 0.0
    cost: float = 0.0
    cost_squares: float = 0.0

    def add(self, seen: Observation) -> None:
        """One more observation."""
        self.decisions += 1
        self.cost += seen.cost
        self.cost_squares += seen.cost * seen.cost
        if seen.score is not None:
            self.judged += 1
            self.right += seen.score


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the variance of that mean."""

    mean: float
    variance: float = 0.0

    def interval(self) -> tuple[float, float]:
        """About 95 %."""
        half = Z_95 * sqrt(self.variance)
        return self.mean - half, self.mean + half


@dataclass(frozen=True, slots=True)
class Option:
    """What a class may do: an arm, or (`arm` is None) what it does now."""

    arm: Arm | None
    judged: int
    right: float
    """Sum of the scores of the judged."""
    quality: Estimate
    cost: Estimate


@dataclass(frozen=True, slots=True)
class ClassLine:
    """One class, as it is and as it is proposed."""

    name: str
    share: float
    """Of all scored requests."""
    decisions: int
    arms: Mapping[Arm, float]
    """What is done now, as shares."""
    now: Option
    proposed: Option
    """`now` when nothing is to be changed."""
    gain: float
    """Mean predicted gain of its queries."""
    tried: tuple[Option, ...]
    """Every arm that could be proposed, for the whole class."""
    untried: tuple[Arm, ...]
    """Arms that were seen, but not judged often enough for all kinds of queries of the class."""

    @property
    def changes(self) -> bool:
        """Whether something else than now is proposed."""
        return self.proposed is not self.now


@dataclass(frozen=True, slots=True)
class Proposal:
    """All classes, and what the change is expected to do over all of them."""

    lines: tuple[ClassLine, ...]
    quality: Estimate
    """Expected change of the share of right answers."""
    cost: Estimate
    """Expected change of the mean cost of a request."""
    cost_now: float
    tier_costs: Mapping[str, float]
    """Mean cost of a request on every tier that was seen."""
    price: float
    """Share of right answers that a currency unit would buy beyond the proposal; 0 where nothing was better."""


@dataclass(slots=True)
class _Class:
    """Cells of one class by arm and stratum."""

    cells: dict[tuple[Arm, int], Cell] = field(default_factory=lambda: defaultdict(Cell))
    gain: float = 0.0
    """Sum of the predicted gains."""
    strata: list[int] = field(default_factory=lambda: [0] * STRATA)


def tabulate(observations: Iterable[Observation]) -> dict[str, _Class]:
    """Counts by class, arm and stratum of the class's predicted gains."""
    by_class: dict[str, list[Observation]] = defaultdict(list)
    for seen in observations:
        by_class[seen.class_name].append(seen)
    table: dict[str, _Class] = {}
    for name, group in sorted(by_class.items()):
        found = table[name] = _Class()
        gains = sorted(o.gain for o in group)
        edges = [gains[len(gains) * k // STRATA] for k in range(1, STRATA)]
        for seen in group:
            stratum = bisect_left(edges, seen.gain)
            found.strata[stratum] += 1
            found.gain += seen.gain
            found.cells[seen.arm, stratum].add(seen)
    return table


def propose(observations: Sequence[Observation], *, may_lose: float = 0.0, min_judged: int = MIN_JUDGED) -> Proposal:
    """The cheapest table whose expected share of right answers is at most `may_lose` below that of now.

    A negative `may_lose` asks for better answers, as far as there are any. Otherwise nothing is proposed that does not
    make it cheaper.
    """
    table, total = tabulate(observations), max(len(observations), 1)
    priors = _priors(table)
    options = {name: _options(found, priors, min_judged) for name, found in table.items()}
    shares = {name: sum(found.strata) / total for name, found in table.items()}
    frontier = _frontier(options, shares)
    wanted = sum(shares[name] * found[0].quality.mean for name, found in options.items()) - may_lose
    best = next((point for point in frontier if point.quality >= wanted - _NEGLIGIBLE), frontier[-1])
    lines = tuple(
        _line(name, table[name], shares[name], options[name], chosen)
        for name, chosen in zip(table, best.options, strict=True)
    )
    return Proposal(
        lines,
        _change(lines, lambda option: option.quality),
        _change(lines, lambda option: option.cost),
        sum(line.share * line.now.cost.mean for line in lines),
        _tier_costs(observations),
        _price(frontier, best),
    )


def _tier_costs(observations: Sequence[Observation]) -> dict[str, float]:
    costs: dict[str, list[float]] = defaultdict(list)
    for seen in observations:
        costs[seen.arm.tier].append(seen.cost)
    return {tier: sum(found) / len(found) for tier, found in sorted(costs.items())}


def step_gain(proposal: Proposal, tiers: Sequence[str]) -> float | None:
    """Gain that a step up the ladder must promise to be worth its cost at the proposal's price; None where unknown."""
    costs = [proposal.tier_costs[tier] for tier in tiers if tier in proposal.tier_costs]
    if not proposal.price or len(costs) < 2:
        return None
    return max(0.0, proposal.price * (costs[-1] - costs[0]) / (len(costs) - 1))


def _priors(table: Mapping[str, _Class]) -> dict[tuple[Arm, int], float]:
    """Class-free mean of every arm in every stratum."""
    right: dict[tuple[Arm, int], float] = defaultdict(float)
    judged: dict[tuple[Arm, int], int] = defaultdict(int)
    for found in table.values():
        for key, cell in found.cells.items():
            right[key] += cell.right
            judged[key] += cell.judged
    return {key: prior(right[key], judged[key]) for key in judged}


def _beta(found: _Class, arm: Arm, stratum: int, priors: Mapping[tuple[Arm, int], float]) -> Beta:
    cell = found.cells.get((arm, stratum), Cell())
    return posterior(cell.right, cell.judged, priors.get((arm, stratum), 0.5), PRIOR_WEIGHT / STRATA)


def _options(found: _Class, priors: Mapping[tuple[Arm, int], float], min_judged: int) -> list[Option]:
    """What is done now first, then every arm that was judged often enough, in the order of their costs."""
    arms = sorted({arm for arm, _ in found.cells})
    able = [_standardised(found, arm, priors) for arm in arms if _tried(found, arm, min_judged)]
    return [_now(found, priors), *sorted(able, key=lambda o: o.cost.mean)]


def _tried(found: _Class, arm: Arm, min_judged: int) -> bool:
    total, judged = sum(found.strata), [found.cells.get((arm, k), Cell()).judged for k in range(STRATA)]
    needed = [count > MATTERS * total for count in found.strata]
    each = all(j >= MIN_JUDGED_IN_A_STRATUM for j, wanted in zip(judged, needed, strict=True) if wanted)
    return each and sum(judged) >= min_judged


def _standardised(found: _Class, arm: Arm, priors: Mapping[tuple[Arm, int], float]) -> Option:
    """The arm for the whole class: strata at the class's own shares."""
    total = sum(found.strata)
    weights = [count / total for count in found.strata]
    betas = [_beta(found, arm, stratum, priors) for stratum in range(STRATA)]
    cells = [found.cells.get((arm, stratum), Cell()) for stratum in range(STRATA)]
    costs = [_cost(cell, cells) for cell in cells]
    return Option(
        arm,
        sum(cell.judged for cell in cells),
        sum(cell.right for cell in cells),
        _weighted(weights, [Estimate(b.mean, b.variance) for b in betas]),
        _weighted(weights, costs),
    )


def _now(found: _Class, priors: Mapping[tuple[Arm, int], float]) -> Option:
    """The mix of arms as it was seen."""
    total = sum(found.strata)
    keys = list(found.cells)
    weights = [found.cells[key].decisions / total for key in keys]
    betas = [_beta(found, arm, stratum, priors) for arm, stratum in keys]
    costs = [_cost(found.cells[key], [found.cells[key]]) for key in keys]
    return Option(
        None,
        sum(cell.judged for cell in found.cells.values()),
        sum(cell.right for cell in found.cells.values()),
        _weighted(weights, [Estimate(b.mean, b.variance) for b in betas]),
        _weighted(weights, costs),
    )


def _cost(cell: Cell, others: Sequence[Cell]) -> Estimate:
    """Mean cost of a cell; that of all `others` where it is empty."""
    if not cell.decisions:
        count = sum(c.decisions for c in others)
        return Estimate(sum(c.cost for c in others) / count)
    mean = cell.cost / cell.decisions
    spread = max(0.0, cell.cost_squares / cell.decisions - mean * mean)
    return Estimate(mean, spread / cell.decisions)


def _weighted(weights: Sequence[float], parts: Sequence[Estimate]) -> Estimate:
    return Estimate(
        sum(w * p.mean for w, p in zip(weights, parts, strict=True)),
        sum(w * w * p.variance for w, p in zip(weights, parts, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Point:
    """One option for every class, and what that comes to."""

    cost: float
    quality: float
    options: tuple[Option, ...] = ()


def _frontier(options: Mapping[str, Sequence[Option]], shares: Mapping[str, float]) -> list[_Point]:
    """Every combination that no cheaper one equals, cheapest first; qualities nearer than `_NEGLIGIBLE` are equal."""
    points = [_Point(0.0, 0.0)]
    for name, found in options.items():
        grown = [
            _Point(p.cost + shares[name] * o.cost.mean, p.quality + shares[name] * o.quality.mean, (*p.options, o))
            for p in points
            for o in found
        ]
        grown.sort(key=lambda point: (point.cost, -point.quality))
        points = []
        for point in grown:
            if not points or point.quality > points[-1].quality + _NEGLIGIBLE:
                points.append(point)
    return points


def _price(frontier: Sequence[_Point], chosen: _Point) -> float:
    """Quality that a currency unit buys beyond the chosen point, over the next `_POINT`; 0 where there is no more."""
    better = [point for point in frontier if point.quality > chosen.quality]
    beyond = next(
        (point for point in better if point.quality >= chosen.quality + _POINT), better[-1] if better else None
    )
    return 0.0 if beyond is None else (beyond.quality - chosen.quality) / (beyond.cost - chosen.cost)


def _line(name: str, found: _Class, share: float, options: Sequence[Option], chosen: Option) -> ClassLine:
    total = sum(found.strata)
    arms: dict[Arm, float] = defaultdict(float)
    for (arm, _), cell in found.cells.items():
        arms[arm] += cell.decisions / total
    tried = {option.arm for option in options}
    now = options[0]
    if chosen.arm is not None and arms.get(chosen.arm, 0.0) >= 1.0:
        chosen = now
    untried = tuple(sorted(arm for arm in arms if arm not in tried))
    return ClassLine(
        name,
        share=share,
        decisions=total,
        arms=dict(arms),
        now=now,
        proposed=chosen,
        gain=found.gain / total,
        tried=tuple(options[1:]),
        untried=untried,
    )


def worth(quality: Estimate) -> tuple[int, int]:
    """Right and wrong answers that a share with this variance is worth, by the moments of a Beta distribution."""
    mean = min(1.0, max(0.0, quality.mean))
    total = mean * (1 - mean) / quality.variance - 1 if quality.variance > 0 else 0.0
    return round(max(0.0, total * mean)), round(max(0.0, total * (1 - mean)))


def curves(line: ClassLine) -> dict[tuple[str, str], Curve]:
    """Accuracy against the thinking budget by tier and strategy, where enough budgets were tried on the class."""
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for option in line.tried:
        right, wrong = worth(option.quality)
        if option.arm is not None and right + wrong:
            found = points[option.arm.tier, option.arm.strategy]
            found.append(Point(option.arm.thinking_tokens, right, right + wrong))
    fitted = {key: fit_curve(found) for key, found in sorted(points.items())}
    return {key: curve for key, curve in fitted.items() if curve is not None}


def _change(lines: Sequence[ClassLine], part: Callable[[Option], Estimate]) -> Estimate:
    """Sum over the classes of proposed minus now. Both share observations, so the variance is an upper bound."""
    changed = [line for line in lines if line.changes]
    return Estimate(
        sum(line.share * (part(line.proposed).mean - part(line.now).mean) for line in changed),
        sum(line.share**2 * (part(line.proposed).variance + part(line.now).variance) for line in changed),
    )
