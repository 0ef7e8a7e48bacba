"""Plans from what was learned: the cheapest combination that nothing dearer beats by what its steps must promise.

A combination is a tier, a thinking budget and a strategy. What one adds to the one before it is the difference of their
learned shares of right answers, corrected for this query by the difference between its predicted gain and that of the
class's queries on average. Tiers that nothing was learned of continue from those that it was, by the predicted gain
alone; budgets between learned ones have the share of the curve through those. Everything that does not depend on the
query is laid out once, in a `Table`.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import OutcomeConfig
from trimtab_router.core.curve import Curve, Point, fit
from trimtab_router.core.outcomes import Beta, posterior, prior

STEP_DECAY: Final = 0.6
"""Worth of a further step up the ladder, relative to the one before it."""
CLEARLY: Final = 0.9
"""Cheaper by less is not worth another tier: capacities are corrected all the time."""
_APART: Final = 1e-6

Source = Literal["outcomes", "curve", "gain"]


@dataclass(frozen=True, slots=True)
class Tier:
    """A graded tier, as far as quality depends on it."""

    name: str
    thinking_tokens: int
    samples: Mapping[StrategyType, int] = field(default_factory=lambda: {StrategyType.SINGLE: 1})
    """Strategies that the policy allows here, with the answers each may ask for; the tier's own first."""
    budgets: Sequence[int] = ()
    """Other thinking budgets of the policy that may be used here."""

    @property
    def own(self) -> StrategyType:
        """Its strategy."""
        return next(iter(self.samples))


@dataclass(frozen=True, slots=True)
class Seen:
    """What was learned of one combination for one class."""

    thinking_tokens: int
    strategy: StrategyType | None
    """None: the tier's own."""
    share: Beta
    """Of right answers."""
    gain: float
    """Mean predicted gain of the queries it was learned from."""


Learned = dict[str, dict[str, tuple[Seen, ...]]]
"""By class and tier."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Expected share of right answers, or, where nothing was learned, what is added to that of the cheapest tier."""

    mean: float
    low: float
    high: float
    source: Source

    @property
    def learned(self) -> bool:
        """A share, not a difference."""
        return self.source != "gain"


@dataclass(frozen=True, slots=True)
class Place:
    """A combination on the ladder; what is known of it before the query is."""

    rung: int
    """Place among the graded tiers."""
    thinking_tokens: int
    strategy: StrategyType
    own: bool
    """The budget is the tier's own."""
    own_strategy: bool
    place: float
    """Steps from the cheapest tier; what spends otherwise than its tier does is up to half a step away from it."""
    known: Quality | None
    """For queries whose predicted gain is `gain`; None where only the predicted gain says something."""
    gain: float


@dataclass(frozen=True, slots=True)
class Table:
    """Every combination that something is known of, cheapest first."""

    places: tuple[Place, ...]
    base: float
    """Share of the cheapest tier where nothing is to be gained."""


@dataclass(frozen=True, slots=True)
class Step:
    """A place, with its quality for one query."""

    rung: int
    thinking_tokens: int
    strategy: StrategyType
    own: bool
    own_strategy: bool
    place: float
    quality: Quality


def learn(outcomes: Sequence[OutcomeConfig], thinking: Mapping[str, int]) -> Learned:
    """Shares by class and tier, shrunk to the mean of the combination over all classes.

    `thinking` is what a tier can do at most.
    """
    pooled: dict[tuple[str, int, StrategyType | None], list[int]] = defaultdict(lambda: [0, 0])
    for seen in outcomes:
        counts = pooled[seen.tier, seen.thinking_tokens, seen.strategy]
        counts[0] += seen.right
        counts[1] += seen.right + seen.wrong
    found: Learned = {}
    for seen in outcomes:
        mean = prior(*pooled[seen.tier, seen.thinking_tokens, seen.strategy])
        share = posterior(seen.right, seen.right + seen.wrong, mean)
        tokens = min(seen.thinking_tokens, thinking[seen.tier])
        arms = found.setdefault(seen.class_name, {})
        one = Seen(tokens, seen.strategy, share, seen.gain_milli / 1000)
        arms[seen.tier] = (*arms.get(seen.tier, ()), one)
    return found


def curves(learned: Learned) -> dict[tuple[str, str], Curve]:
    """Accuracy against the thinking budget by class and tier, where enough budgets of it were tried to say it.

    Of answers that spend the budget as the tier does.
    """
    found = {}
    for class_name, tiers in learned.items():
        for tier, arms in tiers.items():
            own = [arm for arm in arms if arm.strategy is None]
            curve = fit([Point(a.thinking_tokens, a.share.right, a.share.right + a.share.wrong) for a in own])
            if curve is not None:
                found[class_name, tier] = curve
    return found


def promised(gain: float, steps: int) -> float:
    """What `steps` steps up from the cheapest tier add, by the predicted gain alone."""
    return gain * (1 - STEP_DECAY**steps) / (1 - STEP_DECAY)


def table(tiers: Sequence[Tier], learned: Mapping[str, Sequence[Seen]], curves: Mapping[str, Curve]) -> Table:
    """The places of one class: every tier as it is, what was learned, and what lies between learned budgets."""
    found: dict[tuple[int, int, StrategyType], Place] = {}
    for rung, tier in enumerate(tiers):
        arms = [arm for arm in learned.get(tier.name, ()) if (arm.strategy or tier.own) in tier.samples]
        gain = sum(arm.gain for arm in arms) / len(arms) if arms else 0.0
        found[rung, tier.thinking_tokens, tier.own] = _place(rung, tier, tier.thinking_tokens, tier.own)
        for tokens in (tier.thinking_tokens, *tier.budgets) if tier.name in curves else ():
            value = curves[tier.name].at(tokens)
            if value is not None:
                known = Quality(value.mean, value.low, value.high, "curve")
                found[rung, tokens, tier.own] = _place(rung, tier, tokens, tier.own, known=known, gain=gain)
        for arm in arms:
            strategy = arm.strategy or tier.own
            known = Quality(arm.share.mean, *arm.share.interval(), "outcomes")
            place = _place(rung, tier, arm.thinking_tokens, strategy, known=known, gain=arm.gain)
            found[rung, arm.thinking_tokens, strategy] = place
    return Table(_apart(sorted(found.values(), key=lambda p: (p.place, p.thinking_tokens))), _base(tiers, learned))


def _place(
    rung: int,
    tier: Tier,
    thinking_tokens: int,
    strategy: StrategyType,
    *,
    known: Quality | None = None,
    gain: float = 0.0,
) -> Place:
    off = _off(thinking_tokens, tier.thinking_tokens) + _off(tier.samples[strategy], tier.samples[tier.own])
    return Place(
        rung,
        thinking_tokens,
        strategy,
        own=thinking_tokens == tier.thinking_tokens,
        own_strategy=strategy is tier.own,
        place=rung + min(0.5, max(-0.5, off)),
        known=known,
        gain=gain,
    )


def _apart(places: Sequence[Place]) -> tuple[Place, ...]:
    """No two at the same place: between two there is always a step, however small."""
    found: list[Place] = []
    for place in places:
        least = found[-1].place + _APART if found else place.place
        found.append(place if place.place >= least else replace(place, place=least))
    return tuple(found)


def _off(spent: int, own: int) -> float:
    """How far a budget is from the tier's own, in steps: half as much is a quarter of a step below, twice above."""
    if spent <= own:
        return 0.0 if own == 0 else -0.5 * (1 - spent / own)
    return 0.5 * (1 - own / spent)


def _base(tiers: Sequence[Tier], learned: Mapping[str, Sequence[Seen]]) -> float:
    """Share of the cheapest tier, from what was learned of any tier, weighted by how much that is worth."""
    total = weights = 0.0
    for rung, tier in enumerate(tiers):
        for arm in learned.get(tier.name, ()):
            weight = arm.share.right + arm.share.wrong
            total += weight * (arm.share.mean - promised(arm.gain, rung))
            weights += weight
    return total / weights if weights else 0.0


def steps(laid: Table, gain: float, tiers: int) -> list[Step]:
    """Every place on the first `tiers` graded tiers, cheapest first, with its quality for a query of this gain."""
    return [
        Step(p.rung, p.thinking_tokens, p.strategy, p.own, p.own_strategy, p.place, _quality(p, gain, laid.base))
        for p in laid.places
        if p.rung < tiers
    ]


def _quality(place: Place, gain: float, base: float) -> Quality:
    """The learned share, moved for a query of this gain; the deviation cannot leave 0..1."""
    known = place.known
    if known is None:
        mean = base + promised(gain, place.rung)
        return Quality(mean, mean, mean, "gain")
    shift = promised(gain, place.rung) - promised(place.gain, place.rung)
    low, mean, high = (min(1.0, max(0.0, value + shift)) for value in (known.low, known.mean, known.high))
    return Quality(mean, low, high, known.source)


def undercuts(other: Step, step: Step, price: float, than: float) -> bool:
    """`other`, later on the ladder, promises as much as `step` and clearly costs less.

    An unknown price (0) undercuts nothing, and neither does what was not learned undercut what was.
    """
    better = other.place > step.place and other.quality.mean >= step.quality.mean
    return better and 0 < price < CLEARLY * than and (other.quality.learned or not step.quality.learned)


def undominated(found: Sequence[Step], cost: Callable[[Step], float]) -> list[Step]:
    """Without those that a later one undercuts."""
    costs = [cost(step) for step in found]
    return [
        step
        for i, step in enumerate(found)
        if not any(undercuts(found[k], step, costs[k], costs[i]) for k in range(i + 1, len(found)))
    ]


def acceptable(found: Sequence[Step], threshold: float) -> Step:
    """The first step that no later one beats by `threshold` for every step up between them."""
    for i, step in enumerate(found):
        if all(
            other.quality.mean - step.quality.mean < threshold * (other.place - step.place) for other in found[i + 1 :]
        ):
            return step
    raise ValueError("a ladder has at least one step")


def hopeless(found: Sequence[Step], share: float) -> bool:
    """Something was learned of every tier, and none of it is likely to be right more often than `share`."""
    known = {step.rung for step in found if step.quality.learned}
    every = {step.rung for step in found}
    return known == every and all(step.quality.high < share for step in found if step.quality.learned)
