"""One write of the writer of replicas: a Deployment's number, a pod's cordon, what is remembered of a revision."""

import logging
from collections.abc import Mapping
from typing import Any

from trimtab_operator.core import names
from trimtab_operator.core.conditions import timestamp
from trimtab_operator.core.kinds import DEPLOYMENT, POD, Kind
from trimtab_operator.core.resize import CUT_OFF_GRACE_SECONDS, Cordon, CutOff, Mark, Scale, Write
from trimtab_operator.shell.children import replicas_body
from trimtab_operator.shell.deps import Deps

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]


async def write_one(deps: Deps, namespace: str, deployments: Mapping[str, Mapping[str, Any]], write: Write) -> None:
    """Write; what the API server says against it is the caller's to judge."""
    match write:
        case Scale():
            await _scale(deps, deployments[write.deployment], write)
        case Mark():
            body = _identified(DEPLOYMENT, deployments[write.deployment]["metadata"])
            body["metadata"]["annotations"] = _remembered(write)
            await deps.cluster.apply(body, manager=names.ROLLOUT_MANAGER)
            if write.failed:
                logger.warning("%s in %s is given up: %s", write.deployment, namespace, write.failed)
        case Cordon():
            meta = {"name": write.pod.name, "namespace": namespace, "uid": write.pod.uid}
            await deps.cluster.apply(_cordon(meta, write, deps.clock()), manager=names.DRAIN_MANAGER)
            logger.info("%s in %s %s", write.pod.name, namespace, "drains" if write.on else "serves again")
        case CutOff():
            logger.warning("%s in %s is cut off: its time to drain is over", write.pod.name, namespace)
            await deps.cluster.delete(
                POD, namespace, write.pod.name, uid=write.pod.uid, grace_seconds=CUT_OFF_GRACE_SECONDS
            )


async def _scale(deps: Deps, deployment: Mapping[str, Any], write: Scale) -> None:
    meta = deployment["metadata"]
    await deps.cluster.apply(replicas_body(deployment, write.replicas, write.balance), manager=names.REPLICAS_MANAGER)
    if deployment["spec"]["replicas"] != write.replicas:
        before = deployment["spec"]["replicas"]
        logger.info("%s in %s: replicas %s to %s", meta["name"], meta["namespace"], before, write.replicas)


def _identified(kind: Kind, meta: Mapping[str, Any]) -> Manifest:
    identity = {key: meta[key] for key in ("name", "namespace", "uid")}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": identity}


def _remembered(mark: Mark) -> dict[str, str]:
    told = {names.FAILED_ANNOTATION: mark.failed} if mark.failed else {}
    if mark.proven_at is not None:
        told[names.PROVEN_ANNOTATION] = timestamp(mark.proven_at)
    return told


def _cordon(meta: Manifest, write: Cordon, now: float) -> Manifest:
    """The Services select by the label; the annotations end with the drain."""
    body = _identified(POD, meta)
    body["metadata"]["labels"] = {names.SERVING_LABEL: names.NOT_SERVING if write.on else names.SERVING}
    if write.on:
        body["metadata"]["annotations"] = {names.DRAIN_ANNOTATION: timestamp(now), names.DELETION_COST: "-1000"}
    return body
