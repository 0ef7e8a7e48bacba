"""A ResourceQuota makes a GPU budget hold where pods are evicted: what replaces them is refused until they end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from story.gpuwatch import GpuWatch
from support.manifests import pool_manifest, shape
from support.operatorprocess import OperatorProcess, account
from support.slowendings import SlowEndings
from testcluster.cluster import GPU, Cluster
from testcluster.processes import wait_until

pytestmark = pytest.mark.contract

NAMESPACE = "operator-evictions"
BUDGET = 2
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "gpus", "namespace": NAMESPACE},
    "spec": {"hard": {f"requests.{GPU}": str(BUDGET)}},
}


@pytest.fixture
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    with account(api_server, NAMESPACE, nodes=1) as granted:
        yield granted


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return found


def evict(cluster: Cluster, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    cluster.api.create(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", body)


def test_a_quota_keeps_the_budget_while_evicted_replicas_drain(api_server: Cluster, kubeconfig: Path, tmp_path: Path):
    environment = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_WATCH_NAMESPACES": NAMESPACE}
    pool = pool_manifest(
        "low",
        metadata__namespace=NAMESPACE,
        spec__accelerator__name="nvidia-h100-80gb",
        spec__model__shape=shape(),
        spec__nodes={"selector": {"type": "kwok"}},
        spec__replicas=BUDGET,
    )

    def status() -> dict[str, Any]:
        found: dict[str, Any] = api_server.get("tpool", "low", "-n", NAMESPACE).get("status", {})
        return found

    def reason() -> str:
        return next((c["reason"] for c in status().get("conditions", []) if c["type"] == "NodesReady"), "")

    with (
        GpuWatch(api_server, NAMESPACE) as watch,
        # What the status says meanwhile must be there to be seen on a slow machine.
        SlowEndings(api_server, NAMESPACE, seconds=20) as slow,
        OperatorProcess(kubeconfig, tmp_path / "operator.log", "evictions", environment),
    ):
        api_server.apply([QUOTA, pool])
        wait_until("the start", lambda: status().get("readyReplicas") == BUDGET)
        before = {pod["metadata"]["name"] for pod in pods(api_server)}
        wait_until("pods that take their time", lambda: before <= slow.known)
        evict(api_server, min(before))
        wait_until("the quota in the status", lambda: reason() == "QuotaExceeded")
        wait_until("another replica", lambda: status().get("readyReplicas") == BUDGET)
        wait_until("a condition that is over", lambda: reason() == "Scheduled")
        assert {pod["metadata"]["name"] for pod in pods(api_server)} != before
        api_server.kubectl("delete", "tpool", "--all", "-n", NAMESPACE, "--timeout=300s")
        assert watch.is_alive
    assert watch.peak == BUDGET
