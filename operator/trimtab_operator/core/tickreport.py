"""What a tick tells the world: the part of a RoutingPolicy's status that is the rebalancer's."""

from dataclasses import dataclass
from datetime import UTC, datetime

from trimtab_crds.routingpolicy import Demand as DemandStatus
from trimtab_crds.routingpolicy import GpuUse, Move, RebalanceMode, ReplicaCounts, TierStatus
from trimtab_operator.core.fleet import Demand, Fleet, TierState, two_digits
from trimtab_operator.core.rebalance import Plan, Problem, Verdict
from trimtab_operator.core.steps import Step


@dataclass(frozen=True, slots=True)
class TickReport:
    """Everything is stable at rest: two ticks that observe the same give equal reports.

    `last_move` is new when the step was a move, else None: the earlier one stays. `metrics_problem` says why demand is
    missing, and is empty when every tier's demand is known.
    """

    tiers: tuple[TierStatus, ...]
    gpus: tuple[GpuUse, ...]
    decision: str
    step: Step | None
    last_move: Move | None
    problem: Problem | None
    metrics_problem: str

    @property
    def again(self) -> bool:
        """More may be started at once: growth into free GPUs need not wait for the next interval."""
        return self.step is not None and self.step.grows


def report_of(fleet: Fleet, plan: Plan, step: Step | None, *, metrics_problem: str, now: float) -> TickReport:
    """The report of a tick that observed `fleet`, planned `plan` and took `step`."""
    return TickReport(
        tiers=tuple(_tier(tier, plan.verdicts[tier.name]) for tier in fleet.tiers),
        gpus=tuple(_gpu_use(fleet, accelerator, budget) for accelerator, budget in fleet.budgets.items()),
        decision=plan.decision,
        step=step,
        last_move=_move(step, now) if step is not None and step.cause.is_move else None,
        problem=plan.problem,
        metrics_problem=_metrics_problem(fleet, metrics_problem),
    )


def _tier(tier: TierState, verdict: Verdict) -> TierStatus:
    pool = tier.pool
    return TierStatus(
        name=tier.name,
        pool=pool.name,
        demand=None if tier.demand is None else _per_minute(tier.demand),
        replicas=ReplicaCounts(
            desired=verdict.desired, ready=pool.ready, starting=pool.starting, draining=pool.draining
        ),
        coverage_percent=verdict.coverage_percent,
        limited_by=verdict.limited_by.value,
    )


def _per_minute(demand: Demand) -> DemandStatus:
    return DemandStatus(
        requests_per_minute=round(two_digits(60 * demand.requests_per_second)),
        prompt_tokens_per_minute=round(two_digits(60 * demand.prompt_tokens_per_second)),
        output_tokens_per_minute=round(two_digits(60 * demand.output_tokens_per_second)),
    )


def _gpu_use(fleet: Fleet, accelerator: str, budget: int) -> GpuUse:
    held = sum(tier.pool.gpus_held for tier in fleet.on(accelerator))
    return GpuUse(accelerator=accelerator, budget=budget, held=held)


def _move(step: Step, now: float) -> Move:
    return Move(
        time=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        pool=step.pool,
        from_replicas=step.from_replicas,
        to_replicas=step.to_replicas,
        reason=step.reason,
        expected_gain_percent=step.expected_gain_percent,
    )


def _metrics_problem(fleet: Fleet, problem: str) -> str:
    missing = [tier.name for tier in fleet.tiers if tier.demand is None]
    if not missing or fleet.settings.mode is RebalanceMode.OFF:
        return ""
    why = problem or f"no router reported for the whole window of {fleet.settings.window_seconds} s yet"
    return f"no demand data for {', '.join(missing)}: {why}; their replicas are held"
