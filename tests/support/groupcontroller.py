"""A stand-in for the controller of LeaderWorkerSets on a real API server: makes the pods of groups, and ends them.

As the real one: the last groups end first, a group's workers after its leader (the garbage collector sees to that), and
a group that loses a pod is made anew once all of it is gone. It runs beside the test; what fails is tried again.
"""

import contextlib
import copy
import threading
from types import TracebackType
from typing import Any, Self

from testcluster.api import ApiError
from testcluster.cluster import Cluster
from trimtab_operator.core import groups

Manifest = dict[str, Any]

_PAUSE_SECONDS = 0.3
_TRANSIENT = (OSError, TimeoutError)


class GroupController:
    """Plays the LeaderWorkerSets of one namespace while the block lasts."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api = cluster.api
        self._sets = f"/apis/leaderworkerset.x-k8s.io/v1/namespaces/{namespace}/leaderworkersets"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stopped.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._stopped.wait(_PAUSE_SECONDS):
            # A conflict, a pod that is gone, or a server that is slow: the next round sees what is.
            with contextlib.suppress(ApiError, *_TRANSIENT):
                self._round()

    def _round(self) -> None:
        pods = self._api.get(self._pods)["items"]
        for group_set in self._api.get(self._sets)["items"]:
            name = group_set["metadata"]["name"]
            mine = [p for p in pods if (p["metadata"].get("labels") or {}).get(groups.SET_LABEL) == name]
            if "deletionTimestamp" not in group_set["metadata"]:
                self._bring(group_set, mine)

    def _bring(self, group_set: Manifest, mine: list[Manifest]) -> None:
        wanted, size = group_set["spec"]["replicas"], group_set["spec"]["leaderWorkerTemplate"]["size"]
        by_index = {groups.index_of(members[0]) or 0: members for members in groups.by_replica(mine)}
        for index, members in by_index.items():
            leader = members[0]
            ending = [p for p in members if "deletionTimestamp" in p["metadata"]]
            if not groups.is_leader(leader) or leader in ending:
                continue
            if index >= wanted or ending:
                self._api.delete(f"{self._pods}/{leader['metadata']['name']}")
            elif len(members) < size:
                self._make_workers(group_set, leader, {p["metadata"]["name"] for p in members})
        for index in set(range(wanted)) - by_index.keys():
            owner = _owner(group_set, controller=True)
            self._api.create(self._pods, _pod(group_set, index, 0, owner))

    def _make_workers(self, group_set: Manifest, leader: Manifest, there: set[str]) -> None:
        index = groups.index_of(leader) or 0
        for rank in range(1, group_set["spec"]["leaderWorkerTemplate"]["size"]):
            made = _pod(group_set, index, rank, _owner(leader, controller=True))
            if made["metadata"]["name"] not in there:
                self._api.create(self._pods, made)


def _owner(owner: Manifest, *, controller: bool) -> Manifest:
    meta = owner["metadata"]
    kind = {"apiVersion": owner.get("apiVersion", "v1"), "kind": owner.get("kind", "Pod")}
    return {**kind, "name": meta["name"], "uid": meta["uid"], "controller": controller}


def _pod(group_set: Manifest, index: int, rank: int, owner: Manifest) -> Manifest:
    meta, spec = group_set["metadata"], group_set["spec"]["leaderWorkerTemplate"]
    template = copy.deepcopy(spec["workerTemplate" if rank else "leaderTemplate"])
    name = f"{meta['name']}-{index}"
    labels = {groups.SET_LABEL: meta["name"], groups.GROUP_LABEL: str(index), groups.WORKER_LABEL: str(rank)}
    told = {"LWS_LEADER_ADDRESS": f"{name}.{meta['name']}.{meta['namespace']}", "LWS_WORKER_INDEX": str(rank)}
    for container in template["spec"]["containers"]:
        ours = [{"name": key, "value": value} for key, value in told.items()]
        container["env"] = [*ours, *container.get("env", [])]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{rank}" if rank else name,
            "labels": template["metadata"]["labels"] | labels,
            "annotations": template["metadata"].get("annotations") or {},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }
