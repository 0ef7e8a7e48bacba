"""Where replicas should be: a target per pool under the GPU budget, and why.

Order of the rails: a tier without demand or capacity is held; bounds and the budget come before any gain; replicas move
between pools only when the weighted share of demand served rises by `minGainPercent`; what nobody would miss is given
back. The plan is a function of what is observed now, so a restart in the middle of a move continues it: a pool that was
shrunk already is a state with free GPUs, and whoever gains most from them is grown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from trimtab_crds.routingpolicy import RebalanceMode
from trimtab_operator.core.allocation import Counts
from trimtab_operator.core.fleet import Fleet, PoolState, TierState
from trimtab_operator.core.groupplan import (
    GroupPlan,
    budget_of,
    curve_of,
    least_replicas,
    plan_group,
)


class Limit(StrEnum):
    """What keeps a tier from more."""

    NONE = ""
    OFF = "Off"
    DRY_RUN = "DryRun"
    MISSING_DATA = "MissingData"
    UNKNOWN_CAPACITY = "UnknownCapacity"
    BUDGET = "Budget"
    MAX_REPLICAS = "MaxReplicas"
    MIN_REPLICAS = "MinReplicas"
    COOLDOWN = "Cooldown"
    BELOW_GAIN_THRESHOLD = "BelowGainThreshold"
    WAITING_FOR_GPUS = "WaitingForGpus"
    SCALING_OWNED = "ScalingOwned"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rebalancer thinks of a tier.

    `need` is the replicas that its demand takes, `peak_need` those of its likely peak; None while unknown.
    """

    pool: str
    desired: int
    coverage_percent: int | None
    limited_by: Limit
    need: int | None
    peak_need: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the policy cannot be served as written: a machine reason and a sentence with field, value and fix."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Targets by pool, verdicts by tier, gains by accelerator, and the decision in words.

    In mode Apply the targets are what the rebalancer wants; otherwise the pools stay at their `replicas` and only the
    verdicts say what it would do.
    """

    targets: Mapping[str, int]
    verdicts: Mapping[str, Verdict]
    gains_percent: Mapping[str, int]
    decision: str
    problem: Problem | None

    @property
    def expected_gain_percent(self) -> int:
        """The largest gain on one accelerator, in points of the share of demand served."""
        return max(self.gains_percent.values(), default=0)


def plan(fleet: Fleet, *, now: float) -> Plan:
    """The target of every pool. Deterministic; `now` (epoch seconds) only matters for the cooldown it reports."""
    groups = {name: plan_group(fleet, name) for name in fleet.accelerators}
    return Plan(
        targets={pool: count for group in groups.values() for pool, count in group.aim.targets.items()},
        verdicts={tier.name: _verdict(fleet, tier, groups[tier.pool.accelerator], now) for tier in fleet.tiers},
        gains_percent={name: round(group.aim.gain_points) for name, group in groups.items()},
        decision="; ".join(f"{name}: {_decision(fleet, group, now)}" for name, group in groups.items()),
        problem=next((found for name in groups if (found := _problem(fleet, name))), None),
    )


def _problem(fleet: Fleet, accelerator: str) -> Problem | None:
    """The budget is missing, or cannot even hold the pools' minimum."""
    tiers, budget = fleet.on(accelerator), budget_of(fleet, accelerator)
    if accelerator not in fleet.budgets and fleet.applies:
        return Problem(
            "BudgetMissing",
            f"spec.rebalance.gpuBudget has no entry for {accelerator}, which pool {tiers[0].pool.name} runs on; "
            "add one: without it nothing is started there",
        )
    least = {t.pool.name: t.pool.gpus_per_replica * least_replicas(t.pool) for t in tiers}
    if sum(least.values()) <= budget:
        return None
    takes = ", ".join(f"{name} {gpus}" for name, gpus in least.items())
    return Problem(
        "BudgetTooSmall",
        f"spec.rebalance.gpuBudget[{accelerator}].gpus {budget:g} is below the {sum(least.values())} GPUs that "
        f"the pools need at least ({takes}); raise it, or lower scaling.minReplicas or replicas of a pool",
    )


def _verdict(fleet: Fleet, tier: TierState, group: GroupPlan, now: float) -> Verdict:
    pool, curve = tier.pool, curve_of(fleet, tier)
    return Verdict(
        pool=pool.name,
        desired=group.aim.wanted[pool.name],
        coverage_percent=None if curve is None else int(100 * curve.coverage(pool.ready) + 1e-9),
        limited_by=_limit(fleet, tier, group, now),
        need=None if curve is None else curve.need,
        peak_need=None if curve is None else curve.peak_need,
    )


def _limit(fleet: Fleet, tier: TierState, group: GroupPlan, now: float) -> Limit:
    """The first thing that stands between the tier and more replicas."""
    pool, curve = tier.pool, curve_of(fleet, tier)
    wanted, target = group.aim.wanted[pool.name], group.aim.targets[pool.name]
    if fleet.settings.mode is RebalanceMode.OFF:
        return Limit.OFF
    if pool.owner:
        return Limit.SCALING_OWNED
    if curve is None:
        return Limit.MISSING_DATA if tier.demand is None else Limit.UNKNOWN_CAPACITY
    if wanted > target:
        return Limit.BELOW_GAIN_THRESHOLD if fleet.applies else Limit.DRY_RUN
    if target > pool.desired:
        return _limit_of_growth(fleet, pool, group, now)
    return _limit_at_target(pool, curve.need, target)


def _limit_at_target(pool: PoolState, need: int, target: int) -> Limit:
    """What keeps the target itself from being what the demand needs."""
    if need > target:
        return Limit.MAX_REPLICAS if target >= pool.max_replicas else Limit.BUDGET
    return Limit.MIN_REPLICAS if need < target == least_replicas(pool) else Limit.NONE


def _limit_of_growth(fleet: Fleet, pool: PoolState, group: GroupPlan, now: float) -> Limit:
    """Why a pool below its target is not grown this instant."""
    if group.committed + pool.gpus_per_replica <= group.budget:
        return Limit.NONE
    if group.asked + pool.gpus_per_replica > group.budget and now < fleet.rests_until():
        return Limit.COOLDOWN
    return Limit.WAITING_FOR_GPUS


def _decision(fleet: Fleet, group: GroupPlan, now: float) -> str:
    """What is done and why, as one sentence without a countdown, so that it is stable at rest."""
    if fleet.settings.mode is RebalanceMode.OFF:
        return "rebalancing is off"
    scaled = [tier for tier in group.tiers if tier.pool.scaled]
    blind = [tier.name for tier in scaled if tier.demand is None]
    unknown = [tier.name for tier in scaled if tier.demand is not None and tier.work is None]
    notes = [f"held for want of demand data: {', '.join(blind)}"] if blind else []
    notes += [f"{tier.pool.name} is left to {tier.pool.owner}" for tier in group.tiers if tier.pool.owner]
    notes += [f"held because spec.model.shape is not set: {', '.join(unknown)}"] if unknown else []
    return "; ".join([_sentence(fleet, group, now), *notes])


def _sentence(fleet: Fleet, group: GroupPlan, now: float) -> str:
    wanted, moves = _moves(group.tiers, group.aim.wanted), _moves(group.tiers, group.aim.targets)
    if group.asked > group.budget:
        return f"over the budget of {group.budget:g} GPUs: {moves or 'nothing may be taken away'}"
    if not fleet.applies:
        return (
            f"DryRun, would change {wanted} ({_points(group.aim.wanted_gain_points)})" if wanted else "nothing to move"
        )
    if moves:
        return f"change {moves} ({_points(group.aim.gain_points)}){_pause(fleet, group, now)}"
    if wanted:
        threshold = fleet.settings.min_gain_percent
        return f"hold: {wanted} brings {_points(group.aim.wanted_gain_points)}, below minGainPercent {threshold}"
    return "nothing to move"


def _pause(fleet: Fleet, group: GroupPlan, now: float) -> str:
    """When replicas may be taken away, if any are to be and it is not yet."""
    changes = [group.aim.targets[tier.pool.name] - tier.pool.desired for tier in group.tiers]
    ends_at = fleet.rests_until(release=max(changes) <= 0)
    if now >= ends_at or min(changes) >= 0:
        return ""
    return f", resting until {datetime.fromtimestamp(ends_at, UTC):%H:%M:%SZ}"


def _moves(tiers: Sequence[TierState], counts: Counts) -> str:
    """`pool 3 to 1` for every pool that these counts change."""
    pools = [tier.pool for tier in tiers if counts[tier.pool.name] != tier.pool.desired]
    return ", ".join(f"{pool.name} {pool.desired} to {counts[pool.name]}" for pool in pools)


def _points(points: float) -> str:
    """The gain in words; giving back gains nothing."""
    if round(points) == 0:
        return "demand served stays the same"
    return f"demand served {round(points):+d} points"
