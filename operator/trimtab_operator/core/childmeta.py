"""What all children have in common: metadata, the owner reference, the security of their pods, the digest.

Nothing of the owner's own labels and annotations is copied (tracking ids of GitOps tools on children make those tools
delete them) except what `COPIED_LABELS` names, and for pods `QUEUE_LABELS`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import names

Manifest = dict[str, Any]
Owner = InferencePool | RoutingPolicy

COPIED_LABELS = ("app.kubernetes.io/part-of",)
#: By which Kueue queues and admits pods; on a pool they reach its Deployment and pods.
QUEUE_LABELS = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
#: How long a pod that ends goes on answering, so that routers and kube-proxy stop sending first.
PRE_STOP_SECONDS = 5


def metadata(owner: Owner, name: str, labels: Mapping[str, str]) -> Manifest:
    """Metadata of a child; the owner reference is left out for an owner that no API server has seen."""
    copied = {key: value for key, value in owner.metadata.labels.items() if key in COPIED_LABELS}
    out: Manifest = {"name": name, "namespace": owner.metadata.namespace, "labels": {**copied, **labels}}
    if owner.metadata.uid:
        out["ownerReferences"] = [owner_reference(owner)]
    return out


def owner_reference(owner: Owner) -> Manifest:
    """The reference by which the garbage collector finds children, and by which we know them."""
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels(*, component: str, instance: str, key: str) -> dict[str, str]:
    """The recommended labels of Kubernetes and ours, by which children are found."""
    value = names.label_value(instance)
    return {
        "app.kubernetes.io/name": "trimtab",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": value,
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        key: value,
    }


def pool_selector(pool: InferencePool) -> dict[str, str]:
    """The labels that only the pool's pods have."""
    return {names.POOL_LABEL: names.label_value(pool.metadata.name)}


def queue_labels(owner: Owner) -> dict[str, str]:
    """The owner's labels that queue its pods."""
    return {key: value for key, value in owner.metadata.labels.items() if key in QUEUE_LABELS}


def scraped(port: int) -> dict[str, str]:
    """Annotations by which Prometheus finds the pod."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}


def pod_security(user: int) -> Manifest:
    """Pod half of Pod Security `restricted`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Container half of Pod Security `restricted`, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def http_probe(path: str, port: str, *, period_seconds: int, failures: int) -> Manifest:
    """A probe by HTTP."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def disruption_budget(
    owner: Owner, name: str, *, child_labels: Mapping[str, str], selector: Mapping[str, str]
) -> Manifest:
    """At most one pod may be evicted at a time; pods that do not answer anyway never hold up a drain of a node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner, name, child_labels),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": dict(selector)},
        },
    }


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with a digest of itself in an annotation."""
    cleaned: Manifest = without_nulls(manifest)
    digest = hashlib.sha256(json.dumps(cleaned, sort_keys=True).encode()).hexdigest()[:16]
    meta = cleaned["metadata"]
    annotations = {**meta.get("annotations", {}), names.DIGEST_ANNOTATION: digest}
    return {**cleaned, "metadata": {**meta, "annotations": annotations}}


def without_nulls(value: Any) -> Any:
    """`value` without fields that are null: the API server drops them, and they would look like drift."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
