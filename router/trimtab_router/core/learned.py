"""Plans from what was learned: the cheapest arm that nothing dearer beats by what its steps must promise.

What an arm adds to the one before it is the difference of their learned shares of right answers, corrected for this
query by the difference between its predicted gain and that of the class's queries on average. Tiers that nothing was
learned of continue from those that it was, by the predicted gain alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trimtab_crds.wire import OutcomeConfig
from trimtab_router.core.curve import Curve, Point, fit
from trimtab_router.core.outcomes import Beta, posterior, prior

STEP_DECAY: Final = 0.6
"""Worth of a further step up the ladder, relative to the one before it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was learned of one arm for one class."""

    thinking_tokens: int
    share: Beta
    """Of right answers."""
    gain: float
    """Mean predicted gain of the queries it was learned from."""


Learned = dict[str, dict[str, tuple[Seen, ...]]]
"""Arms by class and tier, least thinking first."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Expected share of right answers, or, where nothing was learned, what is added to that of the cheapest tier."""

    mean: float
    low: float
    high: float
    learned: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A tier with a thinking budget, as a place on the ladder."""

    rung: int
    """Place among the graded tiers."""
    thinking_tokens: int
    own: bool
    """The budget is the tier's own."""
    place: float
    """Steps from the cheapest tier; a budget other than the tier's own is up to half a step away from it."""
    quality: Quality


def learn(outcomes: Sequence[OutcomeConfig], thinking: dict[str, int]) -> Learned:
    """Shares by class and tier, shrunk to the arm's mean over all classes; `thinking` is what a tier can do at most."""
    pooled: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for seen in outcomes:
        counts = pooled[seen.tier, seen.thinking_tokens]
        counts[0] += seen.right
        counts[1] += seen.right + seen.wrong
    found: Learned = {}
    for seen in outcomes:
        mean = prior(*pooled[seen.tier, seen.thinking_tokens])
        share = posterior(seen.right, seen.right + seen.wrong, mean)
        tokens = min(seen.thinking_tokens, thinking[seen.tier])
        arms = found.setdefault(seen.class_name, {})
        arms[seen.tier] = (*arms.get(seen.tier, ()), Seen(tokens, share, seen.gain_milli / 1000))
    return found


def curves(learned: Learned) -> dict[tuple[str, str], Curve]:
    """Accuracy against the thinking budget by class and tier, where enough budgets of a tier were tried to say it."""
    found = {}
    for class_name, tiers in learned.items():
        for tier, arms in tiers.items():
            curve = fit([Point(a.thinking_tokens, a.share.right, a.share.right + a.share.wrong) for a in arms])
            if curve is not None:
                found[class_name, tier] = curve
    return found


def promised(gain: float, steps: int) -> float:
    """What `steps` steps up from the cheapest tier add, by the predicted gain alone."""
    return gain * (1 - STEP_DECAY**steps) / (1 - STEP_DECAY)


def steps(tiers: Sequence[tuple[str, int]], gain: float, learned: dict[str, tuple[Seen, ...]]) -> list[Step]:
    """Every arm on the graded `tiers` (name and thinking tokens), cheapest first, with its quality for this query."""
    base = _base(tiers, learned)
    found: dict[tuple[int, int], Step] = {}
    for rung, (name, own) in enumerate(tiers):
        mean = base + promised(gain, rung)
        found[rung, own] = Step(rung, own, True, float(rung), Quality(mean, mean, mean, False))
        for arm in learned.get(name, ()):
            place = rung + _off(arm.thinking_tokens, own)
            is_own = arm.thinking_tokens == own
            found[rung, arm.thinking_tokens] = Step(rung, arm.thinking_tokens, is_own, place, _for(arm, gain, rung))
    return sorted(found.values(), key=lambda step: step.place)


def _off(thinking: int, own: int) -> float:
    """How far a budget is from the tier's own, in steps: half as much is a quarter of a step below, twice above."""
    if thinking <= own:
        return 0.0 if own == 0 else -0.5 * (1 - thinking / own)
    return 0.5 * (1 - own / thinking)


def _for(arm: Seen, gain: float, rung: int) -> Quality:
    """The arm's share for a query of this gain; the deviation cannot leave 0..1."""
    shift = promised(gain, rung) - promised(arm.gain, rung)
    mean, low, high = (min(1.0, max(0.0, value + shift)) for value in (arm.share.mean, *arm.share.interval()))
    return Quality(mean, low, high, True)


def _base(tiers: Sequence[tuple[str, int]], learned: dict[str, tuple[Seen, ...]]) -> float:
    """Share of the cheapest tier, from what was learned of any tier, weighted by how much that is worth."""
    total = weights = 0.0
    for rung, (name, _) in enumerate(tiers):
        for arm in learned.get(name, ()):
            weight = arm.share.right + arm.share.wrong
            total += weight * (arm.share.mean - promised(arm.gain, rung))
            weights += weight
    return total / weights if weights else 0.0


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
