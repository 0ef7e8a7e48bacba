"""The condition NodesReady: why pods of a pool have no node, in words that stay the same while nothing changes.

The scheduler's messages (kube-scheduler, `PodScheduled` False) count nodes; counts come and go with every node, so only
what they count is kept. Events of autoscalers (Karpenter, GKE's and others' cluster autoscaler) say why no node comes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.nodes import NodeMode
from trimtab_operator.core import conditions, nodepools
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.problems import Problem

Manifest = Mapping[str, Any]

_ENDED = ("Succeeded", "Failed")
_USED_UP = re.compile(r"exceeded quota: ([^\s,]+)")
_LONGEST_MESSAGE = 300
#: Autoscalers repeat themselves within this.
_RECENT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason for having no node: the words it is known by, and what to say and do about it."""

    reason: str
    signs: re.Pattern[str]
    message: str


def _cause(reason: str, signs: str, message: str) -> Cause:
    return Cause(reason, re.compile(signs, re.IGNORECASE), message)


#: What autoscalers say, the most telling first.
FROM_EVENTS = (
    _cause("QuotaExceeded", r"quota", "the cloud's quota for these machines is used up; raise it, or use another zone"),
    _cause(
        "NoCapacity",
        r"out of resources|insufficient\s?(instance\s?)?capacity|stockout|no capacity|ZONE_RESOURCE_POOL_EXHAUSTED",
        "the cloud has no such machine free now; allow another capacity type, machine or zone, or wait",
    ),
    _cause(
        "NodeLimitReached",
        r"exceeds? (the )?limits?|max node group size|max cluster|limit(s)? (reached|exceeded)",
        "the limit for these nodes is reached; raise nodes.karpenter.maxGpus or the autoscaler's limit",
    ),
    _cause(
        "NoInstanceType",
        r"no instance type|incompatible (with )?(nodepool|requirements)|incompatible requirements",
        "no machine type fits the requirements and the replica's GPUs, CPU and memory; loosen nodes or engine.pod",
    ),
)
#: What the scheduler says of nodes, in the reverse order of its filters: the node that came furthest is listed first.
FROM_SCHEDULER = (
    _cause(
        "InsufficientGpu",
        r"Insufficient nvidia\.com/|cannot allocate all claims|allocat\w+ .*claim",
        "nodes that would do have no free GPU left; add GPU nodes, or free some",
    ),
    _cause(
        "VolumeUnavailable",
        r"persistentvolumeclaim|volume",
        "a volume of model.cache or engine.pod.volumes cannot be had on these nodes; check its claim and its zone",
    ),
    _cause(
        "InsufficientResources",
        r"Insufficient (?!nvidia\.com/)\S+|Too many pods",
        "nodes that would do lack CPU, memory or room for pods; lower engine.pod.requests or use larger nodes",
    ),
    _cause(
        "NoMatchingNode",
        r"didn't match Pod's node affinity|didn't match (the requested|pod's node) ?selector|node affinity",
        "nodes lack the labels of nodes.selector; correct nodes.selector, or label the nodes",
    ),
    _cause(
        "TaintNotTolerated",
        r"untolerated taint|had taints? .*didn't tolerate",
        "nodes have a taint that the pods do not tolerate; add it to nodes.tolerations",
    ),
    _cause("NodesCordoned", r"were unschedulable", "nodes are cordoned; uncordon them"),
    _cause("NoNodes", r"no nodes available", "the cluster has no node that takes pods; add nodes"),
)


def nodes_ready(
    pool: InferencePool | None,
    pods: Iterable[Manifest],
    *,
    problem: Problem | None = None,
    trouble: str = "",
    events: Iterable[Manifest] = (),
) -> Fact:
    """The condition. `problem` is what keeps the pool's NodePool or ComputeClass from being there.

    `trouble` is what the Deployment or its pods say of themselves: a quota of the namespace stops pods from being made.
    """
    if problem is not None:
        return Fact(conditions.NODES_READY, status=False, reason=problem.reason, message=problem.message)
    if quota := _USED_UP.search(trouble):
        message = f"ResourceQuota {quota[1]} of the namespace is used up; raise it, or lower the pool's replicas"
        return Fact(conditions.NODES_READY, status=False, reason="QuotaExceeded", message=message)
    waiting = [c for c in map(_unscheduled, pods) if c is not None]
    if not waiting:
        return Fact(conditions.NODES_READY, status=True, reason="Scheduled", message="no replica waits for a node")
    if all(c.get("reason") == "SchedulingGated" for c in waiting):
        message = "replicas wait to be admitted (scheduling gates, such as Kueue's)"
        return Fact(conditions.NODES_READY, status=None, reason="Queued", message=message)
    told = " ".join(str(e.get("message", "")) for e in events)
    return _unschedulable(pool, {_of_nodes(str(c.get("message", ""))) for c in waiting}, told)


def waiting_pod(pods: Iterable[Manifest]) -> Manifest | None:
    """The first pod, by name, that the scheduler found no node for: events about it are worth reading."""
    waiting = [pod for pod in pods if (_unscheduled(pod) or {}).get("reason") == "Unschedulable"]
    return min(waiting, key=lambda pod: str(pod["metadata"]["name"]), default=None)


def recent(events: Iterable[Manifest], *, now: float) -> list[Manifest]:
    """Events of the last minutes; older ones tell of troubles that may be over. `now` is in epoch seconds."""
    return [event for event in events if now - _time(event) <= _RECENT_SECONDS]


def _time(event: Manifest) -> float:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    text = next((time for time in times if time), None)
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _unschedulable(pool: InferencePool | None, said: Iterable[str], told: str) -> Fact:
    """`said` is what the scheduler says of each pod, `told` what autoscalers say of one."""
    words = "; ".join(sorted(said))
    causes = [*_matching(FROM_EVENTS, told), *_matching(FROM_SCHEDULER, words)]
    if not causes:
        return Fact(conditions.NODES_READY, status=False, reason="Unschedulable", message=_without_counts(words))
    if pool is not None and pool.spec.nodes.mode != NodeMode.STATIC and causes[0] in FROM_SCHEDULER:
        return _coming(pool)
    message = "; ".join(cause.message for cause in causes)
    return Fact(conditions.NODES_READY, status=False, reason=causes[0].reason, message=message)


def _coming(pool: InferencePool) -> Fact:
    kind = nodepools.kind_of(pool)
    name = f"{kind.kind} {nodepools.name_of(pool)}" if kind else "nodes"
    message = f"replicas wait for nodes of {name}; if they do not come, its status and events say why"
    return Fact(conditions.NODES_READY, status=None, reason="Provisioning", message=message)


def _unscheduled(pod: Manifest) -> Manifest | None:
    """The pod's condition PodScheduled where it is False."""
    status = pod.get("status", {})
    if status.get("phase") in _ENDED or pod["metadata"].get("deletionTimestamp"):
        return None
    return next(
        (c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled" and c.get("status") == "False"),
        None,
    )


def _matching(causes: Iterable[Cause], text: str) -> list[Cause]:
    return [cause for cause in causes if cause.signs.search(text)]


def _of_nodes(message: str) -> str:
    """The message without its second half, which speaks of evicting others."""
    return message.partition("preemption:")[0].removesuffix("no new claims to deallocate, ").strip()


def _without_counts(message: str) -> str:
    plain = re.sub(r"\d+/\d+ nodes", "nodes", message)
    return re.sub(r"\b\d+ (?=node|Insufficient)", "", plain).strip()[:_LONGEST_MESSAGE] or "no node takes the pods"
