"""Replicas on several nodes: how recipes spread over them, what is refused, and what their pods ask for."""

import asyncio
from typing import Any

import pytest

from support.manifests import compute_class, pool_manifest, shape
from support.operatorparts import H100, Bench
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import gpuclaim, names, nodepools, workloads
from trimtab_operator.core.engineargs import refused_args
from trimtab_operator.core.kinds import LEADER_WORKER_SET, POOL
from trimtab_operator.core.recipe import replica_for, resolve
from trimtab_operator.shell.reconcile import reconcile_pool

MOE = shape(experts=64)


def wide(count: int = 16, nodes: int = 2, **changes: Any) -> InferencePool:
    gpus = {"name": H100, "count": count, "nodes": nodes}
    return InferencePool.model_validate(pool_manifest("wide", **{"spec__accelerator": gpus} | changes))


def test_tensor_parallelism_stays_within_a_node_and_stages_go_over_nodes():
    flags = resolve(wide()).flags
    at = flags.index("--nnodes")
    assert flags[at : at + 6] == ("--nnodes", "2", "--tensor-parallel-size", "8", "--pipeline-parallel-size", "2")


def test_one_node_needs_no_flag():
    assert "--nnodes" not in resolve(wide(count=8, nodes=1)).flags


def test_a_recipe_may_say_otherwise():
    flags = resolve(wide(spec__recipe={"parallelism": {"tensor": 16}})).flags
    assert "--pipeline-parallel-size" not in flags
    assert flags[flags.index("--tensor-parallel-size") + 1] == "16"


def test_capacity_is_that_of_all_nodes():
    replica = replica_for(wide(spec__model__shape=shape()))
    assert replica is not None
    assert replica.gpus == 16


@pytest.mark.parametrize(
    ("count", "nodes", "data", "tensor", "accepted"),
    [
        pytest.param(8, 2, 2, 4, True, id="a rank on each node"),
        pytest.param(8, 2, 4, 2, True, id="two ranks on each node"),
        pytest.param(8, 4, 2, 4, True, id="a rank over two nodes"),
        pytest.param(12, 2, 3, 4, False, id="a rank and a half on each node"),
        pytest.param(24, 3, 2, 12, False, id="a rank over a node and a half"),
    ],
)
def test_ranks_and_nodes_fit_into_each_other(count: int, nodes: int, data: int, tensor: int, accepted: bool):
    heads = shape(experts=64, attentionHeads=24, kvHeads=12)
    asked = {"parallelism": {"data": data, "tensor": tensor, "expert": True}}
    answer = resolve(wide(count, nodes, spec__recipe=asked, spec__model__shape=heads))
    assert answer.accepted is accepted
    if not accepted:
        (sentence,) = answer.reasons
        assert sentence == (
            f"recipe.parallelism.data {data} makes ranks of {count // data} GPUs, and accelerator.nodes {nodes} have "
            f"{count // nodes} GPUs each; change one so that a node holds whole ranks, or a rank whole nodes "
            "(source: vLLM, config/parallel.py, nnodes_within_dp)"
        )


def test_caches_are_not_fetched_from_several_nodes():
    answer = resolve(wide(spec__recipe={"disaggregation": {"role": "Decode"}}))
    assert any(r.startswith("recipe.disaggregation beside accelerator.nodes 2 is not served") for r in answer.reasons)


@pytest.mark.parametrize("arg", ["--nnodes=2", "-n", "-n=2"])
def test_the_number_of_nodes_is_a_field(arg: str):
    (sentence,) = refused_args([arg])
    assert sentence.endswith("which the recipe owns; remove it and use accelerator.nodes")


@pytest.mark.parametrize(
    "arg", ["--node-rank", "-r", "--master-addr=x", "--api-server-count", "--data-parallel-rank", "--distributed-exec"]
)
def test_what_all_nodes_are_told_alike_may_not_tell_them_apart(arg: str):
    (sentence,) = refused_args([arg], ["accelerator.nodes"])
    assert "accelerator.nodes" in sentence or "is refused" in sentence
    assert refused_args([arg]) == []


def test_each_node_asks_for_its_part_of_the_gpus():
    _, made = workloads.revision(wide(), (), {})
    group = made["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    for template in (group["leaderTemplate"], group["workerTemplate"]):
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
        assert {"name": "trimtab-shm", "emptyDir": {"medium": "Memory"}} in template["spec"]["volumes"]


def test_claims_are_for_one_node():
    gpus = {"name": H100, "count": 16, "nodes": 2, "allocation": "DRA"}
    pool = wide(spec__accelerator=gpus)
    template = gpuclaim.claim_template(pool)
    assert template is not None
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["count"] == 8
    assert gpuclaim.pod_annotations(pool) == {names.GPUS_ANNOTATION: "8"}


def test_only_the_leader_answers_and_is_probed():
    _, made = workloads.revision(wide(), ("--x",), {})
    leader, worker = (made["spec"]["leaderWorkerTemplate"][f"{who}Template"] for who in ("leader", "worker"))
    (answers,), (helps,) = leader["spec"]["containers"], worker["spec"]["containers"]
    assert answers["command"][-4:] == ["--node-rank", "0", "--master-addr", "$(LWS_LEADER_ADDRESS)"]
    rank = ["--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)", "--headless"]
    assert helps["command"][-5:] == rank
    assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"} <= answers.keys()
    assert not {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"} & helps.keys()
    assert leader["metadata"]["labels"][names.SERVING_LABEL] == names.SERVING
    assert names.SERVING_LABEL not in worker["metadata"]["labels"]


def test_a_machine_has_the_gpus_of_one_node():
    gpus = {"name": H100, "count": 16, "nodes": 2}
    pool = wide(spec__accelerator=gpus, spec__nodes=compute_class({}))
    assert nodepools.refusals(pool) == ()
    node = nodepools.node_object(pool)
    assert node is not None
    assert node["spec"]["priorities"][0]["gpu"]["count"] == 8
    (words,) = nodepools.refusals(wide(spec__accelerator=gpus, spec__nodes=compute_class({"gpus": 4})))
    assert words == (
        "nodes.gkeComputeClass.priorities[0].gpus 4 is below accelerator.count 16 over accelerator.nodes 2; "
        "raise it: every node needs its part of them"
    )


@pytest.mark.parametrize("name", ["wide", "x" * 40, "a-pool.of/" + "y" * 50])
def test_names_leave_room_for_two_numbers_and_a_digest(name: str):
    assert len(names.group_name(name, "12345678")) <= 45


def test_another_topology_is_another_revision():
    gpus = {"name": H100, "count": 16, "nodes": 2}
    plain, _ = workloads.revision(wide(spec__accelerator=gpus), (), {})
    near, made = workloads.revision(wide(spec__accelerator=gpus | {"exclusiveTopology": "rack"}), (), {})
    assert near != plain
    assert made["metadata"]["annotations"] == {"leaderworkerset.sigs.k8s.io/exclusive-topology": "rack"}


def test_without_leader_worker_sets_nothing_is_made():
    bench = Bench()
    bench.cluster.not_served.add(LEADER_WORKER_SET)
    bench.add_pool("wide", spec__accelerator={"name": H100, "count": 16, "nodes": 2})
    asyncio.run(reconcile_pool(bench.refresh(), ("default", "wide")))
    assert {kind for _, kind, _ in bench.cluster.writes()} == {POOL.kind}
    assert bench.conditions(POOL, "wide")["Ready"] == ("False", "GroupsApiMissing")
    assert bench.message(POOL, "wide", "Ready") == (
        "accelerator.nodes 2 needs leaderworkerset.x-k8s.io/v1 LeaderWorkerSet, which this cluster does not serve; "
        "install LeaderWorkerSet (lws.sigs.k8s.io), or set accelerator.nodes to 1"
    )
