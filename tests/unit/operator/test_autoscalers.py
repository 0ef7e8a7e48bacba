"""Who else scales a pool, what its conditions say of it, and that the rebalancer keeps out of the way."""

import asyncio
from typing import Any

import pytest

from support.fleets import busy, fleet, pool, tier
from support.operatorparts import Bench, FakeLoads
from trimtab_operator.core.autoscalers import read_autoscalers, scaling_owned
from trimtab_operator.core.kinds import AUTOSCALER, DEPLOYMENT, POD, POLICY, POOL, SCALED_OBJECT
from trimtab_operator.core.rebalance import plan
from trimtab_operator.core.steps import next_step
from trimtab_operator.shell.autoscalers import look
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.fleetport import KubernetesFleet
from trimtab_operator.shell.reconcile import reconcile_policy, reconcile_pool

POOL_TARGET = {"apiVersion": "trimtab.dev/v1alpha1", "kind": "InferencePool", "name": "low"}
KEY = ("default", "low")
SCALED = {"minReplicas": 1, "maxReplicas": 6}


def hpa(name: str = "by-cpu", target: dict[str, str] | None = None, **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "default", **meta},
        "spec": {"scaleTargetRef": target or POOL_TARGET},
    }


def scaled_object(name: str = "by-queue", target: dict[str, str] | None = None) -> dict[str, Any]:
    return {**hpa(name, target), "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"}


KEDAS_HPA = hpa("keda-hpa-by-queue", labels={"scaledobject.keda.sh/name": "by-queue"})


@pytest.mark.parametrize(
    ("manifests", "said"),
    [
        pytest.param([], None, id="nobody"),
        pytest.param([hpa()], ("True", "HorizontalPodAutoscaler", "HorizontalPodAutoscaler by-cpu sets"), id="an-hpa"),
        pytest.param([scaled_object()], ("True", "ScaledObject", "ScaledObject by-queue sets"), id="keda"),
        pytest.param(
            [scaled_object(), KEDAS_HPA],
            ("True", "ScaledObject", "ScaledObject by-queue sets"),
            id="keda-and-the-hpa-it-makes-are-one",
        ),
        pytest.param(
            [KEDAS_HPA], ("True", "ScaledObject", "ScaledObject by-queue sets"), id="keda-whose-objects-we-may-not-list"
        ),
        pytest.param(
            [hpa(), scaled_object()],
            ("False", "SeveralAutoscalers", "HorizontalPodAutoscaler by-cpu and ScaledObject by-queue both scale"),
            id="two-that-fight",
        ),
        pytest.param(
            [hpa(target={"apiVersion": "apps/v1", "kind": "Deployment", "name": "low-engine"})],
            ("False", "DeploymentScaled", "HorizontalPodAutoscaler by-cpu scales Deployment low-engine"),
            id="on-our-deployment",
        ),
        pytest.param(
            [scaled_object(target={"name": "low-engine"})],
            ("False", "DeploymentScaled", "ScaledObject by-queue scales Deployment low-engine"),
            id="kedas-default-kind-is-deployment",
        ),
        pytest.param([hpa(target={**POOL_TARGET, "name": "other"})], None, id="of-another-pool"),
        pytest.param(
            [hpa(target={**POOL_TARGET, "apiVersion": "inference.networking.k8s.io/v1"})],
            None,
            id="of-the-other-kind-named-inference-pool",
        ),
        pytest.param([hpa(target={"kind": "InferencePool"})], None, id="without-a-target"),
    ],
)
def test_the_condition_names_the_autoscaler(manifests: list[dict[str, Any]], said: tuple[str, str, str] | None):
    fact = scaling_owned(
        read_autoscalers(manifests), namespace="default", pool="low", workloads=["low-engine"], scaling=False
    )
    if said is None:
        assert fact is None
    else:
        assert fact is not None
        assert (str(fact.status), fact.reason) == said[:2]
        assert fact.message.startswith(said[2])


def test_a_mistaken_target_is_answered_with_the_right_one():
    wrong = hpa(target={"apiVersion": "apps/v1", "kind": "Deployment", "name": "low-engine"})
    fact = scaling_owned(
        read_autoscalers([wrong]), namespace="default", pool="low", workloads=["low-engine"], scaling=False
    )
    assert fact is not None
    assert fact.message.endswith(
        "set its scaleTargetRef to apiVersion trimtab.dev/v1alpha1, kind InferencePool, name low"
    )


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.cluster.not_served.add(SCALED_OBJECT)
    made.add_moved_pools()
    return made


def looked(bench: Bench) -> None:
    asyncio.run(look(bench.refresh(), [None]))
    asyncio.run(reconcile_pool(bench.refresh(), KEY))


def test_a_pool_that_an_hpa_drives_follows_its_replicas_and_counts(bench: Bench):
    bench.cluster.put(hpa())
    looked(bench)
    assert bench.conditions(POOL, "low")["ScalingOwned"] == ("True", "HorizontalPodAutoscaler")
    assert "spec.scaling is not used meanwhile" in bench.message(POOL, "low", "ScalingOwned")
    bench.run_pods("low", ready=2)
    seen = asyncio.run(KubernetesFleet(bench.refresh(), FakeLoads()).of(("default", "chat")).observe("default/chat"))
    assert seen is not None
    state = seen.pools["low"].state
    assert (state.scaled, state.start_replicas, state.gpus_held) == (False, 3, 2)
    assert state.owner == "HorizontalPodAutoscaler by-cpu"
    bench.cluster.remove(AUTOSCALER, "by-cpu")
    looked(bench)
    assert "ScalingOwned" not in bench.conditions(POOL, "low"), "it ends with the autoscaler"


def test_the_rebalancer_neither_moves_nor_forgets_an_owned_pool():
    owned = pool("low", running=2, scaled=False, start_replicas=2, min_replicas=2, max_replicas=2, owner="HPA by-cpu")
    observed = fleet(tier(owned, busy(0)), tier(pool("high", running=1), busy(9)), budget=4)
    decided = plan(observed, now=0)
    assert decided.targets == {"low": 2, "high": 2}, "the two GPUs it holds are not for others"
    assert decided.verdicts["low"].limited_by == "ScalingOwned"
    assert "low is left to HPA by-cpu" in decided.decision
    step = next_step(observed, decided, now=0)
    assert step is not None
    assert (step.pool, step.to_replicas) == ("high", 2)


def test_an_api_server_that_fails_changes_nothing(bench: Bench):
    bench.cluster.put(hpa())
    looked(bench)
    bench.cluster.fail_next["list_all"] = ClusterError("list", 503, "later")
    with pytest.raises(ClusterError):
        asyncio.run(look(bench.refresh(), [None]))
    assert bench.deps.autoscalers, "the last answer stands"


def test_labels_of_kueue_reach_the_pods(bench: Bench):
    queue = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "prod"}
    bench.cluster.change(POOL, "low", {"metadata": {"labels": {**queue, "argocd.argoproj.io/instance": "x"}}})
    asyncio.run(reconcile_pool(bench.refresh(), KEY))
    made = bench.cluster.one(DEPLOYMENT, bench.engine())
    for labels in (made["metadata"]["labels"], made["spec"]["template"]["metadata"]["labels"]):
        assert {key: labels[key] for key in queue} == queue
        assert "argocd.argoproj.io/instance" not in labels


def test_waiting_in_a_queue_is_said_and_is_no_trouble(bench: Bench):
    bench.run_pods("low", starting=1)
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    bench.cluster.change(POD, "low-engine-0", {"status": {"conditions": [gated]}})
    bench.cluster.change(POOL, "low", {"spec": {"replicas": 1}})
    asyncio.run(reconcile_pool(bench.refresh(), KEY))
    assert bench.conditions(POOL, "low")["NodesReady"] == ("Unknown", "Queued")
    assert "Stalled" not in bench.conditions(POOL, "low")


def test_who_changed_a_child_is_named_for_a_while_and_the_child_put_back(bench: Bench):
    name = next(n for (k, _, n) in bench.cluster.objects if k == DEPLOYMENT.kind and n.startswith("low-"))
    bench.cluster.change(DEPLOYMENT, name, {"spec": {"revisionHistoryLimit": 9}}, manager="kubectl-edit")
    asyncio.run(reconcile_pool(bench.refresh(), KEY))
    assert bench.cluster.one(DEPLOYMENT, name)["spec"]["revisionHistoryLimit"] != 9
    assert bench.conditions(POOL, "low")["ChildrenOwned"] == ("False", "FieldConflict")
    message = bench.message(POOL, "low", "ChildrenOwned")
    assert f'Deployment {name}: Apply failed with 1 conflict: conflict with "kubectl-edit"' in message
    assert ".spec.revisionHistoryLimit" in message
    bench.clock.now += 599
    asyncio.run(reconcile_pool(bench.refresh(), KEY))
    assert "ChildrenOwned" in bench.conditions(POOL, "low")
    bench.clock.now += 1
    asyncio.run(reconcile_pool(bench.refresh(), KEY))
    assert "ChildrenOwned" not in bench.conditions(POOL, "low")


def test_a_policys_children_are_no_different(bench: Bench):
    asyncio.run(reconcile_policy(bench.refresh(), ("default", "chat")))
    bench.cluster.change(DEPLOYMENT, "chat-router", {"spec": {"replicas": 7}}, manager="helm")
    asyncio.run(reconcile_policy(bench.refresh(), ("default", "chat")))
    assert bench.conditions(POLICY, "chat")["ChildrenOwned"] == ("False", "FieldConflict")
    assert 'conflict with "helm"' in bench.message(POLICY, "chat", "ChildrenOwned")
