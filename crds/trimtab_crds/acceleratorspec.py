"""Which GPUs one replica of an InferencePool has, and how they are asked for."""

from typing import ClassVar, Literal

from pydantic import Field

from trimtab_crds.accelerators import SLICE_MARK
from trimtab_crds.meta import Rule, Spec
from trimtab_crds.scalars import Label


class AcceleratorRef(Spec):
    """The GPU shape of one replica."""

    name: Label = Field(
        description="A GPU of the built-in catalogue (`trimtab accelerators` lists it), or a MIG slice of one, such as "
        "nvidia-h100-80gb-mig-3g-40gb (resource nvidia.com/mig-3g.40gb)."
    )
    count: int = Field(default=1, description="GPUs per replica, on all its nodes together.", ge=1, le=64)
    nodes: int = Field(
        default=1,
        description="Nodes that one replica spans, each with as many of its GPUs (`--nnodes`); more than one needs "
        "LeaderWorkerSet (leaderworkerset.x-k8s.io/v1) in the cluster.",
        ge=1,
        le=64,
    )
    exclusive_topology: str | None = Field(
        default=None,
        description="With several nodes: the node label whose value they share, and no other replica has, such as "
        "cloud.google.com/gke-nodepool (`leaderworkerset.sigs.k8s.io/exclusive-topology`).",
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
        max_length=253,
    )
    allocation: Literal["DevicePlugin", "DRA"] = Field(
        default="DevicePlugin",
        description="How pods ask for GPUs: as a resource of the device plugin, or by Dynamic Resource Allocation "
        "(resource.k8s.io/v1) with a ResourceClaimTemplate.",
    )
    device_class_name: str | None = Field(
        default=None,
        description="The DeviceClass with allocation DRA; gpu.nvidia.com, or mig.nvidia.com for slices, when absent.",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=253,
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.count == 1 || !self.name.contains('{SLICE_MARK}')",
            lambda a: a.count == 1 or SLICE_MARK not in a.name,
            "accelerator.count {count} of {name}: MIG slices cannot work together; set count 1, or use whole GPUs",
        ),
        Rule(
            "self.allocation == 'DRA' || !has(self.deviceClassName)",
            lambda a: a.allocation == "DRA" or a.device_class_name is None,
            "accelerator.deviceClassName {deviceClassName} has no effect with accelerator.allocation {allocation}; "
            "set allocation DRA or remove deviceClassName",
        ),
        Rule(
            "self.count % self.nodes == 0",
            lambda a: a.count % a.nodes == 0,
            "accelerator.count {count} is no multiple of accelerator.nodes {nodes}; change one of them: every node of "
            "a replica has as many GPUs",
        ),
        Rule(
            "self.nodes > 1 || !has(self.exclusiveTopology)",
            lambda a: a.nodes > 1 or a.exclusive_topology is None,
            "accelerator.exclusiveTopology {exclusiveTopology} has no effect with accelerator.nodes {nodes}; "
            "remove it, or raise nodes",
        ),
    )

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one replica on each of its nodes."""
        return self.count // self.nodes
