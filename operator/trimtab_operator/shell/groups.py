"""What is known of LeaderWorkerSets: their kind may not be served, so they are not watched but listed.

A pass over a pool that has some, or should have, begins with a list; their pods are watched and wake it. A look at all
of them, first thing and with every resync, finds those that nothing else tells of: without pods, of a pool that wants
none any more.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import groups, names, workloads
from trimtab_operator.core.kinds import LEADER_WORKER_SET, POOL
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.world import ChildKey, Key, child_key

Manifest = Mapping[str, Any]

_FORBIDDEN, _NOT_FOUND = 403, 404
_SELECTOR = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"


async def refresh(deps: Deps, key: Key, pool: InferencePool | None) -> bool:
    """Let the world know the pool's LeaderWorkerSets as of now; whether such can be made.

    Nothing is asked for a pool that has none and wants none.
    """
    if not concerns(deps, key, pool):
        return False
    selector = f"{names.POOL_LABEL}={names.label_value(key[1])}"
    found = await listed(deps, key[0], selector)
    deps.world.know_groups((key[0], names.POOL_LABEL, names.label_value(key[1])), found or ())
    return found is not None


def concerns(deps: Deps, key: Key, pool: InferencePool | None) -> bool:
    """Whether the pool may have a LeaderWorkerSet, by its spec, its pods and the last look; before that any may."""
    if deps.world.groups is None or (pool is not None and workloads.kind_of(pool) == LEADER_WORKER_SET):
        return True
    if any(groups.is_member(pod["metadata"]) for pod in deps.world.pods(POOL, key)):
        return True
    return any(child["kind"] == LEADER_WORKER_SET.kind for child in deps.world.children(POOL, key))


async def listed(deps: Deps, namespace: str | None, selector: str) -> list[dict[str, Any]] | None:
    """LeaderWorkerSets that the selector takes; None where the API server has no such kind."""
    try:
        return await deps.cluster.list_all(LEADER_WORKER_SET, namespace, selector)
    except ClusterError as error:
        if error.status != _NOT_FOUND:
            raise
        return None


async def look(deps: Deps, namespaces: Sequence[str | None]) -> None:
    """Know all that there are; where the operator may not ask, there are none."""
    try:
        found = [item for namespace in namespaces for item in await listed(deps, namespace, _SELECTOR) or []]
    except ClusterError as error:
        if error.status != _FORBIDDEN:
            raise
        found = []
    by_owner: dict[ChildKey, list[Manifest]] = {}
    for item in found:
        key = child_key(item["metadata"])
        if key is not None:
            by_owner.setdefault(key, []).append(item)
    deps.world.groups = by_owner
