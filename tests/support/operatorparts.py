"""The operator's parts wired to a fake cluster, a clock that tests set, and builders of live objects."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.fakecluster import FakeCluster
from support.manifests import policy_manifest, pool_manifest, shape
from trimtab_operator.core import names
from trimtab_operator.core.desired import ChildSettings
from trimtab_operator.core.kinds import DEPLOYMENT, POD
from trimtab_operator.core.revisions import ReplicaPod
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.reconcile import reconcile_pool
from trimtab_operator.shell.telemetry import Telemetry
from trimtab_operator.shell.wakeups import Wakeups

Manifest = dict[str, Any]
H100 = "nvidia-h100-80gb"
GPU = "nvidia.com/gpu"
NOW = 1_800_000_000.0


@dataclass
class Clock:
    """Time as the test says."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeLoads:
    """An EngineLoads that answers for the pods it was given."""

    readings: dict[str, int] = field(default_factory=dict)

    async def in_flight(self, pods: Iterable[ReplicaPod]) -> Mapping[str, int]:
        return {pod.name: self.readings[pod.name] for pod in pods if pod.name in self.readings}


@dataclass
class Bench:
    """A cluster and the operator's parts on it. `refresh` lets the watches catch up."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        telemetry = Telemetry()
        self.deps = Deps(
            cluster=self.cluster,
            world=self.cluster.world(),
            wakeups=Wakeups(telemetry.wakeups),
            telemetry=telemetry,
            children=ChildSettings(router_image="localhost/trimtab:test"),
            clock=self.clock,
            identity="test",
        )
        self.deps.world.groups = {}

    def refresh(self) -> Deps:
        self.deps.world.indices.clear()
        self.deps.world.indices.update(self.cluster.world().indices)
        return self.deps

    def engine(self, pool: str = "low") -> str:
        """Name of the pool's Deployment; of the newest where there are several."""
        made = [
            m
            for (kind, _, _), m in self.cluster.objects.items()
            if kind == DEPLOYMENT.kind and m["metadata"].get("labels", {}).get(names.POOL_LABEL) == pool
        ]
        return str(made[-1]["metadata"]["name"])

    def add_pool(self, name: str = "low", **changes: Any) -> None:
        plain = {"spec__accelerator__name": H100, "spec__model__shape": shape()}
        self.cluster.put(pool_manifest(name, **plain | changes))

    def add_policy(self, name: str = "chat", **changes: Any) -> None:
        self.cluster.put(policy_manifest(name, **changes))

    def add_moved_pools(self) -> None:
        """Pools low (3 replicas) and high (1), which the policy may move within 8 GPUs, and their children."""
        scaled = {"minReplicas": 1, "maxReplicas": 6}
        self.add_pool("low", spec__replicas=3, spec__scaling=scaled)
        self.add_pool("high", spec__scaling=scaled)
        self.add_policy(spec__rebalance={"mode": "Apply", "gpuBudget": [{"accelerator": H100, "gpus": 8}]})
        for name in ("low", "high"):
            asyncio.run(reconcile_pool(self.refresh(), ("default", name)))

    def conditions(self, kind: Any, name: str) -> dict[str, tuple[str, str]]:
        """Type to status and reason."""
        status = self.cluster.one(kind, name).get("status", {})
        return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", [])}

    def message(self, kind: Any, name: str, condition: str) -> str:
        conditions = self.cluster.one(kind, name)["status"]["conditions"]
        return next(c["message"] for c in conditions if c["type"] == condition)

    def run_pods(
        self, pool: str = "low", *, ready: int = 0, starting: int = 0, draining: int = 0, gpus: int = 1
    ) -> None:
        """Make these pods, and no others, the pool's."""
        for key in [k for k in self.cluster.objects if k[0] == POD.kind and k[2].startswith(f"{pool}-engine-")]:
            del self.cluster.objects[key]
        kinds = ["ready"] * ready + ["starting"] * starting + ["draining"] * draining
        revision = self.engine(pool).rpartition("-")[2]
        for i, kind in enumerate(kinds):
            made = pod(f"{pool}-engine-{i}", kind, pool=pool, gpus=gpus)
            made["metadata"]["labels"] |= {names.REVISION_LABEL: revision, names.SERVING_LABEL: names.SERVING}
            self.cluster.put(made)

    def settle(self, name: str, *, ready: int) -> None:
        """The Deployment controller has rolled everything out."""
        live = self.cluster.one(DEPLOYMENT, name)
        counts = {"replicas": ready, "updatedReplicas": ready, "readyReplicas": ready}
        self.cluster.change(
            DEPLOYMENT, name, {"status": {"observedGeneration": live["metadata"]["generation"], **counts}}
        )


def pod(name: str, kind: str = "ready", *, pool: str = "low", gpus: int = 1, **status: Any) -> Manifest:
    """A pod of a pool: ready, starting, draining, or one that ended (`done`)."""
    meta: Manifest = {
        "name": name,
        "namespace": "default",
        "labels": {names.POOL_LABEL: pool},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if kind == "draining":
        meta["deletionTimestamp"] = "2026-01-01T01:00:00Z"
    ready = {"type": "Ready", "status": "True" if kind == "ready" else "False"}
    ready["lastTransitionTime"] = "2026-01-01T00:01:30Z"
    phase = {"done": "Failed", "starting": "Pending"}.get(kind, "Running")
    limits = {GPU: str(gpus)} if gpus else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{"name": "engine", "resources": {"limits": limits}}]},
        "status": {"phase": phase, "conditions": [ready], **status},
    }


def router_pod(name: str, *, policy: str = "chat", ready: bool = True) -> Manifest:
    """A router's pod."""
    made = pod(name, "ready" if ready else "starting", gpus=0)
    made["metadata"]["labels"] = {names.POLICY_LABEL: policy}
    return made
