"""The NodePool (Karpenter) or ComputeClass (GKE) of a pool, and what of it the pool's pods need.

Both live in no namespace, so no owner reference may lead from them to their pool: a label with the pool's uid says
whose they are, and the operator deletes them itself. References: karpenter.sh/docs/concepts/nodepools (v1), Google
Cloud's CRD reference "ComputeClass" (cloud.google.com/v1).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trimtab_crds.accelerators import (
    CATALOGUE,
    GKE_LABEL,
    KARPENTER_LABEL,
    NVIDIA_RESOURCE,
    SLICE_MARK,
    Accelerator,
    accelerator,
)
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.nodes import ComputePriority, DisruptionBudget, GKEComputeClass, Karpenter, NodeMode
from trimtab_operator.core import childmeta, names
from trimtab_operator.core.kinds import COMPUTE_CLASS, NODE_POOL, Kind

Manifest = dict[str, Any]

NODE_POOL_LABEL = "karpenter.sh/nodepool"
CAPACITY_LABEL = "karpenter.sh/capacity-type"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
COMPUTE_CLASS_LABEL = "cloud.google.com/compute-class"
AWS_NODE_CLASS_GROUP = "karpenter.k8s.aws"
_AWS_GPU_MEMORY_LABEL = "karpenter.k8s.aws/instance-gpu-memory"
#: Domains of labels that GKE sets itself; the labels of a node pool may not be of them.
_GKE_DOMAINS = ("kubernetes.io", "k8s.io", "google.com", "gke.io")


def kind_of(pool: InferencePool) -> Kind | None:
    """The kind of object that makes the pool's nodes; None in mode Static."""
    return {NodeMode.KARPENTER: NODE_POOL, NodeMode.GKE_COMPUTE_CLASS: COMPUTE_CLASS}.get(pool.spec.nodes.mode)


def name_of(pool: InferencePool) -> str:
    """Its name."""
    return names.nodes_name(pool.metadata.namespace, pool.metadata.name)


def node_object(pool: InferencePool) -> Manifest | None:
    """The whole object, stamped; None in mode Static. The pool has no `refusals`."""
    kind, nodes = kind_of(pool), pool.spec.nodes
    if kind is None:
        return None
    gpu = accelerator(pool.spec.accelerator.name)
    spec: Manifest = {}
    if nodes.karpenter is not None:
        spec = _node_pool(pool, nodes.karpenter, gpu)
    if nodes.gke_compute_class is not None:
        spec = _compute_class(pool, nodes.gke_compute_class, gpu)
    manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": _metadata(pool), "spec": spec}
    return childmeta.stamped(manifest)


def pod_selector(pool: InferencePool) -> dict[str, str]:
    """The node selector of the pool's pods."""
    chosen = {NODE_POOL: NODE_POOL_LABEL, COMPUTE_CLASS: COMPUTE_CLASS_LABEL}
    kind, selector = kind_of(pool), pool.spec.nodes.selector
    return dict(selector) if kind is None else {**selector, chosen[kind]: name_of(pool)}


def pod_annotations(pool: InferencePool) -> dict[str, str]:
    """Keeps Karpenter from taking a node with a replica on it, unless the spec allows that."""
    karpenter = pool.spec.nodes.karpenter
    stays = karpenter is not None and karpenter.disruption.consolidation == "WhenEmpty"
    return {DO_NOT_DISRUPT: "true"} if stays else {}


def refusals(pool: InferencePool) -> tuple[str, ...]:
    """Why no node could be made as the spec says: field, value and fix."""
    nodes, name = pool.spec.nodes, pool.spec.accelerator.name
    if nodes.mode != NodeMode.STATIC and SLICE_MARK in name:
        # Autoscalers know what a new machine will have only by whole GPUs.
        return (
            f"accelerator.name {name} is a slice, which nodes.mode {nodes.mode} cannot make; use nodes.mode Static",
        )
    found: list[str] = []
    if nodes.karpenter is not None:
        found += _karpenter_refusals(pool, nodes.karpenter)
    if nodes.gke_compute_class is not None:
        found += _compute_class_refusals(pool, nodes.gke_compute_class)
    return tuple(found)


def is_of(live: Mapping[str, Any], owner_uid: str) -> bool:
    """Whether a live NodePool or ComputeClass was made for the pool with that uid."""
    labels = live["metadata"].get("labels") or {}
    ours = labels.get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
    return bool(ours and owner_uid and labels.get(names.POOL_UID_LABEL) == owner_uid)


def owner_of(live: Mapping[str, Any]) -> tuple[str, str] | None:
    """Namespace and name of the pool that a NodePool or ComputeClass of ours was made for."""
    namespace, slash, name = (live["metadata"].get("annotations") or {}).get(names.OWNER_ANNOTATION, "").partition("/")
    return (namespace, name) if slash and namespace and name else None


def _metadata(pool: InferencePool) -> Manifest:
    labels = childmeta.labels(component="nodes", instance=pool.metadata.name, key=names.POOL_LABEL)
    if pool.metadata.uid:
        labels[names.POOL_UID_LABEL] = pool.metadata.uid
    return {"name": name_of(pool), "labels": labels, "annotations": {names.OWNER_ANNOTATION: pool.key}}


def _node_pool(pool: InferencePool, karpenter: Karpenter, gpu: Accelerator) -> Manifest:
    hours = karpenter.expire_after_hours
    disruption = karpenter.disruption
    template = {
        "nodeClassRef": karpenter.node_class_ref.model_dump(by_alias=True),
        # Only pods that ask for GPUs: the scheduler would fill the nodes with anything else.
        "taints": [{"key": NVIDIA_RESOURCE, "value": "present", "effect": "NoSchedule"}],
        "requirements": list(_requirements(pool, karpenter, gpu)),
        "expireAfter": "Never" if hours is None else f"{hours}h",
    }
    spec: Manifest = {
        "template": {"metadata": {"labels": {names.POOL_LABEL: names.label_value(pool.metadata.name)}}},
        "disruption": {
            "consolidationPolicy": disruption.consolidation,
            "consolidateAfter": f"{disruption.consolidate_after_seconds}s",
            "budgets": [_budget(b) for b in disruption.budgets or [DisruptionBudget()]],
        },
    }
    spec["template"]["spec"] = template
    if karpenter.max_gpus is not None:
        spec["limits"] = {NVIDIA_RESOURCE: str(karpenter.max_gpus)}
    return spec


def _requirements(pool: InferencePool, karpenter: Karpenter, gpu: Accelerator) -> Iterator[Manifest]:
    """The capacity type, the GPU where the cloud's label for it is known, the selector, and what the spec adds."""
    yield {"key": CAPACITY_LABEL, "operator": "In", "values": sorted(karpenter.capacity_types)}
    if karpenter.node_class_ref.group == AWS_NODE_CLASS_GROUP:
        yield from _aws_gpu(gpu)
    for key, value in sorted(pool.spec.nodes.selector.items()):
        yield {"key": key, "operator": "In", "values": [value]}
    for requirement in karpenter.requirements:
        yield {"key": requirement.key, "operator": requirement.operator, "values": list(requirement.values)}


def _aws_gpu(gpu: Accelerator) -> Iterator[Manifest]:
    name = gpu.labels.get(KARPENTER_LABEL)
    if name is None:
        return
    yield {"key": KARPENTER_LABEL, "operator": "In", "values": [name]}
    if sum(other.labels.get(KARPENTER_LABEL) == name for other in CATALOGUE.values()) > 1:
        # A100 names two GPUs: their memory (MiB on the label) tells them apart.
        mib = gpu.memory_gib * 1024
        yield {"key": _AWS_GPU_MEMORY_LABEL, "operator": "Gt", "values": [str(round(mib * 0.9))]}
        yield {"key": _AWS_GPU_MEMORY_LABEL, "operator": "Lt", "values": [str(round(mib * 1.1))]}


def _budget(budget: DisruptionBudget) -> Manifest:
    when: Manifest = {}
    if budget.schedule is not None:
        when = {"schedule": budget.schedule, "duration": f"{budget.duration_minutes}m"}
    return {"nodes": budget.nodes, **when}


def _compute_class(pool: InferencePool, wanted: GKEComputeClass, gpu: Accelerator) -> Manifest:
    labels = {
        key: value
        for key, value in pool.spec.nodes.selector.items()
        if not key.partition("/")[0].endswith(_GKE_DOMAINS)
    }
    spec: Manifest = {
        "nodePoolAutoCreation": {"enabled": True},
        "priorities": [_priority(p, pool, gpu) for p in wanted.priorities],
        # Any other machine would have no GPU.
        "whenUnsatisfiable": "DoNotScaleUp",
    }
    if labels:
        spec["nodePoolConfig"] = {"nodeLabels": labels}
    if wanted.consolidation_delay_minutes is not None:
        spec["autoscalingPolicy"] = {"consolidationDelayMinutes": wanted.consolidation_delay_minutes}
    return spec


def _priority(priority: ComputePriority, pool: InferencePool, gpu: Accelerator) -> Manifest:
    count = priority.gpus or pool.spec.accelerator.gpus_per_node
    out: Manifest = {"gpu": {"type": gpu.labels[GKE_LABEL], "count": count}, "spot": priority.spot}
    if priority.machine_type is not None:
        out["machineType"] = priority.machine_type
    if priority.machine_family is not None:
        out["machineFamily"] = priority.machine_family
    if priority.flex_start:
        out["flexStart"] = {"enabled": True}
    return out


def _karpenter_refusals(pool: InferencePool, karpenter: Karpenter) -> Iterator[str]:
    wanted, group = pool.spec.accelerator, karpenter.node_class_ref.group
    known = group == AWS_NODE_CLASS_GROUP and KARPENTER_LABEL in accelerator(wanted.name).labels
    if not known and not karpenter.requirements:
        yield (
            f"nodes.karpenter.requirements is empty, and no label of {group} is known for accelerator.name "
            f"{wanted.name}; add the requirement that chooses machines with this GPU"
        )
    if karpenter.max_gpus is not None and karpenter.max_gpus < wanted.count:
        yield (
            f"nodes.karpenter.maxGpus {karpenter.max_gpus} is below accelerator.count {wanted.count}; "
            "raise it: not one replica fits"
        )
    for requirement in karpenter.requirements:
        whole_number = len(requirement.values) == 1 and requirement.values[0].isdigit()
        if requirement.operator in ("Gt", "Lt") and not whole_number:
            yield (
                f"nodes.karpenter.requirements[].values {requirement.values} of {requirement.key} do not fit operator "
                f"{requirement.operator}; give one whole number"
            )


def _compute_class_refusals(pool: InferencePool, wanted: GKEComputeClass) -> Iterator[str]:
    gpus, name = pool.spec.accelerator, pool.spec.accelerator.name
    asked, why = f"accelerator.count {gpus.count}", "a replica needs all its GPUs on one node"
    if gpus.nodes > 1:
        asked, why = f"{asked} over accelerator.nodes {gpus.nodes}", "every node needs its part of them"
    if GKE_LABEL not in accelerator(name).labels:
        offered = ", ".join(gpu.name for gpu in CATALOGUE.values() if GKE_LABEL in gpu.labels)
        yield f"accelerator.name {name} is not offered by GKE; use nodes.mode Static, or one of {offered}"
    for i, priority in enumerate(wanted.priorities):
        if priority.gpus is not None and priority.gpus < gpus.gpus_per_node:
            yield (f"nodes.gkeComputeClass.priorities[{i}].gpus {priority.gpus} is below {asked}; raise it: {why}")
