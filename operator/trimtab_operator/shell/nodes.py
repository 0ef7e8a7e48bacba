"""NodePools, ComputeClasses and ResourceClaimTemplates on the API server: made for their pool, never adopted.

They may not be served at all, so they are not watched: a pass over a pool that needs one reads its one object. The
first two are in no namespace: they are deleted when their pool ends (its finalizer waits) or asks for another mode, and
a sweep after every resync deletes what a crash in between left behind.
"""

import logging
from collections.abc import Mapping
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import gpuclaim, names, nodepools
from trimtab_operator.core.kinds import CLAIM_TEMPLATE, COMPUTE_CLASS, EVENT, NODE_KINDS, NODE_POOL, POOL, Kind
from trimtab_operator.core.nodesready import waiting_pod
from trimtab_operator.core.ownership import is_owned
from trimtab_operator.core.problems import (
    Problem,
    child_ending,
    claims_api_missing,
    nodes_api_missing,
    nodes_forbidden,
    not_ours,
)
from trimtab_operator.shell.children import apply
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.world import Key

logger = logging.getLogger(__name__)

Manifest = Mapping[str, Any]
_FORBIDDEN, _NOT_FOUND = 403, 404
_SELECTOR = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
_MODES = {NODE_POOL: "Karpenter", COMPUTE_CLASS: "GKEComputeClass"}


async def converge_nodes(deps: Deps, live_pool: Manifest, pool: InferencePool) -> Problem | None:
    """Make the pool's NodePool or ComputeClass as desired; what stands in the way is the answer."""
    meta = live_pool["metadata"]
    manifest, kind = nodepools.node_object(pool), nodepools.kind_of(pool)
    if _is_edited(live_pool):
        await _delete_others(deps, pool, kind)
    if manifest is None or kind is None:
        return None
    what = f"{kind.kind} {manifest['metadata']['name']}"
    try:
        live = await deps.cluster.get(kind, None, manifest["metadata"]["name"])
        if live is None and not await deps.cluster.serves(kind):
            return nodes_api_missing(_MODES[kind], f"{kind.api_version} {kind.kind}")
        if live is not None and not nodepools.is_of(live, meta["uid"]):
            return not_ours([what])
        if live is not None and live["metadata"].get("deletionTimestamp"):
            return child_ending(what)
        return await apply(deps, manifest, live, what)
    except ClusterError as error:
        if error.status != _FORBIDDEN:
            raise
        return nodes_forbidden(_MODES[kind], what)


async def converge_claim(deps: Deps, live_pool: Manifest, pool: InferencePool) -> Problem | None:
    """Make the ResourceClaimTemplate of a pool with allocation DRA, and delete those of earlier specs."""
    meta, manifest = live_pool["metadata"], gpuclaim.claim_template(pool)
    wanted = manifest["metadata"]["name"] if manifest else None
    if _is_edited(live_pool):
        await _delete_other_templates(deps, meta, wanted)
    if manifest is None:
        return None
    what = f"{CLAIM_TEMPLATE.kind} {wanted}"
    live = await deps.cluster.get(CLAIM_TEMPLATE, meta["namespace"], manifest["metadata"]["name"])
    if live is None and not await deps.cluster.serves(CLAIM_TEMPLATE):
        return claims_api_missing(f"{CLAIM_TEMPLATE.api_version} {CLAIM_TEMPLATE.kind}")
    if live is not None and not is_owned(live, meta["uid"]):
        return not_ours([what])
    return await apply(deps, manifest, live, what)


async def release_nodes(deps: Deps, key: Key) -> None:
    """Delete what was made for a pool that is being deleted; best effort, the sweep does the rest."""
    live = deps.world.one(POOL, key)
    if live is None or not live["metadata"].get("deletionTimestamp"):
        return
    for kind in NODE_KINDS:
        if _wants(live, kind):
            try:
                await _delete_own(deps, kind, names.nodes_name(*key), live["metadata"]["uid"])
            except ClusterError as error:
                logger.warning("the %s of %s/%s is deleted later: %s", kind.kind, *key, error)


async def sweep_nodes(deps: Deps) -> None:
    """Delete objects of ours whose pool is gone, is another one by now, or wants none of the kind.

    The API server is asked for every pool in question: a watch that lags must cost nobody's nodes, nor must a moment
    in which the CRD of pools is not served.
    """
    if not await deps.cluster.serves(POOL):
        return
    for kind in NODE_KINDS:
        try:
            found = await deps.cluster.list_all(kind, None, _SELECTOR)
        except ClusterError as error:
            if error.status in (_FORBIDDEN, _NOT_FOUND):
                continue
            raise
        for item in found:
            await _sweep_one(deps, kind, item)


async def events_about_waiting(deps: Deps, pods: list[Manifest]) -> list[Manifest]:
    """Events about one pod that has no node; the replicas of a pool are all alike."""
    pod = waiting_pod(pods)
    if pod is None:
        return []
    meta = pod["metadata"]
    about = f"involvedObject.kind=Pod,involvedObject.name={meta['name']}"
    try:
        return list(await deps.cluster.list_all(EVENT, meta["namespace"], fields=about))
    except ClusterError as error:
        logger.warning("the Events of pod %s were not read: %s", meta["name"], error)
        return []


async def _sweep_one(deps: Deps, kind: Kind, item: Manifest) -> None:
    owner, meta = nodepools.owner_of(item), item["metadata"]
    if owner is None or meta.get("deletionTimestamp"):
        return
    pool = await deps.cluster.get(POOL, *owner)
    if pool is not None and nodepools.is_of(item, pool["metadata"]["uid"]) and _wants(pool, kind):
        return
    await deps.cluster.delete(kind, None, meta["name"], uid=meta["uid"])
    logger.info("deleted %s %s, which pool %s/%s no longer wants", kind.kind, meta["name"], *owner)


async def _delete_others(deps: Deps, pool: InferencePool, wanted: Kind | None) -> None:
    """After an edit: what an earlier mode made."""
    for kind in NODE_KINDS:
        if kind != wanted:
            try:
                await _delete_own(deps, kind, nodepools.name_of(pool), pool.metadata.uid)
            except ClusterError as error:
                if error.status != _FORBIDDEN:
                    raise


async def _delete_other_templates(deps: Deps, meta: Manifest, wanted: str | None) -> None:
    """Pods that run keep the claims that were made from them."""
    selector = f"{names.POOL_LABEL}={names.label_value(meta['name'])}"
    try:
        found = await deps.cluster.list_all(CLAIM_TEMPLATE, meta["namespace"], selector)
    except ClusterError as error:
        if error.status != _NOT_FOUND:
            raise
        return
    for item in found:
        if is_owned(item, meta["uid"]) and item["metadata"]["name"] != wanted:
            name, uid = item["metadata"]["name"], item["metadata"]["uid"]
            await deps.cluster.delete(CLAIM_TEMPLATE, meta["namespace"], name, uid=uid)


def _is_edited(pool: Manifest) -> bool:
    """Whether the spec changed since the last pass."""
    observed = (pool.get("status") or {}).get("observedGeneration")
    return observed not in (None, pool["metadata"]["generation"])


async def _delete_own(deps: Deps, kind: Kind, name: str, owner_uid: str) -> None:
    live = await deps.cluster.get(kind, None, name)
    if live is not None and nodepools.is_of(live, owner_uid) and not live["metadata"].get("deletionTimestamp"):
        await deps.cluster.delete(kind, None, name, uid=live["metadata"]["uid"])
        logger.info("deleted %s %s", kind.kind, name)


def _wants(pool: Manifest, kind: Kind) -> bool:
    """Raw on purpose: a pool that cannot be read keeps its nodes."""
    mode = (pool.get("spec", {}).get("nodes") or {}).get("mode")
    return bool(mode == _MODES[kind])
