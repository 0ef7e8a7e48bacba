"""The one safe step from what is observed toward the plan; nothing to do is None.

Invariant: if at most the budget is committed before a step, at most the budget is committed after it, whatever the
pods do in between (start late, drain for hours, be replaced). So GPUs are freed first, and a pool grows only into GPUs
that no pod holds any more. Nothing is remembered: after a crash the same observation gives the same step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import ceil

from trimtab_operator.core.fleet import Fleet, PoolState, TierState
from trimtab_operator.core.groupplan import asked_gpus, budget_of, committed_gpus, curve_of, is_moved, is_starting
from trimtab_operator.core.rebalance import Plan

#: A voluntary step takes at most this share of a pool's replicas away, and at least one replica.
LARGEST_SHARE_TAKEN = 0.25


class Cause(StrEnum):
    """Why a step is taken."""

    FOLLOW = "Follow"
    """The pool is started, or follows its `replicas`."""
    BOUNDS = "Bounds"
    BUDGET = "Budget"
    SHRINK = "Shrink"
    """Frees GPUs for another pool."""
    RELEASE = "Release"
    """Gives back what nobody needs."""
    GROW = "Grow"

    @property
    def is_move(self) -> bool:
        """The rebalancer chose it, so it is recorded as the last move; taking replicas away needs a cooldown."""
        return self in (Cause.SHRINK, Cause.RELEASE, Cause.GROW)


@dataclass(frozen=True, slots=True)
class Step:
    """Set one pool's replicas."""

    pool: str
    from_replicas: int
    to_replicas: int
    cause: Cause
    reason: str
    expected_gain_percent: int

    @property
    def grows(self) -> bool:
        """It adds replicas."""
        return self.to_replicas > self.from_replicas


def next_step(fleet: Fleet, plan: Plan, *, now: float) -> Step | None:
    """The next step, or None: the plan is reached, GPUs are still held, or the cooldown is not over."""
    steps = chain(_must_shrink(fleet, plan), _may_grow(fleet, plan), _may_shrink(fleet, plan, now))
    return next(iter(steps), None)


def _must_shrink(fleet: Fleet, plan: Plan) -> Iterable[Step]:
    """What is above a bound, a spec or the budget goes at once."""
    for tier in fleet.tiers:
        pool, target = tier.pool, plan.targets[tier.pool.name]
        if target >= pool.desired:
            continue
        if not is_moved(fleet, pool):
            yield _step(pool, target, Cause.FOLLOW, f"{pool.name} follows its replicas {target}", plan)
        elif pool.desired > pool.max_replicas:
            reason = f"{pool.name} is above scaling.maxReplicas {pool.max_replicas}"
            yield _step(pool, target, Cause.BOUNDS, reason, plan)
        elif (asked := asked_gpus(fleet.on(pool.accelerator))) > budget_of(fleet, pool.accelerator):
            reason = f"{asked} {pool.accelerator} GPUs are over the budget of {budget_of(fleet, pool.accelerator):g}"
            yield _step(pool, target, Cause.BUDGET, reason, plan)


def _may_grow(fleet: Fleet, plan: Plan) -> Iterable[Step]:
    """The pool that gains most per GPU, by as many replicas as fit into GPUs that nobody holds."""
    free = {name: budget_of(fleet, name) - committed_gpus(fleet.on(name)) for name in fleet.accelerators}
    for tier in _receivers(fleet, plan, fleet.tiers):
        pool, target = tier.pool, plan.targets[tier.pool.name]
        # A replica that drains and serves again takes no GPU.
        fits = pool.reclaimable + max(free[pool.accelerator], 0) // pool.gpus_per_replica
        fits = int(min(target - pool.desired, fits))
        if fits > 0:
            cause, reason = _growth(fleet, tier, plan)
            yield _step(pool, pool.desired + fits, cause, reason, plan)


def _growth(fleet: Fleet, tier: TierState, plan: Plan) -> tuple[Cause, str]:
    pool = tier.pool
    if not is_moved(fleet, pool) or is_starting(fleet, pool):
        return Cause.FOLLOW, f"{pool.name} starts with {plan.targets[pool.name]} of replicas {pool.start_replicas}"
    if pool.desired < pool.min_replicas:
        return Cause.BOUNDS, f"{pool.name} is below scaling.minReplicas {pool.min_replicas}"
    return Cause.GROW, _need(tier, plan)


def _may_shrink(fleet: Fleet, plan: Plan, now: float) -> Iterable[Step]:
    """Free GPUs for the next receiver unless enough are on their way; else give back what nobody needs."""
    for accelerator in fleet.accelerators:
        tiers = fleet.on(accelerator)
        donors = [tier for tier in tiers if plan.targets[tier.pool.name] < tier.pool.desired]
        donors.sort(key=lambda tier: _cheapness(fleet, tier))
        receivers = _receivers(fleet, plan, tiers)
        if not donors or now < fleet.rests_until(release=not receivers):
            continue
        if not receivers:
            # A pool that has not even started is not known to be idle.
            yield from (_release(donor, plan) for donor in donors if donor.pool.ready >= donor.pool.desired)
            continue
        missing = receivers[0].pool.gpus_per_replica - (budget_of(fleet, accelerator) - asked_gpus(tiers))
        if missing > 0:
            yield _free(donors[0], receivers[0], missing, plan)


def _free(donor: TierState, receiver: TierState, missing_gpus: float, plan: Plan) -> Step:
    """Take what the receiver still needs from the donor, within the largest step."""
    pool, target = donor.pool, plan.targets[donor.pool.name]
    wanted = (plan.targets[receiver.pool.name] - receiver.pool.desired - 1) * receiver.pool.gpus_per_replica
    count = ceil((missing_gpus + wanted) / pool.gpus_per_replica)
    reason = f"frees GPUs for {receiver.pool.name}: {_need(receiver, plan)}"
    return _step(pool, max(pool.desired - count, target, _smallest(pool)), Cause.SHRINK, reason, plan)


def _release(donor: TierState, plan: Plan) -> Step:
    pool, reason = donor.pool, f"nobody needs them: {_need(donor, plan)}"
    return _step(pool, max(plan.targets[pool.name], _smallest(pool)), Cause.RELEASE, reason, plan)


def _need(tier: TierState, plan: Plan) -> str:
    """What the tier's demand takes, and what answers it now."""
    verdict = plan.verdicts[tier.name]
    takes = f"{verdict.need}" if verdict.need == verdict.peak_need else f"{verdict.need} to {verdict.peak_need}"
    return f"demand for {tier.name} takes {takes} replicas, {tier.pool.ready} of {tier.pool.desired} ready"


def _smallest(pool: PoolState) -> int:
    """Replicas that one voluntary step leaves at least."""
    return pool.desired - max(1, int(pool.desired * LARGEST_SHARE_TAKEN))


def _receivers(fleet: Fleet, plan: Plan, tiers: Iterable[TierState]) -> list[TierState]:
    """Pools below their target: those to be started first, in the order of the tiers, then by value per GPU."""
    below = [tier for tier in tiers if plan.targets[tier.pool.name] > tier.pool.desired]
    return sorted(below, key=lambda tier: -_worth(fleet, tier))


def _worth(fleet: Fleet, tier: TierState) -> float:
    curve = curve_of(fleet, tier)
    if curve is None or not is_moved(fleet, tier.pool) or tier.pool.desired < tier.pool.min_replicas:
        return float("inf")
    return curve.gain(tier.pool.desired)


def _cheapness(fleet: Fleet, tier: TierState) -> tuple[float, float]:
    """Who gives first: the smallest loss per GPU, then the best covered."""
    curve = curve_of(fleet, tier)
    if curve is None:
        return float("inf"), 0.0
    return curve.loss(tier.pool.desired), -curve.coverage(tier.pool.desired)


def _step(pool: PoolState, target: int, cause: Cause, reason: str, plan: Plan) -> Step:
    gain = plan.gains_percent[pool.accelerator] if cause.is_move else 0
    return Step(pool.name, pool.desired, target, cause, reason, gain)
