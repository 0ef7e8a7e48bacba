"""What really is: a workload and its pods as counts, with the first thing that keeps pods from answering."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_crds.accelerators import is_gpu_resource
from trimtab_operator.core import names
from trimtab_operator.core.groups import nodes_of
from trimtab_operator.core.kinds import LEADER_WORKER_SET

Manifest = Mapping[str, Any]

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Observation:
    """A Deployment and its pods. Pods are counted one by one: the Deployment's own counts leave ending ones out."""

    exists: bool = False
    desired: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0
    updating: bool = False
    """The Deployment has not yet replaced all pods by ones of its present template."""
    failed: str = ""
    """Why the Deployment gave up, if it did."""
    trouble: str = ""
    """The first thing that keeps a pod from answering."""

    @property
    def running(self) -> int:
        """Pods that exist and do not end."""
        return self.ready + self.starting

    @property
    def pods(self) -> int:
        """All pods that hold resources, ending ones included."""
        return self.ready + self.starting + self.draining


def observe(deployment: Manifest | None, pods: Iterable[Manifest]) -> Observation:
    """The state of a Deployment with these pods. Finished pods hold nothing and do not count."""
    alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in _ENDED]
    ending = [pod for pod in alive if pod["metadata"].get("deletionTimestamp")]
    staying = [pod for pod in alive if not pod["metadata"].get("deletionTimestamp")]
    ready = sum(is_ready(pod) for pod in staying)
    troubles = sorted(filter(None, (_trouble(pod) for pod in staying)))
    if deployment is None:
        return Observation(ready=ready, starting=len(staying) - ready, draining=len(ending))
    is_deployment = deployment.get("kind") != LEADER_WORKER_SET.kind
    return Observation(
        exists=True,
        desired=int(deployment["spec"].get("replicas", 1)),
        ready=ready,
        starting=len(staying) - ready,
        draining=len(ending),
        # A LeaderWorkerSet has a condition of the same name that means something else, and no counts of its own here.
        updating=is_deployment and _updating(deployment),
        failed=_condition_message(deployment, "Progressing", status="False") if is_deployment else "",
        trouble=_condition_message(deployment, "ReplicaFailure", status="True") or (troubles[0] if troubles else ""),
    )


def is_ready(pod: Manifest) -> bool:
    """Whether the pod's condition Ready is true."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _updating(deployment: Manifest) -> bool:
    status, generation = deployment.get("status", {}), deployment["metadata"].get("generation", 1)
    behind = status.get("observedGeneration", 0) < generation
    return bool(behind or status.get("updatedReplicas", 0) < status.get("replicas", 0))


def _condition_message(deployment: Manifest, kind: str, *, status: str) -> str:
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == status:
            return f"{condition.get('reason', kind)}: {condition.get('message', '')}"
    return ""


def _trouble(pod: Manifest) -> str:
    """Why a pod does not answer, in the words of the scheduler or the kubelet; empty while it merely loads."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".rstrip(": ")
    for container in status.get("containerStatuses") or []:
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def gpus_held(pods: Iterable[Manifest]) -> int:
    """GPUs that pods hold by their own requests, which may be older than the pool's spec."""
    alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in _ENDED]
    return sum(gpus_requested(pod) for pod in alive)


def replica_gpus(pod: Manifest) -> int:
    """GPUs of the whole replica that a pod, or a pod template, is of: on every node as many."""
    return gpus_requested(pod) * nodes_of(pod)


def gpus_requested(pod: Manifest) -> int:
    """GPUs or slices that one pod asks for, as a resource or by a claim."""
    spec = pod.get("spec", {})
    by_plugin = sum(
        int(amount)
        for container in spec.get("containers") or []
        for resource, amount in (container.get("resources", {}).get("limits") or {}).items()
        if is_gpu_resource(resource)
    )
    claimed = (pod["metadata"].get("annotations") or {}).get(names.GPUS_ANNOTATION, "")
    return by_plugin + (int(claimed) if spec.get("resourceClaims") and claimed.isdigit() else 0)
