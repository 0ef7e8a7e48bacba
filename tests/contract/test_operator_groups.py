"""Replicas on several nodes, by the real controller of LeaderWorkerSets on a real API server.

Made, scaled within the budget, rolled out, drained and deleted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from story.gpuwatch import GpuWatch
from support.manifests import H100, kwok_pool, policy_manifest, tier
from support.operatorprocess import OperatorProcess, account, forget
from testcluster import leaderworkersets
from testcluster.binaries import Binaries
from testcluster.cluster import CRDS, Cluster
from testcluster.processes import wait_until
from trimtab_operator.core import groups

pytestmark = [pytest.mark.contract, pytest.mark.timeout(1800)]

NAMESPACE = "operator-groups"
TWO_NODES = {"name": H100, "count": 2, "nodes": 2}
ENVIRONMENT = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_WATCH_NAMESPACES": NAMESPACE}


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    with account(api_server, NAMESPACE, nodes=2, labels={"suite": "groups"}) as granted:
        yield granted


@pytest.fixture(autouse=True)
def _clean(api_server: Cluster, kubeconfig: Path) -> Iterator[None]:
    yield
    clean(api_server)


@pytest.fixture
def operator(kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(kubeconfig, tmp_path / "log", "only", ENVIRONMENT) as running:
        yield running


def clean(cluster: Cluster) -> None:
    """No pool, and nothing of one: without the definition the garbage collector would not know whose pods they are."""
    forget(cluster, NAMESPACE)
    path = f"/apis/leaderworkerset.x-k8s.io/v1/namespaces/{NAMESPACE}/leaderworkersets"
    for item in cluster.api.get(path)["items"] if cluster.api.exists(path) else ():
        cluster.api.delete(f"{path}/{item['metadata']['name']}")
    wait_until("no LeaderWorkerSet", lambda: not cluster.api.exists(path) or not cluster.api.get(path)["items"])
    cluster.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--wait=false")
    wait_until("no pods", lambda: not pods(cluster))


@pytest.fixture(scope="module")
def served(api_server: Cluster, kubeconfig: Path, lws: Binaries) -> Iterator[None]:
    """From the first test that asks for it on: the garbage collector needs its time to know a new definition."""
    definition = leaderworkersets.definition(lws)
    api_server.install_crds([definition])
    yield
    clean(api_server)
    path = f"{CRDS}/{definition['metadata']['name']}"
    api_server.api.delete(path)
    wait_until("no definition", lambda: not api_server.api.exists(path))


@pytest.fixture(scope="module")
def controller(
    api_server: Cluster, served: None, lws: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    with leaderworkersets.controller(api_server, lws, tmp_path_factory.mktemp("lws")):
        yield


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    selector = "labelSelector=app.kubernetes.io/component%3Dengine"
    items: list[dict[str, Any]] = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]
    return items


def pool(**changes: Any) -> dict[str, Any]:
    plain = {"spec__accelerator": TWO_NODES, "spec__nodes": {"selector": {"suite": "groups"}}}
    return kwok_pool(namespace=NAMESPACE, **plain | changes)


def policy(gpus: int, mode: str = "DryRun") -> dict[str, Any]:
    rebalance = {
        "mode": mode,
        "gpuBudget": [{"accelerator": H100, "gpus": gpus}],
        "prometheus": {"url": "http://127.0.0.1:1"},
        "intervalSeconds": 1,
    }
    return policy_manifest(metadata__namespace=NAMESPACE, spec__tiers=[tier("low")], spec__rebalance=rebalance)


def edit(cluster: Cluster, spec: dict[str, Any]) -> None:
    cluster.api.merge(f"/apis/trimtab.dev/v1alpha1/namespaces/{NAMESPACE}/inferencepools/low", {"spec": spec})


def status(cluster: Cluster) -> dict[str, Any]:
    return dict(cluster.get("tpool", "low", "-n", NAMESPACE).get("status", {}))


def ready(cluster: Cluster, replicas: int) -> bool:
    """The present spec is Ready and rolled out, with that many replicas and no other pods."""
    found, generation = status(cluster), cluster.get("tpool", "low", "-n", NAMESPACE)["metadata"]["generation"]
    conditions = {c["type"]: (c["status"], c["observedGeneration"]) for c in found.get("conditions", [])}
    settled = all(conditions.get(kind) == ("True", generation) for kind in ("Ready", "RolledOut"))
    counts = (found.get("readyReplicas"), found.get("drainingReplicas"), found.get("gpus"))
    return settled and counts == (replicas, 0, 2 * replicas)


def sets(cluster: Cluster) -> dict[str, int]:
    items = cluster.get(leaderworkersets.SETS, "-n", NAMESPACE)["items"]
    return {item["metadata"]["name"]: item["spec"]["replicas"] for item in items}


def test_an_api_that_is_not_served_is_named_until_it_comes(
    api_server: Cluster, operator: OperatorProcess, request: pytest.FixtureRequest
):
    assert not api_server.api.exists(f"{CRDS}/{leaderworkersets.SETS}")
    api_server.apply([pool()])

    def named() -> bool:
        conditions = status(api_server).get("conditions", [])
        return ("Ready", "GroupsApiMissing") in {(c["type"], c["reason"]) for c in conditions}

    wait_until("the condition", named)
    kinds = "deployments,services,poddisruptionbudgets,networkpolicies,pods"
    assert not api_server.get(kinds, "-n", NAMESPACE, "-l", "trimtab.dev/pool=low")["items"]
    request.getfixturevalue("controller")
    wait_until("a replica", lambda: ready(api_server, 1))


@pytest.mark.usefixtures("controller")
def test_groups_live_roll_out_drain_and_end(api_server: Cluster, operator: OperatorProcess):
    with GpuWatch(api_server, NAMESPACE) as watch:
        api_server.apply([policy(6), pool()])
        wait_until("a group", lambda: ready(api_server, 1))
        (name,) = sets(api_server)
        made = api_server.get(leaderworkersets.SETS, name, "-n", NAMESPACE)["spec"]
        assert made["leaderWorkerTemplate"]["size"] == 2
        assert made["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
        led = api_server.get("endpointslices", "-n", NAMESPACE, "-l", "kubernetes.io/service-name=low-engine")["items"]
        targets = [endpoint["targetRef"]["name"] for item in led for endpoint in item.get("endpoints") or []]
        assert targets == [f"{name}-0"], "the Service leads to the leader alone"
        edit(api_server, {"recipe": {"preset": "throughput"}})
        wait_until("the end of the roll-out", lambda: ready(api_server, 1))
        assert sets(api_server)[name] == 0
        assert watch.is_alive
    assert 2 < watch.peak <= 6, "a new group came first, within the budget"


@pytest.mark.usefixtures("controller")
def test_a_policy_scales_groups_within_its_budget(api_server: Cluster, operator: OperatorProcess):
    """Without measurements it starts `replicas`, as far as the budget goes: two groups of two GPUs, not three."""
    with GpuWatch(api_server, NAMESPACE) as watch:
        scaling = {"minReplicas": 2, "maxReplicas": 3}
        api_server.apply([policy(5, "Apply"), pool(spec__replicas=3, spec__scaling=scaling)])
        wait_until("two groups", lambda: ready(api_server, 2))
        assert watch.is_alive
    assert watch.peak == 4


@pytest.mark.usefixtures("controller")
def test_the_last_group_drains_and_its_gpus_count_until_all_of_it_is_gone(
    api_server: Cluster, operator: OperatorProcess
):
    api_server.apply([pool(spec__replicas=2, spec__drain={"deadlineSeconds": 15})])
    wait_until("two groups", lambda: ready(api_server, 2))
    api_server.kubectl("scale", "tpool/low", "-n", NAMESPACE, "--replicas=1")

    def drains() -> bool:
        marked = [p for p in pods(api_server) if p["metadata"]["labels"].get("trimtab.dev/serving") == "false"]
        return {groups.index_of(pod) for pod in marked} == {1} and len(marked) == 2

    wait_until("a drain of the whole last group", drains)
    assert status(api_server)["gpus"] == 4
    wait_until("one group", lambda: ready(api_server, 1))
    assert [groups.index_of(pod) for pod in pods(api_server)] == [0, 0]
    api_server.kubectl("delete", "tpool", "low", "-n", NAMESPACE, "--timeout=300s")
    wait_until("no LeaderWorkerSet", lambda: not sets(api_server))
