"""The writes that bring a pool to a number of replicas, end its drains, and undo drains that are no longer wanted.

A replica that serves is never ended at once: it is cordoned first (out of the Service, streams stay open), and its
workload shrinks when nothing is in flight on it, or when its deadline is over. What is not known is never zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab_operator.core import childmeta
from trimtab_operator.core.revisions import PoolReplicas, ReplicaPod, Revision

#: Requests in flight by pod name; a pod that did not say is absent.
InFlight = Mapping[str, int]
#: How long a pod that is cut off may still take: to stop being sent to, and to exit.
CUT_OFF_GRACE_SECONDS = childmeta.PRE_STOP_SECONDS + 30


@dataclass(frozen=True, slots=True)
class Scale:
    """Set a workload's replicas, and what a roll-out has borrowed there."""

    workload: str
    replicas: int
    balance: int


@dataclass(frozen=True, slots=True)
class Cordon:
    """Take a replica out of the Service, or put it back."""

    pod: ReplicaPod
    on: bool


@dataclass(frozen=True, slots=True)
class CutOff:
    """End a pod whose time to drain is over: shorten the grace that it was given."""

    pod: ReplicaPod


@dataclass(frozen=True, slots=True)
class Mark:
    """Remember of a revision that it answers, or why it was given up (empty: it was not)."""

    workload: str
    proven_at: float | None
    failed: str
    starts_since: float | None = None


Write = Scale | Cordon | CutOff | Mark


def resize(pool: PoolReplicas, replicas: int, in_flight: InFlight) -> list[Write]:
    """The writes that make `replicas` the number that is meant; the caller vouches for the GPUs of a growth."""
    change = replicas - pool.intended
    if change > 0:
        return _grow(pool.target, change)
    owed = min(-change, max(0, -pool.balance))
    if owed and pool.target is not None:
        # A replica that a roll-out took away and has not brought back yet.
        return [Scale(pool.target.name, pool.target.asked, pool.target.balance + owed)]
    return take(_in_order(pool), -change, in_flight)


def _grow(target: Revision | None, count: int) -> list[Write]:
    """Replicas that drain serve again: they are free and instant. The oldest drain is the emptiest, and goes on."""
    if target is None:
        return []
    back = sorted(target.cordoned, key=_last_to_end if target.ordered else _first_to_return)[:count]
    writes: list[Write] = [Cordon(pod, on=False) for pod in back]
    if count > len(back):
        writes += grown(target, count - len(back), target.balance)
    return writes


def grown(revision: Revision, count: int, balance: int) -> list[Write]:
    """So many more of a revision. Pods that were about to end are kept by that, so they serve again."""
    kept = revision.leaving[max(0, len(revision.leaving) - count) :]
    back: list[Write] = [Cordon(pod, on=False) for pod in kept]
    return [*back, Scale(revision.name, revision.asked + count, balance)]


def _first_to_return(pod: ReplicaPod) -> tuple[bool, float, str]:
    return not pod.ready, -(pod.drains_since or 0.0), pod.name


def _last_to_end(pod: ReplicaPod) -> int:
    """An ordered workload can only end the others."""
    return pod.index


def _in_order(pool: PoolReplicas) -> list[Revision]:
    """Outdated revisions give first."""
    return sorted((r for r in pool.revisions if r.name), key=lambda r: (r is pool.target, r.created, r.name))


def take(revisions: Iterable[Revision], count: int, in_flight: InFlight) -> list[Write]:
    """The writes that take that many serving replicas away, from the first revisions first.

    Within a revision: pods that were not made yet and pods that do not answer go at once, they answer nobody; then
    those with the least in flight drain, unknown ones last. An ordered one gives its last replicas.
    """
    writes: list[Write] = []
    for revision in revisions:
        if revision.ordered:
            writes += _take_last(revision, count)
            count -= min(count, revision.serving)
            continue
        idle = min(count, revision.serving, revision.missing + revision.starting)
        if idle:
            writes.append(Scale(revision.name, revision.asked - idle, revision.balance))
        busy = min(count - idle, revision.serving - idle)
        writes += [Cordon(pod, on=True) for pod in _least_busy(revision, in_flight)[:busy]]
        count -= idle + busy
    return writes


def _take_last(revision: Revision, count: int) -> list[Write]:
    """Its last replicas drain. Those at the very end that do not answer go at once; what is not there yet is waited
    for."""
    by_index = {pod.index: pod for pod in revision.staying}
    asked, left = revision.asked, min(count, revision.serving)
    while left and _is_idle(by_index.get(asked - 1)):
        asked, left = asked - 1, left - 1
    writes: list[Write] = [] if asked == revision.asked else [Scale(revision.name, asked, revision.balance)]
    for index in reversed(range(asked)):
        pod = by_index.get(index)
        if not left or pod is None:
            break
        if not pod.cordoned:
            writes.append(Cordon(pod, on=True))
            left -= 1
    return writes


def _is_idle(pod: ReplicaPod | None) -> bool:
    return pod is None or not (pod.ready or pod.cordoned)


def _least_busy(revision: Revision, in_flight: InFlight) -> list[ReplicaPod]:
    serving = [pod for pod in revision.staying if pod.ready and not pod.cordoned]
    return sorted(serving, key=lambda p: (in_flight.get(p.name, float("inf")), p.name))


def end_drains(pool: PoolReplicas, in_flight: InFlight, *, deadline_seconds: int, now: float) -> list[Write]:
    """Shrink by the replicas that have drained, and cut off those that were given up."""
    writes: list[Write] = []
    for revision in pool.revisions:
        done = [p for p in revision.cordoned if _has_drained(p, in_flight, deadline_seconds, now)]
        if done and revision.name:
            writes += _end(revision, done)
        writes += [CutOff(p) for p in revision.pods if _is_overdue(p, deadline_seconds, now)]
    return writes


def _end(revision: Revision, done: Sequence[ReplicaPod]) -> list[Write]:
    """A ReplicaSet would end pods that start before these; then those go, and as many of these serve again.

    An ordered workload ends the last ones, so one that has drained waits for those behind it.
    """
    if revision.ordered:
        asked, places = revision.asked, {pod.index for pod in done}
        while asked - 1 in places:
            asked -= 1
        return [] if asked == revision.asked else [Scale(revision.name, asked, revision.balance)]
    spared = done[len(done) - min(len(done), revision.starting) :] if revision.starting else ()
    back: list[Write] = [Cordon(pod, on=False) for pod in spared]
    return [*back, Scale(revision.name, revision.asked - len(done), revision.balance)]


def _has_drained(pod: ReplicaPod, in_flight: InFlight, deadline_seconds: int, now: float) -> bool:
    drained_for = now - (0.0 if pod.drains_since is None else pod.drains_since)
    if not pod.ready or drained_for >= deadline_seconds:
        return True
    # Routers look names up again and again; until they have all noticed, nothing in flight means little.
    return drained_for >= childmeta.PRE_STOP_SECONDS and in_flight.get(pod.name) == 0


def _is_overdue(pod: ReplicaPod, deadline_seconds: int, now: float) -> bool:
    """It drained for its whole time before its end began; the grace for pods that had none is not for it."""
    if not pod.ending or pod.drains_since is None or now - pod.drains_since < deadline_seconds:
        return False
    return pod.grace_seconds is not None and pod.grace_seconds > CUT_OFF_GRACE_SECONDS


def to_ask(pool: PoolReplicas, *, victims: bool) -> list[ReplicaPod]:
    """Pods whose requests in flight matter now: those that drain, and where some are to be chosen, all that serve."""
    pods = [p for r in pool.revisions for p in r.staying if p.ready]
    return [p for p in pods if victims or p.cordoned]
