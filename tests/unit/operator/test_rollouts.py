"""Roll-outs, drains and roll-backs through the operator's own writer; the tests play Kubernetes' controllers."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.operatorparts import H100
from support.stories import KEY, Story
from trimtab_operator.core import names
from trimtab_operator.core.conditions import timestamp
from trimtab_operator.core.groups import is_member
from trimtab_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, POD, POOL, SERVICE
from trimtab_operator.core.observe import is_ready
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.reconcile import reconcile_policy

NEW = {"recipe": {"preset": "throughput"}}


def test_what_is_remembered_of_a_revision_needs_no_count():
    story = Story()
    story.bench.add_pool(spec__replicas=1)
    story.run(2)
    assert story.serving() == 1
    story.bench.cluster.fail_always["list_all"] = ClusterError("list", 500, "not now")
    story.tick()
    deployment = story.bench.cluster.one(DEPLOYMENT, story.bench.engine())
    assert names.PROVEN_ANNOTATION in deployment["metadata"]["annotations"]


def test_without_a_spare_gpu_one_replica_after_another_is_replaced():
    story = Story().started(3)
    story.edit(NEW)
    seen, most = [], 0
    for _ in range(30):
        story.run(1)
        seen.append(tuple(story.asked()))
        most = max(most, len(story.play.pods()))
    steps = [asked for i, asked in enumerate(seen) if i == 0 or asked != seen[i - 1]]
    assert steps == [(3, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 3)]
    assert most == 3
    assert story.reason("RolledOut") == ("True", "UpToDate")
    assert story.reason("Ready") == ("True", "Available")
    assert story.status()["updatedReplicas"] == 3


def test_with_a_spare_gpu_in_the_budget_a_new_replica_comes_first():
    story = Story().started(1, budget=2)
    story.edit(NEW)
    fewest = 1
    for _ in range(8):
        story.run(1)
        fewest = min(fewest, story.serving())
    assert fewest == 1, "there is always one that answers"
    assert story.asked() == [0, 1]
    assert story.reason("RolledOut") == ("True", "UpToDate")


def test_a_budget_without_room_is_not_passed():
    story = Story().started(2, budget=2)
    story.edit(NEW)
    for _ in range(20):
        story.run(1)
        assert len(story.play.pods()) <= 2
    assert story.asked() == [0, 2]


def test_surge_may_be_turned_off():
    story = Story().started(1, budget=4, spec__rollout={"surge": False})
    story.edit(NEW)
    for _ in range(8):
        story.run(1)
        assert len(story.play.pods()) <= 1
    assert story.asked() == [0, 1]


def test_a_surge_that_finds_no_node_gives_way_to_a_drain():
    story = Story().started(1, budget=2)
    story.edit(NEW)
    story.tick()
    story.tick()
    story.play.reconcile()
    (new,) = [p["metadata"]["name"] for p in story.play.pods() if not is_ready(p)]
    pending = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": _now(story)}
    story.bench.cluster.change(POD, new, {"status": {"conditions": [pending]}})
    story.tick(20)
    assert story.cordoned() == [], "nodes may come"
    story.tick(20)
    assert len(story.cordoned()) == 1, "the old replica makes room"


def _now(story: Story) -> str:
    return timestamp(story.bench.clock.now)


def test_a_revision_that_never_answers_is_given_up_and_stays_so():
    story = Story().started(2, spec__rollout={"progressDeadlineSeconds": 60})
    story.edit(NEW)
    story.wait_in_vain(14)
    story.play.start()
    story.run(6)
    assert story.asked() == [2, 0]
    assert story.serving() == 2
    assert story.reason("RolledOut") == ("False", "RolledBack")
    assert story.reason("Stalled") == ("True", "RolledBack")
    assert "rollout.progressDeadlineSeconds 60" in story.bench.message(POOL, "low", "RolledOut")
    story.bench.cluster.writes()
    story.run(5)
    assert story.bench.cluster.writes() == [], "it is not tried again"
    story.edit({"recipe": {"preset": "balanced"}})
    story.run(3)
    assert story.reason("Ready") == ("True", "Available"), "the spec asks for what runs"


def test_a_crash_loop_does_not_wait_for_the_deadline():
    story = Story().started(1)
    story.edit(NEW)
    story.wait_in_vain(6)
    (new,) = story.play.pods()
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}
    story.bench.cluster.change(POD, new["metadata"]["name"], {"status": {"containerStatuses": [waiting]}})
    story.run(8)
    assert story.asked() == [1, 0]
    assert "CrashLoopBackOff after 3 restarts" in story.bench.message(POOL, "low", "RolledOut")


def test_time_in_a_queue_is_no_reason_to_go_back():
    story = Story().started(1, spec__rollout={"progressDeadlineSeconds": 30})
    story.edit(NEW)
    for _ in range(6):
        story.wait_in_vain(1)
        for pod in story.play.pods():
            if not is_ready(pod):
                gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                story.bench.cluster.change(POD, pod["metadata"]["name"], {"status": {"conditions": [gated]}})
    for _ in range(20):
        story.tick(60)
    assert story.asked() == [0, 1]
    assert story.reason("Ready") == ("False", "Queued")
    story.run(2)
    assert story.reason("RolledOut") == ("True", "UpToDate")


def test_a_new_revision_alone_is_never_given_up():
    """There is nothing to go back to."""
    story = Story()
    story.bench.add_pool(spec__replicas=1, spec__rollout={"progressDeadlineSeconds": 30})
    for _ in range(10):
        story.tick(60)
        story.play.reconcile()
    assert story.asked() == [1]
    assert story.reason("RolledOut") == ("True", "UpToDate")


def test_a_canary_is_looked_at_before_the_others_follow():
    story = Story().started(3, budget=4, spec__rollout={"canary": {"weightPercent": 20, "pauseSeconds": 300}})
    story.edit(NEW)
    story.run(20)
    assert story.asked() == [3, 1], "200 seconds"
    assert story.reason("RolledOut") == ("False", "Canary")
    assert "20 % of the requests" in story.bench.message(POOL, "low", "RolledOut")
    story.run(40)
    assert story.asked() == [0, 3]
    assert story.reason("RolledOut") == ("True", "UpToDate")


def test_routers_are_told_of_a_canary_while_it_is_one():
    story = Story().started(2, budget=3, spec__rollout={"canary": {"weightPercent": 20, "pauseSeconds": 100}})

    def told() -> Any:
        asyncio.run(reconcile_policy(story.bench.refresh(), ("default", "chat")))
        document = json.loads(story.bench.cluster.one(CONFIG_MAP, "chat-router")["data"]["router.json"])
        return document["pools"][0].get("canary")

    assert told() is None
    story.edit(NEW)
    story.run(4)
    revision = story.status()["revision"]
    assert told() == {"host": f"{revision}.default.svc", "weightPercent": 20}
    selector = story.bench.cluster.one(SERVICE, revision)["spec"]["selector"]
    assert selector == {
        names.POOL_LABEL: "low",
        names.SERVING_LABEL: "true",
        names.REVISION_LABEL: revision.rpartition("-")[2],
    }
    story.run(30)
    assert told() is None
    assert story.asked() == [0, 2]


def test_going_back_to_an_earlier_revision_needs_no_canary():
    story = Story().started(1, budget=2, spec__rollout={"canary": {"pauseSeconds": 100}})
    story.edit(NEW)
    story.run(20)
    assert story.asked() == [0, 1]
    story.edit({"recipe": {"preset": "balanced"}})
    story.run(6)
    assert story.asked() == [1, 0]


def test_revisions_beyond_the_history_are_deleted():
    story = Story().started(1, budget=2, spec__rollout={"historyLimit": 1})
    for preset in ("throughput", "interactive", "reasoning"):
        story.edit({"recipe": {"preset": preset}})
        story.run(12)
    assert story.asked() == [0, 1]


class TestDrains:
    """Scaling down by hand, which is no different from a move."""

    def test_the_least_busy_replica_drains_and_open_streams_are_waited_for(self):
        story = Story().started(2)
        first, second = (p["metadata"]["name"] for p in story.play.pods())
        story.loads.readings = {first: 3, second: 1}
        story.edit({"replicas": 1})
        story.tick()
        assert story.cordoned() == [second]
        assert story.asked() == [2], "its Deployment still asks for it"
        for _ in range(10):
            story.tick()
            story.play.settle()
        assert story.play.ended == []
        assert story.status()["drainingReplicas"] == 1
        assert story.status()["drainingSince"]
        assert story.reason("Ready") == ("True", "Available")
        story.loads.readings[second] = 0
        story.tick()
        assert story.asked() == [1]
        story.play.reconcile()
        assert story.play.ended == [second]

    def test_a_replica_that_does_not_say_is_never_taken_for_idle(self):
        story = Story().started(2)
        first, second = (p["metadata"]["name"] for p in story.play.pods())
        story.loads.readings = {second: 9}
        story.edit({"replicas": 1})
        story.tick()
        assert story.cordoned() == [second], "the one that says is known to have less"
        story.loads.readings = {}
        story.run(20, idle=False)
        assert story.play.ended == []
        assert first not in story.cordoned()

    def test_the_deadline_ends_a_drain_and_shortens_the_grace(self):
        story = Story().started(1, spec__drain={"deadlineSeconds": 100})
        (name,) = (p["metadata"]["name"] for p in story.play.pods())
        story.loads.readings = {name: 5}
        story.edit({"replicas": 0})
        for _ in range(9):
            story.tick()
        assert story.asked() == [1]
        story.tick(30)
        assert story.asked() == [0]
        story.play.reconcile()
        story.bench.cluster.change(POD, name, {"metadata": {"deletionGracePeriodSeconds": 135}})
        story.bench.cluster.writes()
        story.tick()
        assert ("delete", "Pod", name) in story.bench.cluster.writes()

    def test_a_replica_that_drains_serves_again_when_it_is_wanted(self):
        story = Story().started(2)
        story.edit({"replicas": 1})
        story.loads.readings = {p["metadata"]["name"]: 2 for p in story.play.pods()}
        story.tick()
        (drains,) = story.cordoned()
        story.edit({"replicas": 2})
        story.tick()
        assert story.cordoned() == []
        assert story.play.made == 2, "nothing was started"
        annotations = story.bench.cluster.one(POD, drains)["metadata"].get("annotations", {})
        assert names.DRAIN_ANNOTATION not in annotations
        assert names.DELETION_COST not in annotations

    def test_replicas_that_do_not_answer_go_first_and_at_once(self):
        story = Story().started(2)
        story.edit({"replicas": 3})
        story.tick()
        story.play.reconcile()
        story.edit({"replicas": 2})
        story.tick()
        assert story.cordoned() == []
        assert story.asked() == [2]
        story.play.reconcile()
        assert len(story.play.ended) == 1
        assert story.serving() == 2

    def test_a_new_operator_goes_on_with_a_drain(self):
        story = Story().started(2)
        story.edit({"replicas": 1})
        story.loads.readings = {p["metadata"]["name"]: 2 for p in story.play.pods()}
        story.tick()
        (drains,) = story.cordoned()
        again = Story(bench=story.bench, loads=story.loads)
        again.bench.deps.wanted.clear()
        again.tick()
        assert again.cordoned() == [drains]
        again.loads.readings[drains] = 0
        again.tick()
        assert again.asked() == [1]

    def test_a_label_set_by_hand_neither_ends_a_replica_nor_stays(self):
        story = Story().started(1)
        (name,) = (p["metadata"]["name"] for p in story.play.pods())
        story.bench.cluster.change(POD, name, {"metadata": {"labels": {names.SERVING_LABEL: "false"}}})
        story.bench.clock.now += 100_000
        story.run(3)
        assert (story.cordoned(), story.play.ended, story.play.made) == ([], [], 1)

    def test_at_rest_the_api_server_is_not_asked(self):
        story = Story().started(2)
        story.run(2)
        story.bench.cluster.fail_always = {"list_all": AssertionError("asked"), "get": AssertionError("asked")}  # type: ignore[dict-item]
        assert story.tick() is False

    def test_a_pod_that_is_gone_before_its_cordon_stops_nothing(self):
        story = Story().started(2)
        story.edit({"replicas": 1})
        story.rest()
        story.bench.cluster.fail_next["apply"] = ClusterError("apply", 409, "Precondition failed: UID in precondition")
        story.fleet.deps.wanted[KEY] = story.bench.engine()
        story.bench.refresh()
        assert asyncio.run(story.fleet.tend(KEY)) is True
        story.run(4)
        assert story.asked() == [1]


@settings(max_examples=10, deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(0, 4), st.booleans(), st.sampled_from([1, 2]))
def test_no_interleaving_passes_the_budget_and_all_of_them_end_well(
    data: st.DataObject, replicas: int, spare: int, claimed: bool, gpus: int
):
    """A replica of two GPUs is on one node or on two, and may go from the one to the other."""
    budget = replicas * gpus + (spare if claimed else 0)
    accelerator = {"name": H100, "count": gpus, "nodes": gpus}
    story = Story().started(replicas, budget if claimed else None, spec__accelerator=accelerator)
    for _ in range(data.draw(st.integers(5, 40))):
        _happens(story, data, gpus, loses=not claimed)
        assert story.gpus() <= budget
    story.run(60)
    assert story.serving() == replicas
    assert story.gpus() == replicas * gpus
    assert sum(story.asked()) == replicas
    assert story.reason("RolledOut") == ("True", "UpToDate")


def _happens(story: Story, data: st.DataObject, most_nodes: int, *, loses: bool) -> None:
    """A group that drained and is lost serves again; only a number to follow takes it away once more, hence `loses`."""
    what = ["edit", "tick", "tick", "tick", "reconcile", "start", "finish", "idle", "restart"]
    match data.draw(st.sampled_from([*what, "lose"] if loses else what)):
        case "edit":
            preset = data.draw(st.sampled_from(["throughput", "interactive", "balanced", "reasoning"]))
            nodes = data.draw(st.integers(1, most_nodes))
            story.edit({"recipe": {"preset": preset}, "accelerator": {"nodes": nodes}})
        case "tick":
            story.tick(data.draw(st.sampled_from([1, 10])))
        case "reconcile":
            story.play.reconcile()
        case "start":
            story.play.start(data.draw(st.integers(1, 4)))
        case "finish":
            story.play.finish(data.draw(st.integers(1, 4)))
        case "idle":
            story.loads.readings = {p["metadata"]["name"]: data.draw(st.integers(0, 1)) for p in story.play.pods()}
        case "restart":
            story.bench.deps.wanted.clear()
        case "lose":
            # A Deployment would replace it at once; a group is made anew when it is gone.
            lost = [p["metadata"]["name"] for p in story.play.pods() if is_member(p["metadata"])]
            if lost:
                story.play.end(data.draw(st.sampled_from(lost)))
