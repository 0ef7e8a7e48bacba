"""How GPU nodes come to be: they are there (`Static`), or Karpenter or GKE makes them for the pool."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab_crds.meta import Rule, Spec

#: A qualified name, as keys of node labels are.
LabelKey = Annotated[
    str, Field(min_length=1, max_length=317, pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, Field(max_length=63)]


class NodeMode(StrEnum):
    """Who makes the nodes."""

    STATIC = "Static"
    KARPENTER = "Karpenter"
    GKE_COMPUTE_CLASS = "GKEComputeClass"


class Toleration(Spec):
    """A toleration of the engine's pods, as in a PodSpec."""

    key: str | None = Field(default=None, description="Taint key; all taints when absent and operator is Exists.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="Equal compares value, Exists does not.")
    value: str | None = Field(default=None, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; all effects when absent."
    )


class NodeClassRef(Spec):
    """The cloud's half of Karpenter's configuration (EC2NodeClass, AKSNodeClass); never made by the operator."""

    group: str = Field(description="API group, such as karpenter.k8s.aws.", pattern=r"^[^/]+$", max_length=253)
    kind: str = Field(description="Kind, such as EC2NodeClass.", min_length=1, max_length=63)
    name: str = Field(description="Name of the object.", min_length=1, max_length=253)


class Requirement(Spec):
    """What a node must be like, as in a NodePool of Karpenter."""

    key: LabelKey = Field(description="Label of the node.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        default="In", description="How the label is compared; Gt and Lt compare one whole number."
    )
    values: list[LabelValue] = Field(default_factory=list, description="Values to compare with.", max_length=64)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['Exists', 'DoesNotExist']) == (size(self.values) == 0)",
            lambda r: (r.operator in ("Exists", "DoesNotExist")) == (not r.values),
            "nodes.karpenter.requirements[].operator {operator} of {key} does not fit its values; "
            "Exists and DoesNotExist take none, the others need at least one",
        ),
    )


class DisruptionBudget(Spec):
    """How many nodes Karpenter may take away at a time, and when."""

    nodes: str = Field(
        default="1",
        description="A number of nodes, or a share of them such as 10%; 0 forbids it.",
        pattern=r"^((100|[0-9]{1,2})%|[0-9]+)$",
        max_length=10,
    )
    schedule: str | None = Field(
        default=None,
        description="When it begins to hold, in cron's five fields (UTC) or @daily and the like; always when absent.",
        pattern=r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$",
        max_length=256,
    )
    duration_minutes: int | None = Field(
        default=None, description="How long it holds from each time of the schedule.", ge=1, le=525_600
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.schedule) == has(self.durationMinutes)",
            lambda b: (b.schedule is None) == (b.duration_minutes is None),
            "nodes.karpenter.disruption.budgets[].schedule and durationMinutes only work together; "
            "set both or remove both",
        ),
    )


class Disruption(Spec):
    """When Karpenter may take nodes away by itself."""

    consolidation: Literal["WhenEmpty", "WhenEmptyOrUnderutilized"] = Field(
        default="WhenEmpty",
        description="WhenEmpty leaves nodes with replicas alone (pods say do-not-disrupt); the other also packs "
        "replicas together, which drains and reloads them.",
    )
    consolidate_after_seconds: int = Field(
        default=300, description="How long a node must be without a change before it goes.", ge=0, le=86_400
    )
    budgets: list[DisruptionBudget] = Field(
        default_factory=list, description="Limits of it; one node at a time when empty.", max_length=16
    )


class Karpenter(Spec):
    """A NodePool of Karpenter (karpenter.sh/v1) for this pool alone."""

    node_class_ref: NodeClassRef = Field(description="Which node class makes the nodes.")
    capacity_types: list[Literal["spot", "on-demand", "reserved"]] = Field(
        default=["on-demand"],
        description="What may be bought. Karpenter takes reserved before spot before on-demand, and falls back.",
        min_length=1,
        max_length=3,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    requirements: list[Requirement] = Field(
        default_factory=list,
        description="What nodes must be like, besides having the accelerator.",
        max_length=32,
    )
    max_gpus: int | None = Field(
        default=None, description="GPUs of all its nodes together; no limit when absent.", ge=1, le=100_000
    )
    expire_after_hours: int | None = Field(
        default=None,
        description="Age at which a node is replaced, whatever runs on it; never when absent.",
        ge=1,
        le=87_600,
    )
    disruption: Disruption = Field(default_factory=Disruption, description="When nodes may be taken away.")


class ComputePriority(Spec):
    """One kind of machine, tried after the ones before it."""

    machine_type: str | None = Field(
        default=None, description="Machine type, such as g2-standard-12.", pattern=r"^[a-z0-9-]+$", max_length=63
    )
    machine_family: str | None = Field(
        default=None, description="Machine family, such as g2.", pattern=r"^[a-z0-9-]+$", max_length=63
    )
    gpus: int | None = Field(default=None, description="GPUs of one node; accelerator.count when absent.", ge=1, le=64)
    spot: bool = Field(default=False, description="Spot machines: cheaper, and taken back at short notice.")
    flex_start: bool = Field(
        default=False, description="Wait until GPUs are there (flex start), for at most seven days of use."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.machineType) || !has(self.machineFamily)",
            lambda p: p.machine_type is None or p.machine_family is None,
            "nodes.gkeComputeClass.priorities[].machineType {machineType} says its machineFamily {machineFamily} "
            "already; remove one of them",
        ),
        Rule(
            "!self.spot || !self.flexStart",
            lambda p: not (p.spot and p.flex_start),
            "nodes.gkeComputeClass.priorities[].spot and flexStart exclude each other; "
            "make two priorities of it, in the order to try them",
        ),
    )


class GKEComputeClass(Spec):
    """A ComputeClass of GKE (cloud.google.com/v1) for this pool alone; GKE makes the node pools."""

    priorities: list[ComputePriority] = Field(
        description="Machines to try, in this order.", min_length=1, max_length=16
    )
    consolidation_delay_minutes: int | None = Field(
        default=None, description="How long a node must be unused before it goes; GKE's own when absent.", ge=1, le=1440
    )


class Nodes(Spec):
    """Which GPU nodes the replicas may run on, and who makes them."""

    mode: NodeMode = Field(
        default=NodeMode.STATIC,
        description="Static uses nodes that are there; Karpenter and GKEComputeClass have them made.",
    )
    selector: dict[str, str] = Field(default_factory=dict, description="Labels a node must have.", max_length=32)
    tolerations: list[Toleration] = Field(default_factory=list, description="Taints to tolerate.", max_length=32)
    karpenter: Karpenter | None = Field(default=None, description="The NodePool, in mode Karpenter.")
    gke_compute_class: GKEComputeClass | None = Field(
        default=None, description="The ComputeClass, in mode GKEComputeClass."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mode != 'Karpenter' || has(self.karpenter)",
            lambda n: n.mode != NodeMode.KARPENTER or n.karpenter is not None,
            "nodes.mode {mode} needs nodes.karpenter; set at least nodes.karpenter.nodeClassRef",
        ),
        Rule(
            "self.mode == 'Karpenter' || !has(self.karpenter)",
            lambda n: n.mode == NodeMode.KARPENTER or n.karpenter is None,
            "nodes.karpenter has no effect in nodes.mode {mode}; set nodes.mode Karpenter or remove nodes.karpenter",
        ),
        Rule(
            "self.mode != 'GKEComputeClass' || has(self.gkeComputeClass)",
            lambda n: n.mode != NodeMode.GKE_COMPUTE_CLASS or n.gke_compute_class is not None,
            "nodes.mode {mode} needs nodes.gkeComputeClass; set at least one of nodes.gkeComputeClass.priorities",
        ),
        Rule(
            "self.mode == 'GKEComputeClass' || !has(self.gkeComputeClass)",
            lambda n: n.mode == NodeMode.GKE_COMPUTE_CLASS or n.gke_compute_class is None,
            "nodes.gkeComputeClass has no effect in nodes.mode {mode}; "
            "set nodes.mode GKEComputeClass or remove nodes.gkeComputeClass",
        ),
    )
