"""What Kubernetes does with a pool's Deployments on the fake cluster: make pods, start them, end them by rank."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from support.operatorparts import Bench, pod
from trimtab_operator.core import names
from trimtab_operator.core.conditions import timestamp
from trimtab_operator.core.kinds import DEPLOYMENT, POD

Manifest = dict[str, Any]


@dataclass
class Controllers:
    """Deployment controller, scheduler and kubelet in one; nothing happens but what a test calls."""

    bench: Bench
    made: int = 0
    ended: list[str] = field(default_factory=list)
    """Pods whose end began, in order."""

    def deployments(self) -> list[Manifest]:
        """Deployments of pools."""
        objects = self.bench.cluster.objects
        return [m for (kind, _, _), m in objects.items() if kind == DEPLOYMENT.kind and _pool(m)]

    def pods(self, pool: str | None = None) -> list[Manifest]:
        """Pods of pools, ending ones included."""
        objects = self.bench.cluster.objects
        found = [m for (kind, _, _), m in objects.items() if kind == POD.kind and _pool(m)]
        return [m for m in found if pool in (None, _pool(m))]

    def of(self, deployment: Manifest) -> Iterator[Manifest]:
        """Its pods that nobody has begun to end."""
        for found in self.pods(_pool(deployment)):
            if _revision(found) == _revision(deployment) and "deletionTimestamp" not in found["metadata"]:
                yield found

    def reconcile(self) -> None:
        """What the Deployment controller does when it gets to it."""
        for deployment in self.deployments():
            mine = list(self.of(deployment))
            surplus = len(mine) - deployment["spec"]["replicas"]
            for _ in range(-surplus):
                self._create(deployment)
            for victim in sorted(mine, key=_rank)[: max(0, surplus)]:
                self.end(victim["metadata"]["name"])
            meta, count = deployment["metadata"], deployment["spec"]["replicas"]
            told = {"observedGeneration": meta["generation"], "replicas": count, "updatedReplicas": count}
            self.bench.cluster.change(DEPLOYMENT, meta["name"], {"status": told})

    def _create(self, deployment: Manifest) -> None:
        self.made += 1
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        new = pod(f"{deployment['metadata']['name']}-{self.made}", "starting", pool=_pool(deployment))
        new["metadata"]["labels"] = dict(labels)
        new["metadata"]["creationTimestamp"] = timestamp(self.bench.clock.now)
        new["status"]["conditions"] = [_condition("PodScheduled", "True", self.bench.clock.now)]
        self.bench.cluster.put(new)

    def end(self, name: str) -> None:
        """Somebody deletes a pod; it takes its time."""
        self.ended.append(name)
        self.bench.cluster.change(POD, name, {"metadata": {"deletionTimestamp": timestamp(self.bench.clock.now)}})

    def start(self, count: int = 99) -> None:
        """Pods that load get ready."""
        waiting = [p for p in self.pods() if not _ready(p) and "deletionTimestamp" not in p["metadata"]]
        for found in waiting[:count]:
            ready = _condition("Ready", "True", self.bench.clock.now)
            scheduled = _condition("PodScheduled", "True", self.bench.clock.now)
            status = {"phase": "Running", "conditions": [scheduled, ready], "podIP": "192.0.2.1"}
            self.bench.cluster.change(POD, found["metadata"]["name"], {"status": status})

    def finish(self, count: int = 99) -> None:
        """Pods that end are gone."""
        for found in [p for p in self.pods() if "deletionTimestamp" in p["metadata"]][:count]:
            self.bench.cluster.remove(POD, found["metadata"]["name"])

    def settle(self) -> None:
        """All of it, at once."""
        self.reconcile()
        self.start()
        self.finish()


def _pool(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("labels", {}).get(names.POOL_LABEL, ""))


def _revision(manifest: Manifest) -> str:
    return str(manifest["metadata"]["labels"].get(names.REVISION_LABEL, ""))


def _ready(found: Manifest) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])


def _condition(kind: str, status: str, now: float) -> dict[str, str]:
    return {"type": kind, "status": status, "lastTransitionTime": timestamp(now)}


def _rank(found: Manifest) -> tuple[bool, int, str]:
    """How a ReplicaSet orders its pods: what is not ready first, then the lowest deletion cost."""
    cost = int(found["metadata"].get("annotations", {}).get(names.DELETION_COST, 0))
    return _ready(found), cost, found["metadata"]["name"]
