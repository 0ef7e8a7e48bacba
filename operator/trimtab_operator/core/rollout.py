"""The next writes of a roll-out: replicas go from outdated revisions to the target one at a time, GPUs counted.

Where the budget has room, a new replica starts before an old one drains (surge); else one old replica drains, its pod
is waited for, and a new one starts in its place. A target that does not answer by its deadline is given up, and the
revision before it becomes the target again: rolling back is rolling out. Nothing is remembered but on the objects.
"""

from dataclasses import dataclass
from enum import StrEnum

from trimtab_crds.inferencepool import Rollout
from trimtab_operator.core.resize import InFlight, Mark, Scale, Write, grown, take
from trimtab_operator.core.revisions import PoolReplicas, ReplicaPod, Revision

#: After this, a surge that finds no node is taken for a cluster without a spare GPU, whatever the budget says.
SURGE_PATIENCE_SECONDS = 30.0


class Phase(StrEnum):
    """Where a roll-out stands."""

    DONE = "UpToDate"
    ROLLING = "RollingOut"
    CANARY = "Canary"
    ROLLED_BACK = "RolledBack"


@dataclass(frozen=True, slots=True)
class Room:
    """What the GPU budget allows now: `surge` one replica more than meant, `regrow` one that a roll-out took away."""

    surge: bool
    regrow: bool


def phase(pool: PoolReplicas, rules: Rollout, *, now: float) -> Phase:
    """Where the roll-out stands."""
    wanted = next((r for r in pool.revisions if r.name == pool.wanted), None)
    if wanted is not None and wanted.failed and pool.target is not wanted:
        return Phase.ROLLED_BACK
    if not pool.rolling:
        return Phase.DONE
    return Phase.CANARY if canary_until(pool, rules) > now else Phase.ROLLING


def canary_until(pool: PoolReplicas, rules: Rollout) -> float:
    """Until when (epoch seconds) the first new replica is looked at before more follow; 0 when that is over."""
    target = pool.target
    if rules.canary is None or target is None or target.failed or not pool.outdated or _goes_back(pool):
        return 0.0
    return float("inf") if target.proven_at is None else target.proven_at + rules.canary.pause_seconds


def marks(pool: PoolReplicas, rules: Rollout, *, now: float) -> list[Write]:
    """What there is to remember: a revision that answers for the first time, and one that never will."""
    writes: list[Write] = [
        Mark(r.name, now, r.failed) for r in pool.revisions if r.name and r.ready and r.proven_at is None
    ]
    writes += [mark for r in pool.revisions if not r.ready and (mark := _beginning(r, now)) is not None]
    target = pool.target
    if writes or target is None or target.failed or pool.fallback(target) is None:
        return writes
    if (pool.outdated or target.proven_at is None) and (why := failure(target, rules, now=now)):
        return [Mark(target.name, target.proven_at, why)]
    return []


def _beginning(revision: Revision, now: float) -> Mark | None:
    """A group that crashes is made anew, so its pods are always young: the time they have counts from the first one."""
    if not revision.ordered or revision.proven_at is not None or revision.failed:
        return None
    tries = any(pod.waits_since is not None for pod in revision.staying)
    if tries and revision.starts_since is None:
        return Mark(revision.name, None, "", now)
    stopped = revision.asked == 0 and revision.starts_since is not None
    return Mark(revision.name, None, "") if stopped else None


def failure(revision: Revision, rules: Rollout, *, now: float) -> str:
    """Why the revision is given up; empty while it is not."""
    for pod in revision.staying:
        if pod.ready or pod.cordoned:
            continue
        if pod.crash:
            return f"pod {pod.name}: {pod.crash}"
        if pod.waits_since is not None and now - _since(revision, pod.waits_since) >= rules.progress_deadline_seconds:
            return (
                f"pod {pod.name} was not ready within rollout.progressDeadlineSeconds {rules.progress_deadline_seconds}"
            )
    return ""


def _since(revision: Revision, waits_since: float) -> float:
    first = revision.starts_since
    return waits_since if first is None or revision.proven_at is not None else min(first, waits_since)


def roll(pool: PoolReplicas, rules: Rollout, room: Room, in_flight: InFlight, *, now: float) -> list[Write]:
    """The next writes; none while something is waited for, or when all is done."""
    target = pool.target
    if target is None or not pool.rolling:
        return []
    if pool.balance < 0:
        return grown(target, 1, target.balance + 1) if room.regrow else []
    if not pool.outdated:
        return [_borrow(target, by=-pool.balance)]
    if _waits(pool, target, rules, now):
        return []
    if pool.balance == 0 and rules.surge and room.surge:
        return grown(target, 1, target.balance + 1)
    # One at a time; a surge that is ready, or that needs this very GPU, waits for no other drain.
    return _retire(pool, target, in_flight) if pool.balance > 0 or not pool.draining else []


def _waits(pool: PoolReplicas, target: Revision, rules: Rollout, now: float) -> bool:
    """The newest replica is to get ready first, or to prove itself."""
    if target.starting or target.missing:
        stuck = pool.balance > 0 and any(_finds_no_node(pod, now) for pod in target.staying)
        return not stuck
    return target.ready > 0 and canary_until(pool, rules) > now


def _retire(pool: PoolReplicas, target: Revision, in_flight: InFlight) -> list[Write]:
    """One outdated replica less. The number that is meant is written first: a crash in between takes nobody away."""
    taken = take(pool.outdated, 1, in_flight)
    return [_borrow(target, by=-1), *taken] if taken else []


def _borrow(target: Revision, *, by: int) -> Scale:
    return Scale(target.name, target.asked, target.balance + by)


def _finds_no_node(pod: ReplicaPod, now: float) -> bool:
    return pod.unscheduled_since is not None and now - pod.unscheduled_since >= SURGE_PATIENCE_SECONDS


def _goes_back(pool: PoolReplicas) -> bool:
    """The target served before: what it replaces has failed, or its own return is wanted."""
    target = pool.target
    if target is None or target.proven_at is None:
        return False
    return any(r.failed or (r.proven_at or 0.0) > target.proven_at for r in pool.outdated)


def expired(pool: PoolReplicas, rules: Rollout) -> list[Revision]:
    """Revisions without replicas beyond the history, the oldest first; what the spec asks for is kept."""
    target = pool.target
    if target is None or target.proven_at is None:
        return []
    kept = (target.name, pool.wanted)
    idle = [r for r in pool.revisions if r.name not in ("", *kept) and r.asked == 0 and not r.pods and not r.balance]
    idle.sort(key=lambda r: (r.proven_at is not None, r.proven_at or 0.0, r.created, r.name))
    return idle[: max(0, len(idle) - rules.history_limit)]
