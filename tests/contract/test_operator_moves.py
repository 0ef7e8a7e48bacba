"""Replicas follow demand on a real API server, and the GPU budget holds at every instant, also over a killed leader."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from story.gpuwatch import GpuWatch
from support.fakeprometheus import FakePrometheus, serving
from support.manifests import H100, kwok_pool, policy_manifest
from support.operatorprocess import OperatorProcess, account
from support.slowendings import SlowEndings
from testcluster.cluster import Cluster
from testcluster.processes import wait_until

pytestmark = pytest.mark.contract

NAMESPACE = "operator-moves"
BUDGET = 4
#: More than three replicas can do, and next to nothing.
MUCH, LITTLE = (30.0, 30_000.0, 20_000.0), (0.1, 100.0, 60.0)


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    with account(api_server, NAMESPACE, nodes=2) as granted:
        yield granted


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    with serving() as fake:
        yield fake


def counts(cluster: Cluster) -> tuple[int, int]:
    """Ready replicas of low and high."""
    ready = [
        cluster.get("tpool", name, "-n", NAMESPACE).get("status", {}).get("readyReplicas", 0)
        for name in ("low", "high")
    ]
    return ready[0], ready[1]


def pool(name: str, replicas: int) -> dict[str, Any]:
    scaling = {"minReplicas": 1, "maxReplicas": 4}
    return kwok_pool(name, namespace=NAMESPACE, spec__replicas=replicas, spec__scaling=scaling)


def test_replicas_follow_demand_within_the_budget_over_a_killed_leader(
    api_server: Cluster, kubeconfig: Path, prometheus: FakePrometheus, tmp_path: Path
):
    rebalance = {
        "mode": "Apply",
        "gpuBudget": [{"accelerator": H100, "gpus": BUDGET}],
        "prometheus": {"url": prometheus.url},
        "intervalSeconds": 1,
        "windowSeconds": 5,
        "cooldownSeconds": 1,
    }
    environment = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_WATCH_NAMESPACES": NAMESPACE}
    prometheus.demand = {"low": MUCH, "high": LITTLE}
    with GpuWatch(api_server, NAMESPACE) as watch, SlowEndings(api_server, NAMESPACE):
        with OperatorProcess(kubeconfig, tmp_path / "first.log", "first", environment) as first:
            policy = policy_manifest(metadata__namespace=NAMESPACE, spec__rebalance=rebalance)
            api_server.apply([policy, pool("low", 3), pool("high", 1)])
            wait_until("the start", lambda: counts(api_server) == (3, 1))
            prometheus.demand = {"low": LITTLE, "high": MUCH}
            wait_until("a move under way", lambda: counts(api_server)[0] < 3)
            first.kill()
        with OperatorProcess(kubeconfig, tmp_path / "second.log", "second", environment):
            wait_until("the end of the move", lambda: counts(api_server) == (1, 3))
            status = api_server.get("tpolicy", "chat", "-n", NAMESPACE)["status"]
            api_server.kubectl("delete", "tpolicy,tpool", "--all", "-n", NAMESPACE, "--timeout=300s")
        assert watch.is_alive
    assert watch.peak == BUDGET, "the budget was used, and never passed"
    assert status["lastMove"]["pool"] == "high"
    assert [c["status"] for c in status["conditions"] if c["type"] == "MetricsAvailable"] == ["True"]
