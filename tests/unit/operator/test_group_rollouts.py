"""Replicas on several nodes through the operator's own writer: counted whole, rolled out, drained from the last one."""

from typing import Any

import pytest

from support.operatorparts import H100
from support.stories import KEY, Story
from trimtab_operator.core import groups, names
from trimtab_operator.core.kinds import LEADER_WORKER_SET, POD, POOL, SERVICE

NEW = {"recipe": {"preset": "throughput"}}
TWO_NODES = {"name": H100, "count": 2, "nodes": 2}


def started(replicas: int = 2, budget: int | None = None, **pool: Any) -> Story:
    return Story().started(replicas, budget, **{"spec__accelerator": TWO_NODES} | pool)


def members(story: Story, index: int) -> list[dict[str, Any]]:
    return [p for p in story.play.pods() if groups.index_of(p) == index]


def test_a_replica_is_a_group_of_pods():
    story = started(2, budget=6)
    (made,) = story.play.sets()
    assert made["spec"]["replicas"] == 2
    assert len(story.play.pods()) == 4
    status = story.status()
    assert (status["replicas"], status["readyReplicas"], status["gpus"]) == (2, 2, 4)
    assert status["selector"] == f"{names.POOL_LABEL}=low,{groups.WORKER_LABEL}=0"
    assert story.reason("Ready") == ("True", "Available")


def test_services_lead_to_leaders_alone():
    story = started(1)
    selector = story.bench.cluster.one(SERVICE, "low-engine")["spec"]["selector"]
    led = [p for p in story.play.pods() if selector.items() <= p["metadata"]["labels"].items()]
    assert [groups.is_leader(pod) for pod in led] == [True]


def test_a_group_answers_when_all_of_it_is_ready():
    story = started(1)
    worker = next(p for p in story.play.pods() if not groups.is_leader(p))
    waiting = [{"type": "Ready", "status": "False", "lastTransitionTime": "2027-01-15T08:00:00Z"}]
    story.bench.cluster.change(POD, worker["metadata"]["name"], {"status": {"conditions": waiting}})
    story.tick()
    assert story.reason("Ready") == ("False", "PodsNotReady")
    assert story.status()["readyReplicas"] == 0


@pytest.mark.parametrize("budget", [None, 4], ids=["no policy", "no GPU to spare"])
def test_without_gpus_to_spare_one_group_after_another_is_replaced(budget: int | None):
    story = started(2, budget)
    story.edit(NEW)
    most = 0
    for _ in range(30):
        story.run(1)
        most = max(most, story.gpus())
    assert story.asked() == [0, 2]
    assert most == 4
    assert story.reason("RolledOut") == ("True", "UpToDate")


def test_with_gpus_for_a_whole_group_a_new_one_comes_first():
    story = started(1, budget=4)
    story.edit(NEW)
    fewest = 1
    for _ in range(10):
        story.run(1)
        fewest = min(fewest, story.serving())
    assert (fewest, story.asked()) == (1, [0, 1])


def test_gpus_for_half_a_group_are_no_room():
    story = started(1, budget=3)
    story.edit(NEW)
    for _ in range(20):
        story.run(1)
        assert story.gpus() <= 3
    assert story.asked() == [0, 1]


def test_a_pool_goes_from_one_node_to_two_and_back():
    story = Story().started(2, budget=4, spec__accelerator={"name": H100, "count": 2})
    for nodes, asked in ((2, [0, 2]), (1, [2, 0])):
        story.edit({"accelerator": {"nodes": nodes}})
        for _ in range(30):
            story.run(1)
            assert story.gpus() <= 4
        assert story.asked() == asked
        assert story.reason("Ready") == ("True", "Available")


def test_more_gpus_per_replica_are_counted_before_the_pods_are_there():
    """The old revision still asks for a replica that its controller has not made."""
    story = Story().started(2, budget=8, spec__accelerator={"name": H100, "count": 4, "nodes": 2})
    for pod in story.play.pods():
        story.bench.cluster.remove(POD, pod["metadata"]["name"])
    story.edit({"accelerator": {"count": 2}})
    for _ in range(40):
        story.run(1)
        assert story.gpus() <= 8


class TestDrains:
    """A LeaderWorkerSet ends its last groups, so these are the ones that drain."""

    def test_the_last_group_drains_and_its_gpus_count_until_all_of_it_is_gone(self):
        story = started(2)
        story.loads.readings = {leader(story, 0): 0, leader(story, 1): 7}
        story.edit({"replicas": 1})
        story.tick()
        assert sorted(story.cordoned()) == [p["metadata"]["name"] for p in members(story, 1)]
        assert story.asked() == [2]
        story.loads.readings[leader(story, 1)] = 0
        story.tick()
        assert story.asked() == [1]
        story.play.reconcile()
        story.play.finish()
        (worker,) = members(story, 1)
        assert not groups.is_leader(worker)
        story.tick()
        assert (story.status()["gpus"], story.status()["drainingReplicas"]) == (3, 1)
        story.run(2)
        assert story.status()["gpus"] == 2

    def test_a_group_that_has_drained_waits_for_those_behind_it(self):
        story = started(3)
        story.edit({"replicas": 1})
        story.loads.readings = {leader(story, 1): 0, leader(story, 2): 5}
        for _ in range(5):
            story.tick()
        assert story.asked() == [3]
        story.loads.readings[leader(story, 2)] = 0
        story.tick()
        assert story.asked() == [1]

    def test_the_first_of_those_that_drain_serves_again(self):
        story = started(3)
        story.edit({"replicas": 1})
        story.loads.readings = {leader(story, i): 5 for i in range(3)}
        story.tick()
        story.edit({"replicas": 2})
        story.tick()
        assert sorted(story.cordoned()) == [p["metadata"]["name"] for p in members(story, 2)]
        assert all(names.SERVING_LABEL not in p["metadata"]["labels"] for p in members(story, 1)[1:])
        assert story.status()["drainingReplicas"] >= 1

    def test_last_groups_that_do_not_answer_go_at_once(self):
        story = started(1)
        story.edit({"replicas": 3})
        story.tick()
        story.play.reconcile()
        story.edit({"replicas": 1})
        story.tick()
        assert (story.cordoned(), story.asked()) == ([], [1])

    def test_a_group_that_starts_before_one_that_drains_waits_for_its_turn(self):
        story = started(3)
        story.loads.readings = {leader(story, 2): 5}
        story.edit({"replicas": 2})
        story.tick()
        for pod in members(story, 1):
            story.bench.cluster.remove(POD, pod["metadata"]["name"])
        story.play.reconcile()
        story.edit({"replicas": 1})
        story.tick()
        assert story.asked() == [3]
        assert {p["metadata"]["name"] for p in members(story, 1)} <= set(story.cordoned())
        story.loads.readings = {leader(story, 2): 0}
        story.tick()
        assert story.asked() == [1]

    def test_what_is_not_there_cannot_drain_and_is_waited_for(self):
        story = started(3)
        story.loads.readings = {leader(story, 2): 5}
        story.edit({"replicas": 2})
        story.tick()
        for pod in members(story, 1):
            story.bench.cluster.remove(POD, pod["metadata"]["name"])
        story.edit({"replicas": 1})
        story.tick()
        assert {groups.index_of(p) for p in story.play.pods() if p["metadata"]["name"] in story.cordoned()} == {2}
        story.run(6)
        assert story.asked() == [1]


def leader(story: Story, index: int) -> str:
    return str(members(story, index)[0]["metadata"]["name"])


def test_a_surge_takes_back_what_drained_and_has_not_begun_to_end():
    """The controller is slow: without their marks' end the pods would be asked for again, and never serve."""
    story = started(1, budget=6)
    story.edit(NEW)
    while story.asked() != [0, 1]:
        story.play.settle()
        story.rest()
        story.tick()
    assert story.cordoned()
    story.edit({"recipe": {"preset": "balanced"}})
    story.tick()
    assert story.cordoned() == []
    story.run(8)
    assert (story.asked(), story.serving()) == ([1, 0], 1)


def test_a_group_that_loses_a_pod_is_made_anew_within_the_budget():
    story = started(2, budget=4)
    story.play.end(members(story, 0)[1]["metadata"]["name"])
    for _ in range(6):
        story.run(1)
        assert story.gpus() <= 4
    assert story.serving() == 2
    assert story.reason("Ready") == ("True", "Available")


def test_groups_that_crash_again_and_again_are_given_up_by_the_deadline():
    """Each time the whole group is made anew, so that no pod of it is ever old."""
    story = started(1, spec__rollout={"progressDeadlineSeconds": 60})
    story.edit(NEW)
    for _ in range(20):
        story.wait_in_vain(1)
        for pod in story.play.pods():
            if not any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"]):
                story.bench.cluster.remove(POD, pod["metadata"]["name"])
        story.play.reconcile()
    story.run(8)
    assert story.asked() == [1, 0]
    assert story.reason("RolledOut") == ("False", "RolledBack")
    assert "delete that LeaderWorkerSet to try it again" in story.bench.message(POOL, "low", "RolledOut")


def test_time_to_start_counts_anew_for_a_revision_that_is_tried_again():
    story = started(1, budget=4, spec__rollout={"progressDeadlineSeconds": 60})
    story.edit(NEW)
    story.wait_in_vain(4)
    story.edit({"recipe": {"preset": "balanced"}})
    story.run(10)
    annotations = [made["metadata"]["annotations"] for made in story.play.sets()]
    assert not any(names.STARTING_ANNOTATION in told for told in annotations)
    story.bench.clock.now += 1000
    story.edit(NEW)
    story.run(14)
    assert story.reason("RolledOut") == ("True", "UpToDate")


def test_a_canary_has_a_service_beside_that_of_the_set():
    story = started(1, budget=4, spec__rollout={"canary": {"pauseSeconds": 100}})
    story.edit(NEW)
    story.run(2)
    revision = story.status()["revision"]
    service = story.bench.cluster.one(SERVICE, f"{revision}-canary")
    assert service["spec"]["selector"][names.REVISION_LABEL] == revision.rpartition("-")[2]


def test_revisions_beyond_the_history_are_deleted_whatever_their_kind():
    story = started(1, budget=4, spec__rollout={"historyLimit": 1})
    for change in ({"recipe": {"preset": "throughput"}}, {"accelerator": {"nodes": 1}}, {"engine": {"image": "x:1"}}):
        story.edit(change)
        story.run(14)
    assert story.asked() == [0, 1]
    assert story.play.sets() == []


def test_sets_that_nothing_tells_of_are_found_after_a_restart():
    story = started(1, budget=4)
    story.edit({"accelerator": {"nodes": 1}})
    story.run(14)
    assert story.asked() == [0, 1]
    story.bench.deps.world.groups = None
    story.bench.cluster.fail_next.clear()
    story.tick()
    assert [m["kind"] for m in story.bench.deps.world.workloads(POOL, KEY)].count(LEADER_WORKER_SET.kind) == 1
