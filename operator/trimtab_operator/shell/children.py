"""Children on the API server: apply what differs, never touch what is not ours, delete what is no longer desired."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_operator.core import names
from trimtab_operator.core.kinds import BY_NAME, WORKLOADS, Kind
from trimtab_operator.core.ownership import is_drift, is_owned, needs_apply, prunable, replicas_claimed
from trimtab_operator.core.problems import Problem, apply_rejected, child_ending, not_ours
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Conflict, Deps
from trimtab_operator.shell.world import Key

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]

_MOST_VERIFIED = 50_000


async def converge(
    deps: Deps, owner: Kind, live_owner: Mapping[str, Any], desired: Sequence[Manifest]
) -> Problem | None:
    """Make the owner's children as desired; what stands in the way is the answer, and the rest is done all the same."""
    meta = live_owner["metadata"]
    key: Key = (meta["namespace"], meta["name"])
    known = {(m["kind"], m["metadata"]["name"]): m for m in deps.world.children(owner, key)}
    problems: list[Problem] = []
    foreign: list[str] = []
    for manifest in desired:
        live = deps.written.newest(known.get((manifest["kind"], manifest["metadata"]["name"])))
        if live is None:
            # Without our label it is in no index, but it may be there.
            live = await deps.cluster.get(BY_NAME[manifest["kind"]], key[0], manifest["metadata"]["name"])
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        if live is not None and not is_owned(live, meta["uid"]):
            foreign.append(what)
        elif live is not None and live["metadata"].get("deletionTimestamp"):
            problems.append(child_ending(what))
        elif (problem := await apply(deps, manifest, live, what)) is not None:
            problems.append(problem)
    # Workloads of a pool are its revisions: what is left over of them goes replica by replica.
    prune = [m for m in known.values() if not _has_replicas_writer(m)]
    await _prune(deps, prune, desired, meta["uid"])
    if foreign:
        return not_ours(foreign)
    return problems[0] if problems else None


async def apply(deps: Deps, manifest: Manifest, live: Mapping[str, Any] | None, what: str) -> Problem | None:
    """Apply an object where it differs from the live one, which is ours; a refusal of the API server is the answer."""
    others_replicas = live is not None and _has_replicas_writer(manifest)
    if others_replicas:
        manifest = _without_replicas(manifest)
    if _is_verified(deps, manifest, live):
        return None
    if live is not None and others_replicas and not replicas_claimed(live):
        # What nobody else owns would fall back to the default of 1 when our apply no longer names it.
        live = await claim_replicas(deps, live)
    body = manifest
    if live is not None:
        body = {**manifest, "metadata": {**manifest["metadata"], "uid": live["metadata"]["uid"]}}
    try:
        if is_drift(manifest, live):
            await _name_conflict(deps, body, what)
        answer = await deps.cluster.apply(body, manager=names.FIELD_MANAGER)
    except ClusterError as error:
        if error.passes or error.is_precondition or error.status == 0:
            raise
        return apply_rejected(what, error.message)
    deps.telemetry.applies.labels(manifest["kind"]).inc()
    deps.written.note(live, answer)
    logger.info("applied %s in %s", what, manifest["metadata"].get("namespace", "no namespace"))
    return None


def _is_verified(deps: Deps, manifest: Manifest, live: Mapping[str, Any] | None) -> bool:
    """Whether nothing is to be applied; compared in depth only where the object or the desire changed."""
    if live is None:
        return False
    digest = str(manifest["metadata"]["annotations"][names.DIGEST_ANNOTATION])
    uid, now = live["metadata"]["uid"], (live["metadata"]["resourceVersion"], digest)
    if deps.verified.get(uid) == now:
        return True
    if needs_apply(manifest, live):
        return False
    if len(deps.verified) >= _MOST_VERIFIED:
        deps.verified.clear()  # mostly of children that are gone
    deps.verified[uid] = now
    return True


async def _name_conflict(deps: Deps, body: Manifest, what: str) -> None:
    """Ask the API server who owns the fields that somebody changed; they are taken back whatever the answer."""
    try:
        await deps.cluster.apply(body, manager=names.FIELD_MANAGER, force=False)
    except ClusterError as error:
        if not error.is_conflict:
            raise
        for owner in body["metadata"].get("ownerReferences") or []:
            key = (owner["kind"], body["metadata"]["namespace"], owner["name"])
            deps.conflicts[key] = Conflict(f"{what}: {' '.join(error.message.split())}", deps.clock())
        logger.warning("%s was changed by somebody else: %s", what, error.message)


def _has_replicas_writer(manifest: Mapping[str, Any]) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    return names.POOL_LABEL in labels and any(manifest["kind"] == kind.kind for kind in WORKLOADS)


def _without_replicas(manifest: Manifest) -> Manifest:
    """A new workload starts with the replicas given; later `.spec.replicas` is left to its writer."""
    spec = {key: value for key, value in manifest["spec"].items() if key != "replicas"}
    return {**manifest, "spec": spec}


async def claim_replicas(deps: Deps, workload: Mapping[str, Any]) -> Manifest:
    """Own the present `.spec.replicas` as its writer, unless the workload changed in between."""
    meta = workload["metadata"]
    balance = int((meta.get("annotations") or {}).get(names.BALANCE_ANNOTATION, 0))
    body = replicas_body(workload, int(workload["spec"]["replicas"]), balance)
    body["metadata"]["resourceVersion"] = meta["resourceVersion"]
    answer = await deps.cluster.apply(body, manager=names.REPLICAS_MANAGER)
    deps.written.note(workload, answer)
    return answer


def replicas_body(workload: Mapping[str, Any], replicas: int, balance: int) -> Manifest:
    """What the writer of replicas applies to that very workload: the number, and what of it a roll-out borrowed."""
    meta, kind = workload["metadata"], BY_NAME[workload["kind"]]
    body: Manifest = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "spec": {"replicas": replicas},
    }
    if balance:
        body["metadata"]["annotations"] = {names.BALANCE_ANNOTATION: str(balance)}
    return body


async def _prune(deps: Deps, live: list[Mapping[str, Any]], desired: Sequence[Manifest], owner_uid: str) -> None:
    for manifest in prunable(live, desired, owner_uid):
        meta = manifest["metadata"]
        await deps.cluster.delete(BY_NAME[manifest["kind"]], meta["namespace"], meta["name"], uid=meta["uid"])
        logger.info("deleted %s %s in %s", manifest["kind"], meta["name"], meta["namespace"])
