"""What the live view, the plain lines and the report show: one picture of the run, and what is kept to draw it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from trimtab_cli.local.load import Tally
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import Move, TierStatus
from trimtab_operator.core.fleet import PoolState
from trimtab_operator.core.tickreport import TickReport

#: Points of a sparkline.
HISTORY = 40


@dataclass(frozen=True, slots=True)
class TierRow:
    """A tier now. `demand` holds the last requests per minute, None where they were missing."""

    name: str
    model: str
    state: PoolState
    wanted: int
    coverage_percent: int | None
    limited_by: str
    requests_per_minute: int | None
    demand: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class GpuRow:
    """The GPUs of one accelerator; no budget is None."""

    accelerator: str
    held: int
    peak: int
    budget: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole picture. Money is in currency units, time in seconds."""

    policy: str
    url: str
    source: str
    phase: str
    elapsed_seconds: float
    for_seconds: float | None
    hard_share: float | None
    tiers: tuple[TierRow, ...]
    gpus: tuple[GpuRow, ...]
    cost_per_hour: float
    spent: float
    requests_per_second: float
    open_requests: int
    tally: Tally
    moves: int
    history: tuple[Move, ...]
    decision: str
    notes: tuple[str, ...] = ()

    @property
    def gpus_held(self) -> int:
        """GPUs of all kinds."""
        return sum(row.held for row in self.gpus)


@dataclass(slots=True)
class Ledger:
    """What must be added up over time: money, request rate, demand history."""

    spent: float = 0.0
    _last_at: float | None = None
    _answers: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20))
    _demand: dict[str, deque[int | None]] = field(default_factory=dict)
    _last_report: TickReport | None = None

    def advance(self, now: float, *, cost_per_hour: float, answered: int) -> None:
        """Account for the time since the last call."""
        if self._last_at is not None:
            self.spent += cost_per_hour * (now - self._last_at) / 3600
        self._last_at = now
        self._answers.append((now, answered))

    def remember(self, report: TickReport | None) -> None:
        """Keep a report's demand, once."""
        if report is None or report is self._last_report:
            return
        self._last_report = report
        for tier in report.tiers:
            history = self._demand.setdefault(tier.name, deque(maxlen=HISTORY))
            history.append(tier.demand.requests_per_minute if tier.demand else None)

    def demand(self, tier: str) -> tuple[int | None, ...]:
        """The last requests per minute of a tier."""
        return tuple(self._demand.get(tier, ()))

    @property
    def requests_per_second(self) -> float:
        """Answers per second over the last calls."""
        if len(self._answers) < 2:
            return 0.0
        (start, before), (end, after) = self._answers[0], self._answers[-1]
        return (after - before) / (end - start) if end > start else 0.0


def cost_per_hour(pools: Mapping[str, InferencePool], states: Mapping[str, PoolState]) -> float:
    """Price of the GPUs that are held."""
    return sum(
        (state.ready + state.starting + state.draining)
        * state.gpus_per_replica
        * pools[name].spec.cost.gpu_hour_milli
        / 1000
        for name, state in states.items()
    )


def tier_row(
    name: str, pool: InferencePool, state: PoolState, status: TierStatus | None, demand: tuple[int | None, ...]
) -> TierRow:
    """A tier before (`status` None) or after the rebalancer's first look."""
    known = status.demand if status else None
    return TierRow(
        name=name,
        model=pool.spec.model.name.rpartition("/")[2],
        state=state,
        wanted=status.replicas.desired if status else state.desired,
        coverage_percent=status.coverage_percent if status else None,
        limited_by=status.limited_by if status else "",
        requests_per_minute=known.requests_per_minute if known else None,
        demand=demand,
    )


def notes_of(report: TickReport | None) -> tuple[str, ...]:
    """What somebody should mend."""
    if report is None:
        return ()
    return tuple(filter(None, (report.metrics_problem, report.problem.message if report.problem else "")))
