"""What the loops share: ports, the world, the clock and the settings of children."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab_operator.core import conditions, names
from trimtab_operator.core.autoscalers import Autoscaler
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.desired import ChildSettings
from trimtab_operator.core.eventbody import event
from trimtab_operator.core.kinds import Kind
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.cluster import Cluster, ClusterError, FencedError
from trimtab_operator.shell.newcomers import Newcomers
from trimtab_operator.shell.parsing import Parsed
from trimtab_operator.shell.telemetry import Telemetry
from trimtab_operator.shell.wakeups import Wakeups
from trimtab_operator.shell.world import Key, World

logger = logging.getLogger(__name__)

Manifest = Mapping[str, Any]


#: How long a change of a child by somebody else is shown; resyncs are shorter.
CONFLICT_SECONDS = 600.0


@dataclass(slots=True)
class Written:
    """The last answers to our own writes: a watch may lag behind them."""

    _answers: dict[tuple[str, str, str], tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def newest(self, live: Manifest | None) -> Manifest | None:
        """`live`, or our write's answer while the watch still shows what was there before it."""
        if live is None:
            return None
        before, answer = self._answers.get(_identity(live), ("", {}))
        if answer and live["metadata"]["resourceVersion"] == before:
            return answer
        self._answers.pop(_identity(live), None)
        return live

    def note(self, before: Manifest | None, answer: dict[str, Any]) -> None:
        """An apply turned `before` into `answer`."""
        version = before["metadata"]["resourceVersion"] if before else ""
        self._answers[_identity(answer)] = (version, answer)


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    return manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Who changed what of a child, in the API server's words, and when we put it back (epoch seconds)."""

    message: str
    at: float


@dataclass(slots=True)
class Deps:
    """The operator's parts, wired once in app.py or by a test. `clock` is in epoch seconds."""

    cluster: Cluster
    world: World
    wakeups: Wakeups
    telemetry: Telemetry
    children: ChildSettings
    clock: Callable[[], float]
    identity: str
    reports: dict[Key, TickReport] = field(default_factory=dict)
    holds: dict[Key, str] = field(default_factory=dict)
    """Policies whose rebalancer may not move anything now, and why."""
    autoscalers: frozenset[Autoscaler] = frozenset()
    """Autoscalers of others, as of the last look."""
    wanted: dict[Key, str] = field(default_factory=dict)
    """The Deployment of the revision that each pool's spec asks for, once a pass found it acceptable."""
    conflicts: dict[tuple[str, str, str], Conflict] = field(default_factory=dict)
    """By kind, namespace and name: owners of whose children somebody else lately changed a field."""
    named: dict[Key, frozenset[str]] = field(default_factory=dict)
    """The pools that each policy named when its last event came."""
    verified: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By uid: the resourceVersion and the digest of the desire for which a child was last found to be as desired."""
    newcomers: Newcomers = field(default_factory=Newcomers)
    written: Written = field(default_factory=Written)
    parsed: Parsed = field(default_factory=Parsed)


def conflict_of(deps: Deps, kind: Kind, key: Key) -> Fact | None:
    """The condition ChildrenOwned, while a change of a child by somebody else is news."""
    found = deps.conflicts.get((kind.kind, *key))
    if found is None:
        return None
    if deps.clock() - found.at >= CONFLICT_SECONDS:
        del deps.conflicts[kind.kind, *key]
        return None
    message = f"{found.message}; it was put back: change the {kind.kind} instead, or stop the other manager"
    return Fact(conditions.CHILDREN_OWNED, status=False, reason="FieldConflict", message=message)


async def write_status(deps: Deps, live: Manifest, status: Mapping[str, Any]) -> None:
    """Write the status if it differs, and post one Event for each transition of a condition."""
    before = live.get("status") or {}
    if before == status:
        return
    meta = live["metadata"]
    body = {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "status": status,
    }
    answer = await deps.cluster.apply_status(body, manager=names.STATUS_MANAGER)
    deps.written.note(live, answer)
    for change in conditions.transitions(before.get("conditions") or [], status["conditions"]):
        try:
            await deps.cluster.create_event(event(live, change, now=deps.clock(), reporter=deps.identity))
        except FencedError:
            raise
        except ClusterError as error:
            logger.warning("an Event was not posted: %s", error)


async def mark_broken(deps: Deps, kind: Kind, key: Key) -> None:
    """Say in the status that the operator itself failed on this object; best effort."""
    live = deps.world.one(kind, key)
    if live is None:
        return
    message = "the operator failed on this object; its log has the traceback, please report it"
    status = live.get("status") or {}
    previous = status.get("conditions") or []
    facts = [
        Fact(conditions.READY, status=False, reason="InternalError", message=message),
        Fact(conditions.STALLED, status=True, reason="InternalError", message=message),
    ]
    generation = live["metadata"]["generation"]
    merged = conditions.merge(previous, facts, generation=generation, now=deps.clock())
    kept = [c for c in previous if c["type"] not in (conditions.READY, conditions.STALLED, conditions.RECONCILING)]
    try:
        await write_status(deps, live, {**status, "conditions": [*merged, *kept], "observedGeneration": generation})
    except ClusterError as error:
        logger.warning("the failure is not in the status: %s", error)
