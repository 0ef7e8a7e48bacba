"""What a pool's status says of its revisions: the condition RolledOut, the counts, and the pool as one observation."""

from collections.abc import Iterable, Mapping
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.wire import CanaryConfig
from trimtab_operator.core import conditions, names
from trimtab_operator.core.conditions import Fact, timestamp
from trimtab_operator.core.kinds import DEPLOYMENT, LEADER_WORKER_SET
from trimtab_operator.core.observe import Observation, observe
from trimtab_operator.core.revisions import PoolReplicas
from trimtab_operator.core.rollout import Phase, phase
from trimtab_operator.core.workloads import service_of

Manifest = Mapping[str, Any]

_KINDS = {False: DEPLOYMENT, True: LEADER_WORKER_SET}


def observe_pool(replicas: PoolReplicas, workloads: Iterable[Manifest], pods: Iterable[Manifest]) -> Observation:
    """The pool's revisions as one: counts of all, troubles of the revision that new replicas belong to."""
    target = replicas.target
    live = next((d for d in workloads if target is not None and d["metadata"]["name"] == target.name), None)
    told = observe(live, pods)
    return Observation(
        exists=target is not None,
        desired=replicas.intended,
        ready=replicas.ready,
        starting=replicas.starting,
        draining=replicas.draining,
        updating=replicas.rolling or (told.exists and told.updating),
        failed=told.failed,
        trouble=told.trouble,
    )


def rolled_out(pool: InferencePool | None, replicas: PoolReplicas, *, now: float) -> Fact | None:
    """The condition RolledOut; None while there is no revision, nor one on its way."""
    target = replicas.target
    if pool is None or not _name(replicas):
        return None
    standing = phase(replicas, pool.spec.rollout, now=now)
    if standing is Phase.DONE or target is None:
        message = f"all replicas are of {_name(replicas)}"
        return Fact(conditions.ROLLED_OUT, status=True, reason=standing.value, message=message)
    if standing is Phase.ROLLED_BACK:
        failed = next((r for r in replicas.revisions if r.name == replicas.wanted), target)
        message = (
            f"{failed.name} was given up ({failed.failed}) and {target.name} serves in its place; "
            f"correct the spec, or delete that {_KINDS[failed.ordered].kind} to try it again"
        )
        return Fact(conditions.ROLLED_OUT, status=False, reason=standing.value, message=message)
    message = f"{target.ready} replicas of {target.name} answer, {_outdated(replicas)} of earlier revisions remain"
    if standing is Phase.CANARY and pool.spec.rollout.canary is not None:
        canary = pool.spec.rollout.canary
        message += (
            f"; {canary.weight_percent} % of the requests try the new one, {canary.pause_seconds} s from its start"
        )
    return Fact(conditions.ROLLED_OUT, status=False, reason=standing.value, message=message)


def canary_of(pool: InferencePool, replicas: PoolReplicas, *, now: float) -> CanaryConfig | None:
    """What routers are told of a revision that is being tried; None at all other times."""
    target, canary = replicas.target, pool.spec.rollout.canary
    if target is None or canary is None or phase(replicas, pool.spec.rollout, now=now) is not Phase.CANARY:
        return None
    host = names.host(service_of(pool, target.revision), pool.metadata.namespace)
    return CanaryConfig(host=host, weight_percent=canary.weight_percent)


def revision_counts(replicas: PoolReplicas) -> dict[str, Any]:
    """The status fields about revisions and drains."""
    target, since = replicas.target, replicas.drains_since
    counts: dict[str, Any] = {
        "drainingReplicas": replicas.draining,
        "revision": _name(replicas),
        "updatedReplicas": target.ready + target.starting if target else 0,
    }
    return counts | ({"drainingSince": timestamp(since)} if since is not None else {})


def _name(replicas: PoolReplicas) -> str:
    """The revision that new replicas belong to, which the watches may not show yet."""
    return replicas.target.name if replicas.target else replicas.wanted


def _outdated(replicas: PoolReplicas) -> int:
    return sum(r.serving for r in replicas.outdated)
