"""Conditions as kubectl wait, kstatus, Argo CD and Flux read them: one writer, one function.

`Reconciling` and `Stalled` are abnormal-true: present only while true. `lastTransitionTime` changes when a status flips
and at no other time, so an unchanged world gives an unchanged status.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
RECIPE_VALID = "RecipeValid"
NODES_READY = "NodesReady"
METRICS_AVAILABLE = "MetricsAvailable"
ROLLED_OUT = "RolledOut"
SCALING_OWNED = "ScalingOwned"
CHILDREN_OWNED = "ChildrenOwned"

_ABNORMAL = (RECONCILING, STALLED)
#: The API server refuses longer messages of standard conditions.
_MESSAGE_LENGTH = 32768

Conditions = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Fact:
    """What holds now. `status` is True, False or None (unknown)."""

    type: str
    status: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that flipped or whose reason changed; `warning` when it is bad news."""

    type: str
    reason: str
    message: str
    warning: bool


def merge(previous: Conditions, facts: Iterable[Fact], *, generation: int, now: float) -> list[dict[str, Any]]:
    """The conditions to write. `now` is in epoch seconds."""
    before = {c["type"]: c for c in previous}
    kept = [fact for fact in facts if fact.status is True or fact.type not in _ABNORMAL]
    return [_condition(fact, before.get(fact.type), generation, now) for fact in kept]


def transitions(previous: Conditions, current: Conditions) -> list[Transition]:
    """What changed, for Events: bad news when its status or reason changes, good news when it ends bad news.

    While progress is made, not being Ready is no news; losing readiness is.
    """
    before = {c["type"]: c for c in previous}
    moving = any(c["type"] == RECONCILING for c in current)
    return [
        Transition(c["type"], c["reason"], c["message"], warning=_is_bad(c) and not moving)
        for c in current
        if c["type"] != RECONCILING and _is_news(before.get(c["type"]), c, moving=moving)
    ]


def timestamp(now: float) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes times."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(fact: Fact, before: Mapping[str, Any] | None, generation: int, now: float) -> dict[str, Any]:
    status = {True: "True", False: "False", None: "Unknown"}[fact.status]
    same = before is not None and before["status"] == status
    return {
        "type": fact.type,
        "status": status,
        "reason": fact.reason,
        "message": fact.message[:_MESSAGE_LENGTH],
        "lastTransitionTime": before["lastTransitionTime"] if before is not None and same else timestamp(now),
        "observedGeneration": generation,
    }


def _is_news(before: Mapping[str, Any] | None, now: Mapping[str, Any], *, moving: bool) -> bool:
    if before is None:
        return _is_bad(now) and not moving
    if moving and now["type"] == READY:
        return bool(before["status"] == "True")
    return bool(before["status"] != now["status"] or (_is_bad(now) and before["reason"] != now["reason"]))


def _is_bad(condition: Mapping[str, Any]) -> bool:
    good = "False" if condition["type"] in _ABNORMAL else "True"
    return bool(condition["status"] != good)
