"""The status of a policy: its routers, and what the rebalancer reported last."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab_operator.core import conditions
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.observe import Observation
from trimtab_operator.core.problems import Problem
from trimtab_operator.core.tickreport import TickReport

_REBALANCER = ("tiers", "gpus", "decision", "lastMove")


@dataclass(frozen=True, slots=True)
class PolicyView:
    """Everything that a policy's status is made of. `report` is None before the rebalancer's first tick."""

    seen: Observation
    wanted_routers: int
    problem: Problem | None
    config_hash: str
    address: str
    report: TickReport | None
    hold: str = ""
    """Why nothing may be moved now, where the rebalancer cannot even count."""
    conflict: Fact | None = None
    """The condition ChildrenOwned, where somebody else changed a child."""
    previous: Mapping[str, Any] = field(default_factory=dict)


def policy_status(view: PolicyView, *, generation: int, now: float) -> dict[str, Any]:
    """The whole status; equal worlds give equal statuses. `now` is in epoch seconds."""
    previous: Sequence[Mapping[str, Any]] = view.previous.get("conditions") or []
    status = {
        "conditions": conditions.merge(previous, _facts(view, previous), generation=generation, now=now),
        "observedGeneration": generation,
        # An invalid policy leaves routers with the last good document.
        "configHash": view.config_hash or view.previous.get("configHash", ""),
        "routerReadyReplicas": view.seen.ready,
        "address": view.address,
    }
    return status | _rebalancer(view)


def _rebalancer(view: PolicyView) -> dict[str, Any]:
    """What the last tick said; a new leader keeps what the old one wrote until its own first tick."""
    kept = {key: view.previous[key] for key in _REBALANCER if view.previous.get(key) is not None}
    report = view.report
    if view.hold:
        return kept | {"decision": f"hold: {view.hold}"}
    if report is None:
        return kept
    said: dict[str, Any] = {
        "tiers": [tier.model_dump(by_alias=True, exclude_none=True) for tier in report.tiers],
        "gpus": [use.model_dump(by_alias=True) for use in report.gpus],
        "decision": report.decision,
    }
    if report.last_move is not None:
        said["lastMove"] = report.last_move.model_dump(by_alias=True)
    return kept | said


def _facts(view: PolicyView, previous: Sequence[Mapping[str, Any]]) -> Iterable[Fact]:
    problem = view.problem or _reported(view.report)
    if problem is not None:
        yield Fact(conditions.READY, status=False, reason=problem.reason, message=problem.message)
        yield Fact(conditions.STALLED, status=True, reason=problem.reason, message=problem.message)
    else:
        yield from _routers(view)
    yield from _metrics(view, previous)
    if view.conflict is not None:
        yield view.conflict


def _reported(report: TickReport | None) -> Problem | None:
    if report is None or report.problem is None:
        return None
    return Problem(report.problem.reason, report.problem.message)


def _routers(view: PolicyView) -> Iterable[Fact]:
    seen, wanted = view.seen, view.wanted_routers
    counts = f"{seen.ready} of {wanted} routers answer"
    settled = seen.exists and seen.desired == wanted and not seen.updating and seen.ready >= wanted
    if settled:
        reason = "Available" if wanted else "ScaledToZero"
        yield Fact(conditions.READY, status=True, reason=reason, message=counts)
        return
    message = f"{counts}; {seen.trouble}" if seen.trouble else counts
    yield Fact(conditions.READY, status=False, reason="RoutersNotReady", message=message)
    if seen.failed:
        yield Fact(conditions.STALLED, status=True, reason="ProgressDeadlineExceeded", message=seen.failed)
    else:
        yield Fact(conditions.RECONCILING, status=True, reason="RoutersNotReady", message=message)


def _metrics(view: PolicyView, previous: Sequence[Mapping[str, Any]]) -> Iterable[Fact]:
    """Whether demand is known; before the first tick what was known last."""
    kind = conditions.METRICS_AVAILABLE
    if view.report is None:
        yield from (_kept(c) for c in previous if c["type"] == kind)
    elif view.report.metrics_problem:
        yield Fact(kind, status=False, reason="DemandUnknown", message=view.report.metrics_problem)
    else:
        yield Fact(kind, status=True, reason="DemandKnown", message="demand of every tier is known, or not asked for")


def _kept(condition: Mapping[str, Any]) -> Fact:
    status = {"True": True, "False": False}.get(condition["status"])
    return Fact(condition["type"], status=status, reason=condition["reason"], message=condition["message"])
