"""What Kubernetes does with a pool's workloads on the fake cluster: make pods, start them, end them.

Of a Deployment the pods that are not ready and those with a low deletion cost end first; of a LeaderWorkerSet the last
groups, a leader before its workers, and a group that loses a pod is made anew when all of it is gone.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from support.operatorparts import Bench, pod
from trimtab_operator.core import groups, names
from trimtab_operator.core.conditions import timestamp
from trimtab_operator.core.kinds import BY_NAME, DEPLOYMENT, LEADER_WORKER_SET, POD, WORKLOADS

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

    def sets(self) -> list[Manifest]:
        """LeaderWorkerSets of pools."""
        objects = self.bench.cluster.objects
        return [m for (kind, _, _), m in objects.items() if kind == LEADER_WORKER_SET.kind and _pool(m)]

    def workloads(self) -> list[Manifest]:
        """Both, in the order in which they were made."""
        objects = self.bench.cluster.objects
        return [m for (kind, _, _), m in objects.items() if BY_NAME[kind] in WORKLOADS and _pool(m)]

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
        """What the controllers do when they get to it."""
        for group_set in self.sets():
            self._reconcile_set(group_set)
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

    def _reconcile_set(self, group_set: Manifest) -> None:
        name, wanted = group_set["metadata"]["name"], group_set["spec"]["replicas"]
        members = [p for p in self.pods(_pool(group_set)) if p["metadata"]["labels"].get(groups.SET_LABEL) == name]
        for group in groups.by_replica(members):
            leader, ends = group[0], [p for p in group if "deletionTimestamp" in p["metadata"]]
            if not groups.is_leader(leader):
                self._end_all(group)
            elif (groups.index_of(leader) or 0) >= wanted:
                self._end_all([leader])
            elif leader not in ends and (ends or len(group) < group_set["spec"]["leaderWorkerTemplate"]["size"]):
                self._end_all(group)
        there = {groups.index_of(member) for member in members}
        for index in set(range(wanted)) - there:
            self._create_group(group_set, index)

    def _end_all(self, pods: list[Manifest]) -> None:
        for found in pods:
            if "deletionTimestamp" not in found["metadata"]:
                self.end(found["metadata"]["name"])

    def _create_group(self, group_set: Manifest, index: int) -> None:
        template, name = group_set["spec"]["leaderWorkerTemplate"], group_set["metadata"]["name"]
        for rank in range(template["size"]):
            labels = {groups.SET_LABEL: name, groups.GROUP_LABEL: str(index), groups.WORKER_LABEL: str(rank)}
            of_pod = template["workerTemplate" if rank else "leaderTemplate"]
            self._put(group_set, f"{name}-{index}" + (f"-{rank}" if rank else ""), of_pod, labels)

    def _create(self, deployment: Manifest) -> None:
        self.made += 1
        self._put(deployment, f"{deployment['metadata']['name']}-{self.made}", deployment["spec"]["template"], {})

    def _put(self, owner: Manifest, name: str, template: Manifest, labels: dict[str, str]) -> None:
        new = pod(name, "starting", pool=_pool(owner))
        new["metadata"]["labels"] = template["metadata"]["labels"] | labels
        new["metadata"]["annotations"] = dict(template["metadata"]["annotations"])
        new["spec"] = copy.deepcopy(template["spec"])
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
