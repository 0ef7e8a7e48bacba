"""The pods of one replica, one per node: vLLM with the resolved flags, hardened, with time to load and to drain."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from trimtab_crds.accelerators import NVIDIA_RESOURCE, Accelerator, accelerator
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import childmeta, gpuclaim, modelvolume, names, nodeflags, nodepools
from trimtab_operator.core.placement import placement

Manifest = dict[str, Any]

CONTAINER = "engine"
#: Loading a large model from a cold registry and a cold hub takes many minutes; vLLM opens its port only when ready.
STARTUP_SECONDS = 1800
_STARTUP_PERIOD_SECONDS = 5
#: Between the end of the engine's own drain and the kill.
_MARGIN_SECONDS = 30
#: Where engines tell others how their caches are laid out (vLLM docs, features/nixl_connector_usage).
SIDE_CHANNEL_HOST = "VLLM_NIXL_SIDE_CHANNEL_HOST"
SIDE_CHANNEL_PORT = "VLLM_NIXL_SIDE_CHANNEL_PORT"
_SIDE_CHANNEL = 5600
_HOME = names.OWN_VOLUMES["trimtab-home"]


def pod_template(pool: InferencePool, flags: Iterable[str], labels: dict[str, str]) -> Manifest:
    """The template of the pods that answer requests: of all, or of the first of every replica's nodes."""
    several = pool.spec.accelerator.nodes > 1
    container = _container(pool, (*flags, *nodeflags.of_leader()) if several else flags)
    container |= {
        "ports": _ports(pool),
        **_probes(),
        "lifecycle": {"preStop": {"sleep": {"seconds": childmeta.PRE_STOP_SECONDS}}},
    }
    annotations = {**childmeta.scraped(names.ENGINE_PORT), **_annotations(pool)}
    spec = {**_spec(pool, container), "terminationGracePeriodSeconds": grace_seconds(pool)}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def worker_template(pool: InferencePool, flags: Iterable[str], labels: dict[str, str]) -> Manifest:
    """The template of the pods on a replica's other nodes: no port, so no probes; LeaderWorkerSet ends them last."""
    container = _container(pool, (*flags, *nodeflags.of_worker()))
    spec = {**_spec(pool, container), "terminationGracePeriodSeconds": _MARGIN_SECONDS}
    return {"metadata": {"labels": labels, "annotations": _annotations(pool)}, "spec": spec}


def _spec(pool: InferencePool, container: Manifest) -> Manifest:
    gpu = accelerator(pool.spec.accelerator.name)
    overrides = pool.spec.engine.pod
    spec: Manifest = {
        "automountServiceAccountToken": False,
        # Service links would inject `<SERVICE>_PORT` variables; those of a Service named vllm stop vLLM.
        "enableServiceLinks": False,
        # Else the kubelet changes the owner of every file of a large cache at every start.
        "securityContext": {**childmeta.pod_security(overrides.run_as_user), "fsGroupChangePolicy": "OnRootMismatch"},
        "tolerations": _tolerations(pool),
        "containers": [container],
        "volumes": [*_own_volumes(), *modelvolume.volumes(pool), *overrides.volumes],
        **placement(pool),
        **gpuclaim.pod_claims(pool),
    }
    if overrides.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in overrides.image_pull_secrets]
    if selector := nodepools.pod_selector(pool):
        spec["nodeSelector"] = selector
    elif gpu.labels:
        spec["affinity"] = _prefers(gpu)
    return spec


def _annotations(pool: InferencePool) -> dict[str, str]:
    nodes = pool.spec.accelerator.nodes
    several = {names.NODES_ANNOTATION: str(nodes)} if nodes > 1 else {}
    return {**nodepools.pod_annotations(pool), **gpuclaim.pod_annotations(pool), **several}


def revision_of(template: Any) -> str:
    """Eight hex digits that name a template, or several."""
    return hashlib.sha256(json.dumps(childmeta.without_nulls(template), sort_keys=True).encode()).hexdigest()[:8]


def grace_seconds(pool: InferencePool) -> int:
    """How long a pod that ends may take: stop being sent to, drain, exit."""
    return childmeta.PRE_STOP_SECONDS + pool.spec.drain.deadline_seconds + _MARGIN_SECONDS


def _container(pool: InferencePool, flags: Iterable[str]) -> Manifest:
    engine = pool.spec.engine
    return {
        "name": CONTAINER,
        "image": engine.image,
        "command": [*engine.command, pool.spec.model.name, *flags],
        "env": _environment(pool),
        "resources": _resources(pool),
        "securityContext": childmeta.container_security(),
        "volumeMounts": _mounts(pool),
    }


def _ports(pool: InferencePool) -> list[Manifest]:
    """HTTP; and with a role in disaggregation the side channel of every data-parallel rank."""
    parallel = pool.spec.recipe.parallelism
    ranks = (parallel.data or 1) if parallel else 1
    channels = range(ranks if pool.spec.recipe.disaggregation else 0)
    return [
        {"name": "http", "containerPort": names.ENGINE_PORT, "protocol": "TCP"},
        *({"name": f"nixl-{i}", "containerPort": _SIDE_CHANNEL + i, "protocol": "TCP"} for i in channels),
    ]


def _probes() -> Manifest:
    failures = STARTUP_SECONDS // _STARTUP_PERIOD_SECONDS
    return {
        "startupProbe": childmeta.http_probe(
            "/health", "http", period_seconds=_STARTUP_PERIOD_SECONDS, failures=failures
        ),
        "readinessProbe": childmeta.http_probe("/health", "http", period_seconds=5, failures=3),
        "livenessProbe": childmeta.http_probe("/health", "http", period_seconds=10, failures=6),
    }


def _resources(pool: InferencePool) -> Manifest:
    """The GPUs, as a resource or as a claim, beside what the user asks for."""
    overrides, claimed, asked = pool.spec.engine.pod, gpuclaim.is_claimed(pool), pool.spec.accelerator
    gpus = {} if claimed else {accelerator(asked.name).resource: str(asked.gpus_per_node)}
    claims: Manifest = {"claims": [{"name": gpuclaim.CLAIM}]} if claimed else {}
    return {"requests": {**overrides.requests, **gpus}, "limits": {**overrides.limits, **gpus}, **claims}


def _environment(pool: InferencePool) -> list[Manifest]:
    """Ours first; what the user sets by the same name replaces it."""
    ours = {
        "HOME": _HOME,
        # PyTorch asks for the user's name, and an arbitrary user id has none in the image.
        "USER": "engine",
        "HF_HOME": f"{_HOME}/.cache/huggingface",
        "VLLM_NO_USAGE_STATS": "1",
    }
    theirs = {variable.name: variable.value for variable in pool.spec.engine.env}
    model = [*modelvolume.environment(pool), *_side_channel(pool, theirs)]
    plain = {**ours, **theirs}
    taken = {variable["name"] for variable in model}
    return [*({"name": name, "value": value} for name, value in plain.items() if name not in taken), *model]


def _side_channel(pool: InferencePool, theirs: Mapping[str, str]) -> list[Manifest]:
    """Other engines fetch caches from there; by itself vLLM says `localhost`, where no other pod finds it."""
    if pool.spec.recipe.disaggregation is None:
        return []
    ours = (
        {"name": SIDE_CHANNEL_HOST, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": SIDE_CHANNEL_PORT, "value": str(_SIDE_CHANNEL)},
    )
    return [variable for variable in ours if variable["name"] not in theirs]


def _mounts(pool: InferencePool) -> list[Manifest]:
    theirs = pool.spec.engine.pod.volume_mounts
    taken = {mount.get("mountPath") for mount in theirs}
    ours = [{"name": name, "mountPath": path} for name, path in names.OWN_VOLUMES.items() if path not in taken]
    return [*ours, *modelvolume.mounts(pool), *theirs]


def _own_volumes() -> list[Manifest]:
    # Tensor-parallel workers talk through shared memory; the default of a container is 64 MiB.
    return [
        {"name": name, "emptyDir": {"medium": "Memory"} if path == "/dev/shm" else {}}  # noqa: S108
        for name, path in names.OWN_VOLUMES.items()
    ]


def _tolerations(pool: InferencePool) -> list[Manifest]:
    own: Manifest = {"key": NVIDIA_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}
    theirs = [t.model_dump(by_alias=True, exclude_none=True) for t in pool.spec.nodes.tolerations]
    return [own, *(toleration for toleration in theirs if toleration != own)]


def _prefers(gpu: Accelerator) -> Manifest:
    """Without a selector: nodes that say they have this GPU first, by the label of any platform."""
    terms = [
        {"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}}
        for key, value in sorted(gpu.labels.items())
    ]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}
