"""NodesReady from real messages of kube-scheduler 1.30 to 1.36, Karpenter and cluster autoscalers."""

from pathlib import Path
from typing import Any

import pytest

from support.manifests import karpenter, pool_manifest
from support.operatorparts import NOW, pod
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import load
from trimtab_operator.core.nodesready import FROM_EVENTS, FROM_SCHEDULER, nodes_ready, recent, waiting_pod
from trimtab_operator.core.problems import nodes_api_missing

ROOT = Path(__file__).resolve().parents[3]
NOT_HELPFUL = "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."


def waiting(message: str, name: str = "a", reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return pod(name, "starting", conditions=[condition])


def verdict(*pods: Any, **more: Any) -> tuple[bool | None, str]:
    fact = nodes_ready(None, pods, **more)
    return fact.status, fact.reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(
            "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/3 "
            "nodes are available: 3 No preemption victims found for incoming pod.",
            "InsufficientGpu",
            id="no GPU free",
        ),
        pytest.param(
            f"0/3 nodes are available: 1 Insufficient nvidia.com/mig-3g.40gb, 2 node(s) didn't match Pod's node "
            f"affinity/selector. {NOT_HELPFUL}",
            "InsufficientGpu",
            id="no slice free",
        ),
        pytest.param(
            f"0/3 nodes are available: 3 cannot allocate all claims. still not schedulable, {NOT_HELPFUL}",
            "InsufficientGpu",
            id="no device free",
        ),
        pytest.param(
            f"0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. {NOT_HELPFUL}",
            "NoMatchingNode",
            id="a wrong label",
        ),
        pytest.param(
            "0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: present}. preemption: 0/3 nodes",
            "TaintNotTolerated",
            id="a taint",
        ),
        pytest.param(
            f"0/3 nodes are available: 3 node(s) had untolerated taint(s). {NOT_HELPFUL}",
            "TaintNotTolerated",
            id="a taint of 1.34",
        ),
        pytest.param(
            "0/3 nodes are available: 1 node(s) had untolerated taint {a: }, 2 Insufficient memory. preemption: 0/3 "
            "nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found.",
            "InsufficientResources",
            id="memory",
        ),
        pytest.param(
            "0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods. preemption: 0/2 nodes are available",
            "InsufficientResources",
            id="room for pods",
        ),
        pytest.param(
            "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available",
            "NodesCordoned",
            id="cordoned",
        ),
        pytest.param(
            '0/1 nodes are available: persistentvolumeclaim "models" not found. preemption: 0/1 nodes are available',
            "VolumeUnavailable",
            id="no claim",
        ),
        pytest.param(
            "0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/4 nodes",
            "VolumeUnavailable",
            id="an unbound claim",
        ),
        pytest.param("no nodes available to schedule pods", "NoNodes", id="an empty cluster"),
        pytest.param(
            "0/1 nodes are available: 1 node(s) didn't like the weather.", "Unschedulable", id="anything else"
        ),
    ],
)
def test_what_the_scheduler_says(message: str, reason: str):
    assert verdict(waiting(message)) == (False, reason)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Node scale up in zones us-central1-a associated with this pod failed: GCE quota exceeded.", "QuotaExceeded"),
        ("Node scale up in zones us-east4-b associated with this pod failed: GCE out of resources.", "NoCapacity"),
        ("creating machine: InsufficientInstanceCapacity: no p5.48xlarge in us-east-1a", "NoCapacity"),
        ("all available instance types exceed limits for nodepool: trimtab-a-b", "NodeLimitReached"),
        ("pod didn't trigger scale-up: 2 max node group size reached", "NodeLimitReached"),
        ("incompatible with nodepool x, no instance type satisfied resources", "NoInstanceType"),
    ],
)
def test_what_autoscalers_say_goes_before_the_scheduler(message: str, reason: str):
    pods = [waiting(f"0/3 nodes are available: 3 Insufficient nvidia.com/gpu. {NOT_HELPFUL}")]
    assert verdict(*pods, events=[{"reason": "FailedScaleUp", "message": message}]) == (False, reason)


def test_the_message_does_not_change_with_the_number_of_nodes():
    def message(count: int) -> str:
        text = f"0/{count} nodes are available: {count} node(s) didn't like the weather. preemption: 0/{count} nodes"
        return nodes_ready(None, [waiting(text)]).message

    assert message(3) == message(14) == "nodes are available: node(s) didn't like the weather."


def test_all_causes_are_told_the_closest_node_first():
    text = "0/9 nodes are available: 4 node(s) had untolerated taint {a: }, 5 Insufficient nvidia.com/gpu."
    fact = nodes_ready(None, [waiting(text)])
    assert fact.message == (
        "nodes that would do have no free GPU left; add GPU nodes, or free some; "
        "nodes have a taint that the pods do not tolerate; add it to nodes.tolerations"
    )


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param([], id="no pods"),
        pytest.param([pod("a"), pod("b", "starting")], id="pods that have nodes"),
        pytest.param([{**waiting("x"), "metadata": {"name": "a", "deletionTimestamp": "2026"}}], id="a pod that ends"),
        pytest.param([pod("a", "done", conditions=waiting("x")["status"]["conditions"])], id="a pod that failed"),
    ],
)
def test_nothing_waits(pods: Any):
    assert verdict(*pods) == (True, "Scheduled")
    assert waiting_pod(pods) is None


def test_a_queue_is_no_trouble():
    gated = waiting("Scheduling is blocked due to non-empty scheduling gates", reason="SchedulingGated")
    assert verdict(gated) == (None, "Queued")
    assert waiting_pod([gated]) is None


def test_nodes_that_are_being_made_are_waited_for():
    pool = load(pool_manifest(spec__nodes=karpenter()))
    assert isinstance(pool, InferencePool)
    pods = [waiting("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")]
    fact = nodes_ready(pool, pods)
    assert (fact.status, fact.reason) == (None, "Provisioning")
    assert "NodePool trimtab-default-low-" in fact.message
    told = [{"reason": "FailedScheduling", "message": "all available instance types exceed limits for nodepool"}]
    assert nodes_ready(pool, pods, events=told).reason == "NodeLimitReached"


def test_a_quota_of_the_namespace():
    trouble = (
        'FailedCreate: pods "low-engine-x-y" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1'
    )
    fact = nodes_ready(None, [], trouble=trouble)
    assert (fact.status, fact.reason) == (False, "QuotaExceeded")
    assert fact.message.startswith("ResourceQuota gpus of the namespace is used up")


def test_what_keeps_the_node_pool_away_goes_first():
    problem = nodes_api_missing("Karpenter", "karpenter.sh/v1 NodePool")
    assert verdict(waiting("no nodes available"), problem=problem) == (False, "NodesApiMissing")


def test_old_events_tell_nothing():
    events = [
        {"message": "old", "lastTimestamp": "2027-01-15T07:00:00Z"},
        {"message": "new", "lastTimestamp": "2027-01-15T07:50:00Z"},
        {"message": "newer", "eventTime": "2027-01-15T07:55:00.123456Z", "lastTimestamp": None},
        {"message": "undated"},
    ]
    assert [e["message"] for e in recent(events, now=NOW)] == ["new", "newer"]


def test_the_first_pod_by_name_is_asked_about():
    assert waiting_pod([waiting("x", "b"), waiting("x", "a"), pod("0")])["metadata"]["name"] == "a"  # type: ignore[index]


def test_every_cause_is_explained():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert [c.reason for c in (*FROM_EVENTS, *FROM_SCHEDULER) if f"`{c.reason}`" not in text] == []
