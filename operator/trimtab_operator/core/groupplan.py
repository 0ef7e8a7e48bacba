"""The allocation for the pools of one accelerator: what the rebalancer wants, and what the rails let it aim for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from trimtab_crds.routingpolicy import RebalanceMode
from trimtab_operator.core.allocation import Counts, Curve, Seat, fill, fit, gain_points, improve, release
from trimtab_operator.core.fleet import Fleet, PoolState, TierState


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The pools' targets, and the GPUs that they have: `asked` by the Deployments, `committed` at most held."""

    accelerator: str
    tiers: tuple[TierState, ...]
    budget: float
    asked: int
    committed: int
    aim: "Aim"


@dataclass(frozen=True, slots=True)
class Aim:
    """Replicas by pool. `wanted` ignores the gain threshold and the mode; `targets` is what the steps go to.

    The gains are points of the weighted share of demand served on this accelerator.
    """

    wanted: Counts
    targets: Counts
    wanted_gain_points: float
    gain_points: float


def plan_group(fleet: Fleet, accelerator: str) -> GroupPlan:
    """The allocation of one accelerator's pools."""
    tiers, budget = fleet.on(accelerator), budget_of(fleet, accelerator)
    aim = _aim(fleet, tiers, budget)
    return GroupPlan(accelerator, tiers, budget, asked_gpus(tiers), committed_gpus(tiers), aim)


def _aim(fleet: Fleet, tiers: Sequence[TierState], budget: float) -> Aim:
    staying = fit([_fixed(tier) for tier in tiers], budget)
    if fleet.settings.mode is RebalanceMode.OFF:
        return Aim(staying, staying, 0, 0)
    seats = [_seat(fleet, tier) if tier.pool.scaled else _fixed(tier) for tier in tiers]
    base = fit(seats, budget)
    # A pool that starts begins with its `replicas`, whether anybody asks for it yet or not.
    started = [seat for seat, tier in zip(seats, tiers, strict=True) if not is_starting(fleet, tier.pool)]
    wanted = release(started, improve(seats, base, budget))
    wanted_gain = gain_points(seats, base, wanted)
    if not fleet.applies:
        return Aim(wanted, staying, wanted_gain, 0)
    if wanted_gain >= fleet.settings.min_gain_percent:
        return Aim(wanted, wanted, wanted_gain, wanted_gain)
    targets = release(started, _fill_where_it_shows(fleet, seats, base, budget))
    return Aim(wanted, targets, wanted_gain, gain_points(seats, base, targets))


def curve_of(fleet: Fleet, tier: TierState) -> Curve | None:
    """The worth of the tier's replicas; None when demand or capacity is unknown."""
    if tier.work is None:
        return None
    utilization = fleet.settings.max_utilization_percent / 100
    return Curve(weight=tier.weight, gpus=tier.pool.gpus_per_replica, work=tier.work, utilization=utilization)


def budget_of(fleet: Fleet, accelerator: str) -> float:
    """GPUs of that kind that may be held.

    Without an entry it is unlimited, except in mode Apply: there nothing is added to what is asked for already.
    """
    if accelerator in fleet.budgets:
        return fleet.budgets[accelerator]
    return asked_gpus(fleet.on(accelerator)) if fleet.applies else inf


def asked_gpus(tiers: Sequence[TierState]) -> int:
    """GPUs that the Deployments ask for; pods beyond that are on their way out."""
    return sum(tier.pool.gpus_per_replica * tier.pool.desired for tier in tiers)


def committed_gpus(tiers: Sequence[TierState]) -> int:
    """The most GPUs that may be held at once before the next step."""
    return sum(tier.pool.gpus_committed for tier in tiers)


def least_replicas(pool: PoolState) -> int:
    """What the pool never goes below."""
    return pool.min_replicas if pool.scaled else pool.start_replicas


def is_moved(fleet: Fleet, pool: PoolState) -> bool:
    """The rebalancer chooses the pool's replicas."""
    return pool.scaled and fleet.applies


def is_starting(fleet: Fleet, pool: PoolState) -> bool:
    """Nothing was asked of the pool yet, so that it starts from its `replicas`."""
    return pool.desired == 0 and (pool.min_replicas > 0 or fleet.last_move_at is None)


def _fixed(tier: TierState) -> Seat:
    """The pool at its `replicas`; a scaled one may be cut down to its minimum by the budget."""
    pool, start = tier.pool, tier.pool.start_replicas
    return Seat(pool.name, pool.gpus_per_replica, least_replicas(pool), start, start, tier.weight, None)


def _seat(fleet: Fleet, tier: TierState) -> Seat:
    """The pool, free within its bounds."""
    pool = tier.pool
    return Seat(
        name=pool.name,
        gpus=pool.gpus_per_replica,
        low=pool.min_replicas,
        high=pool.max_replicas,
        now=pool.start_replicas if is_starting(fleet, pool) else pool.desired,
        weight=tier.weight,
        curve=curve_of(fleet, tier),
    )


def _fill_where_it_shows(fleet: Fleet, seats: Sequence[Seat], base: Counts, budget: float) -> Counts:
    """Growth into free GPUs, kept for the pools whose own coverage rises by the threshold."""
    filled = fill(seats, base, budget)
    threshold = max(fleet.settings.min_gain_percent, 1e-6)
    shows = {seat.name for seat in seats if gain_points([seat], base, filled) >= threshold}
    return {name: filled[name] if name in shows else base[name] for name in base}
