"""Passes over a policy: the document, the routers, and what the rebalancer reported."""

import asyncio
import json
from typing import Any

import pytest

from support.operatorparts import H100, Bench, router_pod
from trimtab_crds.routingpolicy import Move
from trimtab_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, POLICY, POOL, SERVICE
from trimtab_operator.core.pacing import Result
from trimtab_operator.core.rebalance import Problem
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.reconcile import reconcile_policy

KEY = ("default", "chat")
APPLY = {"mode": "Apply", "gpuBudget": [{"accelerator": H100, "gpus": 8}]}


def run(bench: Bench, times: int = 1) -> Result:
    result = Result.GONE
    for _ in range(times):
        result = asyncio.run(reconcile_policy(bench.refresh(), KEY))
    return result


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_pool("low")
    made.add_pool("high")
    made.add_policy()
    return made


def start(bench: Bench, routers: int = 1) -> None:
    run(bench)
    for i in range(routers):
        bench.cluster.put(router_pod(f"chat-router-{i}"))
    bench.settle("chat-router", ready=routers)
    run(bench)
    bench.cluster.writes()


def report(**changes: Any) -> TickReport:
    plain: dict[str, Any] = {
        "tiers": (),
        "gpus": (),
        "decision": "nothing to move",
        "step": None,
        "last_move": None,
        "problem": None,
        "metrics_problem": "",
    }
    return TickReport(**plain | changes)


def document(bench: Bench) -> dict[str, Any]:
    return json.loads(bench.cluster.one(CONFIG_MAP, "chat-router")["data"]["router.json"])


def test_a_new_policy_gets_its_children(bench: Bench):
    assert run(bench) is Result.DONE
    kinds = [kind for call, kind, _ in bench.cluster.writes() if call == "apply"]
    assert kinds == ["ConfigMap", "Service", "Deployment"]
    assert bench.conditions(POLICY, "chat") == {
        "Ready": ("False", "RoutersNotReady"),
        "Reconciling": ("True", "RoutersNotReady"),
    }
    assert [p["host"] for p in document(bench)["pools"]] == ["low-engine.default.svc", "high-engine.default.svc"]


def test_it_is_ready_when_its_routers_answer_and_then_writes_nothing(bench: Bench):
    start(bench)
    assert bench.conditions(POLICY, "chat") == {"Ready": ("True", "Available")}
    assert run(bench, times=3) is Result.DONE
    assert bench.cluster.writes() == []
    status = bench.cluster.one(POLICY, "chat")["status"]
    assert status["address"] == "http://chat-router.default.svc/v1"
    assert status["routerReadyReplicas"] == 1


def test_a_change_of_the_document_does_not_roll_the_routers(bench: Bench):
    start(bench)
    hash_before = bench.cluster.one(POLICY, "chat")["status"]["configHash"]
    bench.cluster.change(POLICY, "chat", {"spec": {"quality": 90}})
    run(bench)
    assert [c for c in bench.cluster.writes() if c[0] == "apply"] == [("apply", "ConfigMap", "chat-router")]
    assert document(bench)["quality"] == 90
    assert bench.cluster.one(POLICY, "chat")["status"]["configHash"] != hash_before


def test_a_second_router_brings_a_disruption_budget_and_its_end_takes_it_away(bench: Bench):
    start(bench)
    bench.cluster.change(POLICY, "chat", {"spec": {"router": {"replicas": 2}}})
    run(bench)
    assert bench.cluster.one(DISRUPTION_BUDGET, "chat-router")
    assert bench.cluster.one(DEPLOYMENT, "chat-router")["spec"]["replicas"] == 2
    bench.cluster.change(POLICY, "chat", {"spec": {"router": {"replicas": 1}}})
    run(bench)
    assert ("delete", "PodDisruptionBudget", "chat-router") in bench.cluster.writes()


def test_the_routers_of_a_policy_may_be_none(bench: Bench):
    bench.cluster.change(POLICY, "chat", {"spec": {"router": {"replicas": 0}}})
    run(bench)
    bench.settle("chat-router", ready=0)
    run(bench)
    assert bench.conditions(POLICY, "chat")["Ready"] == ("True", "ScaledToZero")


def test_an_invalid_policy_keeps_the_last_good_document(bench: Bench):
    start(bench)
    good = document(bench)
    bench.cluster.remove(POOL, "high")
    assert run(bench) is Result.INVALID
    assert document(bench) == good
    assert bench.conditions(POLICY, "chat")["Ready"] == ("False", "SpecInvalid")
    assert bench.message(POLICY, "chat", "Stalled") == (
        "tiers[1].poolRef.name high is not an InferencePool of namespace default; create it or correct the name"
    )
    assert bench.cluster.one(POLICY, "chat")["status"]["configHash"]


def test_a_foreign_service_is_left_alone(bench: Bench):
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat-router"}, "spec": {}}
    before = bench.cluster.put(theirs)
    assert run(bench) is Result.BLOCKED
    assert bench.cluster.one(SERVICE, "chat-router") == before
    assert bench.conditions(POLICY, "chat")["Ready"] == ("False", "NotOurs")


def test_apply_without_a_budget_for_an_accelerator(bench: Bench):
    rebalance = {"mode": "Apply", "gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": 8}]}
    bench.cluster.change(POLICY, "chat", {"spec": {"rebalance": rebalance}})
    assert run(bench) is Result.INVALID
    assert bench.conditions(POLICY, "chat")["Ready"] == ("False", "BudgetMissing")
    assert document(bench), "routers serve all the same"


def test_two_policies_cannot_move_one_pool(bench: Bench):
    bench.add_policy("zeta")
    bench.cluster.change(POLICY, "zeta", {"spec": {"rebalance": APPLY}})
    assert run(bench) is Result.INVALID
    assert bench.message(POLICY, "chat", "Ready") == (
        "tiers[0].poolRef.name low is moved by policy zeta already; give this tier a pool of its own; "
        "tiers[1].poolRef.name high is moved by policy zeta already; give this tier a pool of its own"
    )


def test_the_report_is_in_the_status_and_costs_no_second_write(bench: Bench):
    start(bench)
    bench.deps.reports[KEY] = report()
    run(bench, times=3)
    assert len(bench.cluster.writes()) == 1
    assert bench.conditions(POLICY, "chat")["MetricsAvailable"] == ("True", "DemandKnown")
    assert bench.cluster.one(POLICY, "chat")["status"]["decision"] == "nothing to move"


def test_missing_demand_is_a_condition_and_does_not_end_readiness(bench: Bench):
    start(bench)
    bench.deps.reports[KEY] = report(metrics_problem="no demand data for low")
    run(bench)
    assert bench.conditions(POLICY, "chat") == {
        "Ready": ("True", "Available"),
        "MetricsAvailable": ("False", "DemandUnknown"),
    }


def test_a_budget_that_is_too_small_stalls_the_policy(bench: Bench):
    start(bench)
    bench.deps.reports[KEY] = report(problem=Problem("BudgetTooSmall", "raise it"))
    run(bench)
    assert bench.conditions(POLICY, "chat")["Stalled"] == ("True", "BudgetTooSmall")
    assert bench.message(POLICY, "chat", "Ready") == "raise it"


def test_a_new_leader_keeps_what_the_old_one_wrote_until_its_first_tick(bench: Bench):
    start(bench)
    move = Move(time="2026-01-01T00:00:00Z", pool="low", from_replicas=2, to_replicas=1, reason="why")
    bench.deps.reports[KEY] = report(last_move=move, metrics_problem="none")
    run(bench)
    before = bench.cluster.one(POLICY, "chat")["status"]
    bench.deps.reports.clear()
    bench.cluster.writes()
    run(bench)
    assert bench.cluster.writes() == []
    assert bench.cluster.one(POLICY, "chat")["status"] == before
    assert before["lastMove"]["pool"] == "low"


def test_a_hold_is_said_as_the_decision(bench: Bench):
    start(bench)
    bench.deps.holds[KEY] = "pool low is gone"
    run(bench)
    assert bench.cluster.one(POLICY, "chat")["status"]["decision"] == "hold: pool low is gone"
