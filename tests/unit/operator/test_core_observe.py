"""Counts of pods, and why they do not answer."""

from typing import Any

import pytest

from support.operatorparts import pod
from trimtab_operator.core.observe import Observation, gpus_held, observe


def deployment(replicas: int | None = 2, generation: int = 1, **status: Any) -> dict[str, Any]:
    plain = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}
    spec = {} if replicas is None else {"replicas": replicas}
    return {"metadata": {"generation": generation}, "spec": spec, "status": plain | status}


def pods(**kinds: int) -> list[dict[str, Any]]:
    return [pod(f"{kind}-{i}", kind) for kind, count in kinds.items() for i in range(count)]


def test_pods_are_counted_by_what_they_do():
    seen = observe(deployment(), pods(ready=2, starting=3, draining=4, done=5))
    assert (seen.ready, seen.starting, seen.draining, seen.running, seen.pods) == (2, 3, 4, 5, 9)


def test_without_a_deployment_pods_still_count():
    assert observe(None, pods(draining=2)) == Observation(draining=2)


def test_a_deployment_without_replicas_means_one():
    assert observe(deployment(None), []).desired == 1


@pytest.mark.parametrize(
    ("live", "updating"),
    [
        pytest.param(deployment(), False, id="settled"),
        pytest.param(deployment(generation=2), True, id="the controller has not looked"),
        pytest.param(deployment(updatedReplicas=1), True, id="old pods are left"),
    ],
)
def test_a_roll_out_is_seen(live: Any, updating: bool):
    assert observe(live, []).updating is updating


def test_a_deployment_that_gave_up_says_why():
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    assert observe(deployment(conditions=[condition]), []).failed == "ProgressDeadlineExceeded: late"


def unschedulable() -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    return pod("a", "starting", conditions=[condition])


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod("b", "starting", containerStatuses=[{"state": {"waiting": {"reason": reason, "message": message}}}])


@pytest.mark.parametrize(
    ("found", "trouble"),
    [
        pytest.param([unschedulable()], "Unschedulable: 0/3 nodes", id="no node"),
        pytest.param([waiting("CrashLoopBackOff", "back-off")], "CrashLoopBackOff: back-off", id="it crashes"),
        pytest.param([waiting("ImagePullBackOff")], "ImagePullBackOff", id="no image"),
        pytest.param([waiting("ContainerCreating")], "", id="it is being made"),
        pytest.param([pod("c", "starting")], "", id="it loads"),
        pytest.param([waiting("CrashLoopBackOff"), unschedulable()], "CrashLoopBackOff", id="always the same first"),
    ],
)
def test_the_first_trouble_in_the_words_of_kubernetes(found: Any, trouble: str):
    assert observe(deployment(), found).trouble == trouble


def test_a_quota_that_is_used_up_comes_first():
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    seen = observe(deployment(conditions=[condition]), [unschedulable()])
    assert seen.trouble == "FailedCreate: exceeded quota"


def test_gpus_are_counted_by_the_pods_own_requests():
    alive = [pod("a", gpus=4), pod("b", "draining", gpus=2), pod("c", "done", gpus=8), pod("d", gpus=0)]
    assert gpus_held(alive) == 6


def test_claimed_gpus_count_like_those_of_the_device_plugin():
    claimed = pod("a", gpus=0)
    claimed["metadata"]["annotations"] = {"trimtab.dev/gpus": "4"}
    assert gpus_held([claimed]) == 0, "an annotation alone holds nothing"
    claimed["spec"]["resourceClaims"] = [{"name": "gpus", "resourceClaimTemplateName": "x"}]
    assert gpus_held([claimed, pod("b", gpus=2)]) == 6


def test_slices_count_one_each_beside_whole_gpus_of_an_earlier_spec():
    sliced = pod("a", gpus=0)
    sliced["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/mig-3g.40gb": "1", "memory": "8Gi"}
    assert gpus_held([sliced, pod("b", "draining", gpus=2)]) == 3
