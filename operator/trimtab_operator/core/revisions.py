"""A pool's replicas as they are: one workload per revision, their pods, which of them drain, and how many are meant.

Nothing about a roll-out or a drain is remembered anywhere but on these objects: a pod that drains carries a label that
takes it out of the pool's Service, a workload carries how many replicas a roll-out asked for on top of the pool's.
The number of replicas that is *meant* follows from them, so that any leader goes on where the last one died.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf, isfinite
from typing import Any

from trimtab_operator.core import names
from trimtab_operator.core.groups import by_replica, index_of, is_leader, nodes_of
from trimtab_operator.core.kinds import LEADER_WORKER_SET
from trimtab_operator.core.observe import is_ready

Manifest = Mapping[str, Any]

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ReplicaPod:
    """One pod that holds its GPUs, or the leader of a group that does. Instants are in epoch seconds.

    `waits_since` is since when it is not ready, None while scheduling gates hold it (that time is the queue's).
    """

    name: str
    uid: str
    address: str
    ready: bool
    ending: bool
    drains_since: float | None
    waits_since: float | None = None
    unscheduled_since: float | None = None
    crash: str = ""
    grace_seconds: int | None = None
    index: int = 0
    """Its place in a set that ends replicas in their order."""
    workers: tuple[tuple[str, str], ...] = ()
    """Name and uid of the group's other pods."""

    @property
    def cordoned(self) -> bool:
        """Routers no longer send to it."""
        return self.drains_since is not None


@dataclass(frozen=True, slots=True)
class Revision:
    """One workload and its pods. `proven_at` is when a replica of it first answered, None before.

    An `ordered` one (a LeaderWorkerSet) ends its last replicas first, whatever they do; `starts_since` is since when
    it tries to get its first replica ready.
    """

    name: str
    revision: str
    asked: int
    pods: tuple[ReplicaPod, ...] = ()
    balance: int = 0
    proven_at: float | None = None
    failed: str = ""
    created: str = ""
    ordered: bool = False
    starts_since: float | None = None

    @property
    def staying(self) -> tuple[ReplicaPod, ...]:
        """Pods that nobody has begun to end, nor is about to because of their place."""
        return tuple(pod for pod in self.pods if not pod.ending and (not self.ordered or pod.index < self.asked))

    @property
    def cordoned(self) -> tuple[ReplicaPod, ...]:
        """Pods that drain and are not being ended yet, nor about to be: the workload still asks for them."""
        marked = self._marked
        return marked if self.ordered else marked[self._surplus :]

    @property
    def leaving(self) -> tuple[ReplicaPod, ...]:
        """Pods that drained and are about to be ended; a replica more of the workload would keep the last of them."""
        if self.ordered:
            # The next place is kept first.
            late = (p for p in self.pods if not p.ending and p.index >= self.asked and p.cordoned)
            return tuple(sorted(late, key=lambda p: -p.index))
        return self._marked[: self._surplus]

    @property
    def _marked(self) -> tuple[ReplicaPod, ...]:
        return tuple(sorted((p for p in self.staying if p.cordoned), key=lambda p: (p.ready, p.drains_since, p.name)))

    @property
    def _surplus(self) -> int:
        """A ReplicaSet ends pods that are not ready before ones with a low deletion cost."""
        return max(0, len(self.staying) - self.asked - self.starting)

    @property
    def serving(self) -> int:
        """Replicas of it that are meant to serve."""
        return self.asked - len(self.cordoned)

    @property
    def ready(self) -> int:
        """Pods that answer and are sent to."""
        return sum(pod.ready and not pod.cordoned for pod in self.staying)

    @property
    def starting(self) -> int:
        """Pods that are to serve and do not answer."""
        return sum(not pod.ready and not pod.cordoned for pod in self.staying)

    @property
    def missing(self) -> int:
        """Pods that the workload's controller has not made yet."""
        return max(0, self.asked - len(self.staying))

    @property
    def draining(self) -> int:
        """Pods that drain or end."""
        return len(self.pods) - self.ready - self.starting


@dataclass(frozen=True, slots=True)
class PoolReplicas:
    """All revisions of a pool. `wanted` is the name of the workload that the spec asks for; empty while unknown."""

    revisions: tuple[Revision, ...]
    wanted: str = ""

    @property
    def target(self) -> Revision | None:
        """Where new replicas go: the wanted revision; the one that serves best where that failed or is not there."""
        wanted = next((r for r in self.revisions if r.name == self.wanted), None)
        if wanted is not None and not wanted.failed:
            return wanted
        return self.fallback(wanted) or wanted

    def fallback(self, instead_of: Revision | None) -> Revision | None:
        """The best other revision: one that has answered, serves most, answered last."""
        others = [r for r in self.revisions if r.name and r != instead_of and not r.failed]
        known = [r for r in others if r.proven_at is not None or r.ready or instead_of is None]
        return max(known, key=_standing, default=None)

    @property
    def outdated(self) -> tuple[Revision, ...]:
        """Other revisions that still are to serve."""
        target = self.target
        return tuple(r for r in self.revisions if r is not target and r.serving > 0)

    @property
    def balance(self) -> int:
        """Replicas asked for beyond the pool's number."""
        return sum(r.balance for r in self.revisions)

    @property
    def intended(self) -> int:
        """Replicas that the pool is meant to have."""
        return sum(r.serving for r in self.revisions) - self.balance

    @property
    def ready(self) -> int:
        """See Revision."""
        return sum(r.ready for r in self.revisions)

    @property
    def starting(self) -> int:
        """See Revision."""
        return sum(r.starting for r in self.revisions)

    @property
    def draining(self) -> int:
        """See Revision."""
        return sum(r.draining for r in self.revisions)

    @property
    def reclaimable(self) -> int:
        """Draining replicas that would serve again at once."""
        return len(self.target.cordoned) if self.target else 0

    @property
    def rolling(self) -> bool:
        """A roll-out is under way."""
        return bool(self.outdated) or self.balance != 0

    @property
    def drains_since(self) -> float | None:
        """Since when the oldest drain goes on."""
        since = [p.drains_since for r in self.revisions for p in r.pods if p.drains_since is not None]
        return min(filter(isfinite, since), default=None)


def _standing(revision: Revision) -> tuple[bool, int, float, str]:
    """What makes a revision the one to go back to."""
    proven = revision.proven_at is not None
    return proven, revision.serving, revision.proven_at or 0.0, revision.created


def pool_replicas(workloads: Iterable[Manifest], pods: Iterable[Manifest], *, wanted: str = "") -> PoolReplicas:
    """A pool's revisions from its workloads and pods; a pod of no workload counts with a revision of 0 replicas."""
    by_revision: dict[str, list[ReplicaPod]] = {}
    for members in by_replica(pod for pod in pods if pod.get("status", {}).get("phase") not in _ENDED):
        by_revision.setdefault(_revision_of(members[0]), []).append(_replica(members))
    found = [_revision(workload, by_revision.pop(_revision_of(workload), [])) for workload in workloads]
    orphans = [Revision("", key, 0, tuple(pods)) for key, pods in sorted(by_revision.items())]
    return PoolReplicas((*sorted(found, key=lambda r: (r.created, r.name)), *orphans), wanted)


def _revision(workload: Manifest, pods: list[ReplicaPod]) -> Revision:
    meta = workload["metadata"]
    told = meta.get("annotations") or {}
    return Revision(
        name=meta["name"],
        revision=_revision_of(workload),
        asked=int(workload["spec"].get("replicas", 1)),
        pods=tuple(sorted(pods, key=lambda p: p.name)),
        balance=_integer(told.get(names.BALANCE_ANNOTATION)),
        proven_at=_instant(told.get(names.PROVEN_ANNOTATION)),
        failed=told.get(names.FAILED_ANNOTATION, ""),
        created=meta.get("creationTimestamp", ""),
        ordered=workload["kind"] == LEADER_WORKER_SET.kind,
        starts_since=_instant(told.get(names.STARTING_ANNOTATION)),
    )


def _replica(members: Sequence[Manifest]) -> ReplicaPod:
    """One replica of its pods, the leader first: ready when all are, gone when all are."""
    first, *others = found = [replica_pod(pod) for pod in members]
    if index_of(members[0]) is None:
        return first
    complete = len(found) == nodes_of(members[0]) and all(pod.ready and not pod.ending for pod in found)
    waits = [pod.waits_since for pod in found if pod.waits_since is not None]
    gated = any(pod.waits_since is None and pod.unscheduled_since is not None for pod in found)
    return replace(
        first,
        ready=complete,
        ending=first.ending or not is_leader(members[0]),
        waits_since=None if complete or gated else max(waits, default=None),
        unscheduled_since=min((p.unscheduled_since for p in found if p.unscheduled_since is not None), default=None),
        crash=next((pod.crash for pod in found if pod.crash), ""),
        index=index_of(members[0]) or 0,
        workers=tuple((pod.name, pod.uid) for pod in others),
    )


def replica_pod(pod: Manifest) -> ReplicaPod:
    """One pod."""
    meta, status = pod["metadata"], pod.get("status", {})
    scheduled = _condition(pod, "PodScheduled")
    unscheduled = scheduled.get("status") == "False"
    began = _instant(scheduled.get("lastTransitionTime")) or _instant(meta.get("creationTimestamp"))
    ready_changed = _instant(_condition(pod, "Ready").get("lastTransitionTime"))
    gated = unscheduled and scheduled.get("reason") == "SchedulingGated"
    return ReplicaPod(
        name=meta["name"],
        uid=meta.get("uid", ""),
        address=status.get("podIP", ""),
        ready=is_ready(pod),
        ending=bool(meta.get("deletionTimestamp")),
        drains_since=_drains_since(meta),
        waits_since=None if is_ready(pod) or gated else max(filter(None, (began, ready_changed)), default=None),
        unscheduled_since=began if unscheduled else None,
        crash=_crash(status),
        grace_seconds=meta.get("deletionGracePeriodSeconds"),
    )


def _drains_since(meta: Manifest) -> float | None:
    """A pod out of the Service without a time, by somebody's hand, never comes to the end of a drain."""
    if (meta.get("labels") or {}).get(names.SERVING_LABEL) != names.NOT_SERVING:
        return None
    said = (meta.get("annotations") or {}).get(names.DRAIN_ANNOTATION)
    return _instant(said) or inf


def _crash(status: Manifest) -> str:
    """Why its container is not tried again soon, once that is so for the third time."""
    for container in status.get("containerStatuses") or []:
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") == "CrashLoopBackOff" and container.get("restartCount", 0) >= 3:
            return f"CrashLoopBackOff after {container['restartCount']} restarts"
    return ""


def _condition(pod: Manifest, kind: str) -> Manifest:
    conditions = pod.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def _revision_of(manifest: Manifest) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(names.REVISION_LABEL, ""))


def _instant(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (TypeError, ValueError):  # written by somebody's hand
        return None


def _integer(text: Any) -> int:
    try:
        return int(text or 0)
    except ValueError:  # written by somebody's hand
        return 0
