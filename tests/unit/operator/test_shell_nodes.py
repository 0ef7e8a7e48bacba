"""NodePools and ComputeClasses in the operator's hands: made, kept, deleted with their pool, never adopted."""

import asyncio

import pytest

from support.manifests import compute_class, karpenter
from support.operatorparts import NOW, Bench, pod
from trimtab_operator.core import names
from trimtab_operator.core.conditions import timestamp
from trimtab_operator.core.kinds import NODE_KINDS, NODE_POOL, POOL
from trimtab_operator.core.pacing import Result
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.nodes import release_nodes, sweep_nodes
from trimtab_operator.shell.reconcile import reconcile_pool

KEY = ("default", "low")
NAME = names.nodes_name(*KEY)


def run(bench: Bench) -> Result:
    return asyncio.run(reconcile_pool(bench.refresh(), KEY))


def node_objects(bench: Bench) -> list[tuple[str, str]]:
    return [(kind, name) for kind, namespace, name in bench.cluster.objects if namespace is None]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_pool(spec__nodes=karpenter())
    return made


def test_a_pool_gets_its_node_pool_once(bench: Bench):
    assert run(bench) is Result.DONE
    assert node_objects(bench) == [("NodePool", NAME)]
    labels = bench.cluster.one(NODE_POOL, NAME, None)["metadata"]["labels"]
    assert labels[names.POOL_UID_LABEL] == bench.cluster.one(POOL, "low")["metadata"]["uid"]
    bench.cluster.writes()
    assert run(bench) is Result.DONE
    assert bench.cluster.writes() == []


def test_drift_is_taken_back_and_edits_arrive(bench: Bench):
    run(bench)
    bench.cluster.change(NODE_POOL, NAME, {"spec": {"disruption": {"consolidateAfter": "0s"}}}, None)
    run(bench)
    assert bench.cluster.one(NODE_POOL, NAME, None)["spec"]["disruption"]["consolidateAfter"] == "300s"
    bench.cluster.change(POOL, "low", {"spec": {"nodes": {"karpenter": {"maxGpus": 8}}}})
    run(bench)
    assert bench.cluster.one(NODE_POOL, NAME, None)["spec"]["limits"] == {"nvidia.com/gpu": "8"}


def test_a_foreign_object_of_the_name_is_never_touched(bench: Bench):
    theirs = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": NAME}, "spec": {"x": 1}}
    before = bench.cluster.put(theirs)
    assert run(bench) is Result.BLOCKED
    asyncio.run(sweep_nodes(bench.refresh()))
    assert bench.cluster.one(NODE_POOL, NAME, None) == before
    assert bench.message(POOL, "low", "NodesReady") == (
        f"NodePool {NAME} exists and belongs to somebody else; delete or rename it"
    )


def test_an_api_that_is_not_there_is_named(bench: Bench):
    bench.cluster.not_served.update(NODE_KINDS)
    assert run(bench) is Result.BLOCKED
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "NodesApiMissing")
    assert bench.message(POOL, "low", "NodesReady") == (
        "nodes.mode Karpenter needs karpenter.sh/v1 NodePool, which this cluster does not serve; "
        "install it, or set nodes.mode Static"
    )
    asyncio.run(sweep_nodes(bench.refresh()))
    assert node_objects(bench) == []
    bench.cluster.not_served.clear()
    assert run(bench) is Result.DONE
    assert node_objects(bench) == [("NodePool", NAME)]


def test_an_operator_of_namespaces_says_that_it_may_not(bench: Bench):
    run(bench)
    bench.cluster.change(POOL, "low", {"spec": {"nodes": {"karpenter": {"maxGpus": 8}}}})
    bench.cluster.forbidden.update(NODE_KINDS)
    assert run(bench) is Result.BLOCKED
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "NodesForbidden")
    assert "without watchNamespaces" in bench.message(POOL, "low", "Ready")


def test_another_mode_deletes_what_the_earlier_one_made(bench: Bench):
    run(bench)
    live = bench.cluster.one(POOL, "low")
    bench.cluster.put(live | {"spec": live["spec"] | {"nodes": compute_class({"spot": True})}})
    run(bench)
    assert node_objects(bench) == [("ComputeClass", NAME)]
    live = bench.cluster.one(POOL, "low")
    bench.cluster.put(live | {"spec": {key: value for key, value in live["spec"].items() if key != "nodes"}})
    run(bench)
    assert node_objects(bench) == []


def test_nodes_go_with_their_pool(bench: Bench):
    run(bench)
    asyncio.run(release_nodes(bench.refresh(), KEY))
    assert node_objects(bench) == [("NodePool", NAME)], "the loop of a living pool ends when the operator ends"
    bench.cluster.change(POOL, "low", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    asyncio.run(release_nodes(bench.refresh(), KEY))
    assert node_objects(bench) == []


def test_a_deletion_that_fails_does_not_hold_up_the_pool(bench: Bench):
    run(bench)
    bench.cluster.change(POOL, "low", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    bench.cluster.fail_next["get"] = ClusterError("get", 503, "away")
    asyncio.run(release_nodes(bench.refresh(), KEY))
    bench.cluster.remove(POOL, "low")
    asyncio.run(sweep_nodes(bench.refresh()))
    assert node_objects(bench) == []


@pytest.mark.parametrize("stale_world", [False, True])
def test_the_sweep_takes_orphans_only(bench: Bench, stale_world: bool):
    run(bench)
    deps = bench.refresh()
    if stale_world:
        deps.world.indices[POOL.kind] = {}
    asyncio.run(sweep_nodes(deps))
    assert node_objects(bench) == [("NodePool", NAME)]


def test_without_the_crd_of_pools_nothing_is_swept(bench: Bench):
    run(bench)
    bench.cluster.remove(POOL, "low")
    bench.cluster.not_served.add(POOL)
    asyncio.run(sweep_nodes(bench.refresh()))
    assert node_objects(bench) == [("NodePool", NAME)]
    bench.cluster.not_served.clear()
    asyncio.run(sweep_nodes(bench.refresh()))
    assert node_objects(bench) == []


def test_the_sweep_tells_a_pool_from_its_successor(bench: Bench):
    run(bench)
    bench.cluster.remove(POOL, "low")
    bench.add_pool(spec__nodes=karpenter())
    assert run(bench) is Result.BLOCKED
    asyncio.run(sweep_nodes(bench.refresh()))
    assert node_objects(bench) == []


def test_a_refused_spec_makes_nothing():
    bench = Bench()
    bench.add_pool(spec__nodes=karpenter(maxGpus=1), spec__accelerator__count=2)
    assert run(bench) is Result.INVALID
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "SpecInvalid")
    assert node_objects(bench) == []


def test_events_of_autoscalers_are_read_for_a_pod_without_a_node():
    bench = Bench()
    bench.add_pool()
    run(bench)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    }
    bench.cluster.put(pod("low-engine-0", "starting", conditions=[condition]))
    assert run(bench) is Result.BLOCKED
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "InsufficientGpu")
    told = {"involvedObject": {"name": "low-engine-0"}, "reason": "FailedScaleUp", "message": "GCE quota exceeded"}
    bench.cluster.told.append(told | {"lastTimestamp": timestamp(NOW)})
    run(bench)
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "QuotaExceeded")
    bench.cluster.fail_next["list_all"] = ClusterError("list", 403, "forbidden")
    run(bench)
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "InsufficientGpu")
