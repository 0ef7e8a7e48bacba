"""The kinds of objects that hold a pool's replicas, and all that depends on which one it is.

A Deployment where a replica is one pod. A LeaderWorkerSet (lws.sigs.k8s.io, `leaderworkerset.x-k8s.io/v1`) where it is
a group of pods on several nodes: a leader that answers requests and workers, which start and end together. Each
revision of a pool is one of these objects.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import childmeta, enginepod, groups, names
from trimtab_operator.core.kinds import DEPLOYMENT, LEADER_WORKER_SET, Kind

Manifest = dict[str, Any]

_TOPOLOGY = "leaderworkerset.sigs.k8s.io/exclusive-topology"


def kind_of(pool: InferencePool) -> Kind:
    """The kind of the pool's present revision."""
    return DEPLOYMENT if pool.spec.accelerator.nodes == 1 else LEADER_WORKER_SET


def name_of(pool: InferencePool, revision: str) -> str:
    """The name of a revision's object."""
    named = names.revision_name if kind_of(pool) == DEPLOYMENT else names.group_name
    return named(pool.metadata.name, revision)


def service_of(pool: InferencePool, revision: str) -> str:
    """The name of the Service that leads to one revision alone."""
    named = names.revision_name if kind_of(pool) == DEPLOYMENT else names.canary_name
    return named(pool.metadata.name, revision)


def revision(pool: InferencePool, flags: Sequence[str], labels: dict[str, str]) -> tuple[str, Manifest]:
    """The name of the pool's present revision, and its object without `replicas`."""
    queued = labels | childmeta.queue_labels(pool)
    serving = {**queued, names.SERVING_LABEL: names.SERVING}
    templates = [enginepod.pod_template(pool, flags, serving)]
    if kind_of(pool) == LEADER_WORKER_SET:
        templates.append(enginepod.worker_template(pool, flags, queued))
    named = enginepod.revision_of(templates[0] if len(templates) == 1 else [*templates, _topology(pool)])
    own = {names.REVISION_LABEL: named}
    for template in templates:
        template["metadata"]["labels"] = template["metadata"]["labels"] | own
    meta = childmeta.metadata(pool, name_of(pool, named), {**queued, **own})
    build = _deployment if len(templates) == 1 else _group_set
    return named, build(pool, meta, templates)


def template_of(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The template of the pods that answer requests."""
    spec: Mapping[str, Any] = workload["spec"]
    if workload["kind"] == DEPLOYMENT.kind:
        found: Mapping[str, Any] = spec["template"]
    else:
        found = spec["leaderWorkerTemplate"]["leaderTemplate"]
    return found


def pod_selector(pool: InferencePool) -> str:
    """The label selector that finds one pod per replica."""
    key, value = next(iter(childmeta.pool_selector(pool).items()))
    leaders = "" if kind_of(pool) == DEPLOYMENT else f",{groups.WORKER_LABEL}={groups.LEADER}"
    return f"{key}={value}{leaders}"


def _deployment(pool: InferencePool, meta: Manifest, templates: list[Manifest]) -> Manifest:
    selector = {**childmeta.pool_selector(pool), names.REVISION_LABEL: meta["labels"][names.REVISION_LABEL]}
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": selector},
            # The template never changes; should somebody change it, no replica starts beside the one it replaces.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": pool.spec.rollout.progress_deadline_seconds,
            "template": templates[0],
        },
    }


def _group_set(pool: InferencePool, meta: Manifest, templates: list[Manifest]) -> Manifest:
    leader, worker = templates
    return {
        "apiVersion": LEADER_WORKER_SET.api_version,
        "kind": LEADER_WORKER_SET.kind,
        "metadata": {**meta, "annotations": _topology(pool)},
        "spec": {
            "startupPolicy": "LeaderCreated",
            # As of a Deployment: the templates never change.
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": pool.spec.accelerator.nodes,
                # vLLM's processes do not survive the loss of one of them.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": leader,
                "workerTemplate": worker,
            },
        },
    }


def _topology(pool: InferencePool) -> dict[str, str]:
    key = pool.spec.accelerator.exclusive_topology
    return {_TOPOLOGY: key} if key else {}
