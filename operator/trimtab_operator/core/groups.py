"""Pods of a LeaderWorkerSet as replicas: the pods of one group, a leader and its workers, are one replica.

Source: LeaderWorkerSet, api/leaderworkerset/v1 (labels). Pods are named SET-GROUP and SET-GROUP-WORKER, so however a
group is made anew, it never has more pods at once than nodes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trimtab_operator.core import names

Manifest = Mapping[str, Any]

SET_LABEL = "leaderworkerset.sigs.k8s.io/name"
GROUP_LABEL = "leaderworkerset.sigs.k8s.io/group-index"
WORKER_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"
LEADER = "0"


def is_member(meta: Manifest) -> bool:
    """Whether the metadata are those of a pod of a group."""
    return SET_LABEL in (meta.get("labels") or {})


def index_of(pod: Manifest) -> int | None:
    """Which group of its set a pod is of; None for a pod of none."""
    text = str((pod["metadata"].get("labels") or {}).get(GROUP_LABEL, ""))
    return int(text) if is_member(pod["metadata"]) and text.isdigit() else None


def by_replica(pods: Iterable[Manifest]) -> list[list[Manifest]]:
    """The pods of each replica, the leader first; a pod of no group is a replica of its own."""
    found: dict[object, list[Manifest]] = {}
    for pod in pods:
        meta, index = pod["metadata"], index_of(pod)
        key = meta["name"] if index is None else (meta["labels"][SET_LABEL], index)
        found.setdefault(key, []).append(pod)
    return [
        sorted(members, key=lambda pod: (not is_leader(pod), pod["metadata"]["name"])) for members in found.values()
    ]


def is_leader(pod: Manifest) -> bool:
    """Whether a pod answers requests for its replica."""
    return str((pod["metadata"].get("labels") or {}).get(WORKER_LABEL, LEADER)) == LEADER


def nodes_of(pod: Manifest) -> int:
    """Nodes of the pod's replica."""
    told = str((pod["metadata"].get("annotations") or {}).get(names.NODES_ANNOTATION, ""))
    return int(told) if told.isdigit() else 1
