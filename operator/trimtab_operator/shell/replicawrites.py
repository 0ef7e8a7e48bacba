"""One write of the writer of replicas: a workload's number, a pod's cordon, what is remembered of a revision."""

import logging
from collections.abc import Mapping
from typing import Any

from trimtab_operator.core import names
from trimtab_operator.core.conditions import timestamp
from trimtab_operator.core.kinds import BY_NAME, POD, Kind
from trimtab_operator.core.resize import CUT_OFF_GRACE_SECONDS, Cordon, CutOff, Mark, Scale, Write
from trimtab_operator.shell.children import replicas_body
from trimtab_operator.shell.deps import Deps

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]


async def write_one(deps: Deps, namespace: str, workloads: Mapping[str, Mapping[str, Any]], write: Write) -> None:
    """Write; what the API server says against it is the caller's to judge."""
    match write:
        case Scale():
            await _scale(deps, workloads[write.workload], write)
        case Mark():
            live = workloads[write.workload]
            body = _identified(BY_NAME[live["kind"]], live["metadata"])
            body["metadata"] |= _remembered(write)
            await deps.cluster.apply(body, manager=names.ROLLOUT_MANAGER)
            if write.failed:
                logger.warning("%s in %s is given up: %s", write.workload, namespace, write.failed)
        case Cordon():
            # The leader last: the drain begins with it.
            for name, uid in write.pod.workers:
                await deps.cluster.apply(_marked(namespace, name, uid, on=write.on), manager=names.DRAIN_MANAGER)
            meta = {"name": write.pod.name, "namespace": namespace, "uid": write.pod.uid}
            await deps.cluster.apply(_cordon(meta, write, deps.clock()), manager=names.DRAIN_MANAGER)
            logger.info("%s in %s %s", write.pod.name, namespace, "drains" if write.on else "serves again")
        case CutOff():
            logger.warning("%s in %s is cut off: its time to drain is over", write.pod.name, namespace)
            await deps.cluster.delete(
                POD, namespace, write.pod.name, uid=write.pod.uid, grace_seconds=CUT_OFF_GRACE_SECONDS
            )


async def _scale(deps: Deps, workload: Mapping[str, Any], write: Scale) -> None:
    meta = workload["metadata"]
    await deps.cluster.apply(replicas_body(workload, write.replicas, write.balance), manager=names.REPLICAS_MANAGER)
    if workload["spec"]["replicas"] != write.replicas:
        before = workload["spec"]["replicas"]
        logger.info("%s in %s: replicas %s to %s", meta["name"], meta["namespace"], before, write.replicas)


def _identified(kind: Kind, meta: Mapping[str, Any]) -> Manifest:
    identity = {key: meta[key] for key in ("name", "namespace", "uid")}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": identity}


def _remembered(mark: Mark) -> Manifest:
    """Annotations; with nothing to remember there is no empty map of them, which would be owned too."""
    told = {names.FAILED_ANNOTATION: mark.failed} if mark.failed else {}
    if mark.proven_at is not None:
        told[names.PROVEN_ANNOTATION] = timestamp(mark.proven_at)
    if mark.starts_since is not None:
        told[names.STARTING_ANNOTATION] = timestamp(mark.starts_since)
    return {"annotations": told} if told else {}


def _marked(namespace: str, name: str, uid: str, *, on: bool) -> Manifest:
    """No Service leads to a worker; the label says to people that its replica drains."""
    body = _identified(POD, {"name": name, "namespace": namespace, "uid": uid})
    labels = {"labels": {names.SERVING_LABEL: names.NOT_SERVING}} if on else {}
    return {**body, "metadata": {**body["metadata"], **labels}}


def _cordon(meta: Manifest, write: Cordon, now: float) -> Manifest:
    """The Services select by the label; the annotations end with the drain."""
    body = _identified(POD, meta)
    body["metadata"]["labels"] = {names.SERVING_LABEL: names.NOT_SERVING if write.on else names.SERVING}
    if write.on:
        body["metadata"]["annotations"] = {names.DRAIN_ANNOTATION: timestamp(now), names.DELETION_COST: "-1000"}
    return body
