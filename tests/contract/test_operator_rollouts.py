"""Roll-outs on a real API server: within the budget at every instant, over a killed leader, and back again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from story.gpuwatch import GpuWatch
from support.manifests import H100, kwok_pool, policy_manifest, tier
from support.operatorprocess import OperatorProcess, account, forget
from testcluster.cluster import Cluster
from testcluster.processes import wait_until

pytestmark = pytest.mark.contract

NAMESPACE = "operator-rollouts"
ENVIRONMENT = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_WATCH_NAMESPACES": NAMESPACE}


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    with account(api_server, NAMESPACE, nodes=1) as granted:
        yield granted


@pytest.fixture(autouse=True)
def _clean(api_server: Cluster, kubeconfig: Path) -> Iterator[None]:
    yield
    forget(api_server, NAMESPACE)
    wait_until("no pods", lambda: not engine_pods(api_server))


def engine_pods(cluster: Cluster) -> list[dict[str, Any]]:
    selector = "labelSelector=app.kubernetes.io/component%3Dengine"
    items: list[dict[str, Any]] = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]
    return items


def pool(**changes: Any) -> dict[str, Any]:
    return kwok_pool(namespace=NAMESPACE, **{"spec__replicas": 2} | changes)


def policy(gpus: int) -> dict[str, Any]:
    rebalance = {
        "mode": "DryRun",
        "gpuBudget": [{"accelerator": H100, "gpus": gpus}],
        "prometheus": {"url": "http://127.0.0.1:1"},
        "intervalSeconds": 1,
    }
    return policy_manifest(metadata__namespace=NAMESPACE, spec__tiers=[tier("low")], spec__rebalance=rebalance)


def edit(cluster: Cluster, spec: dict[str, Any]) -> None:
    cluster.api.merge(f"/apis/trimtab.dev/v1alpha1/namespaces/{NAMESPACE}/inferencepools/low", {"spec": spec})


def conditions(cluster: Cluster) -> dict[str, tuple[str, str, int]]:
    status = cluster.get("tpool", "low", "-n", NAMESPACE).get("status", {})
    return {c["type"]: (c["status"], c["reason"], c["observedGeneration"]) for c in status.get("conditions", [])}


def settled(cluster: Cluster, generation: int) -> bool:
    """The pool of that generation is Ready, and rolled out."""
    found = conditions(cluster)
    return all(found.get(kind, ("", "", 0))[::2] == ("True", generation) for kind in ("Ready", "RolledOut"))


def revisions(cluster: Cluster) -> dict[str, int]:
    items = cluster.get("deploy", "-n", NAMESPACE, "-l", "trimtab.dev/pool=low")["items"]
    return {d["metadata"]["name"]: d["spec"]["replicas"] for d in items}


@pytest.mark.parametrize("budget", [2, 3], ids=["no GPU to spare", "one GPU to spare"])
def test_an_edit_rolls_out_within_the_budget_over_a_killed_leader(
    api_server: Cluster, kubeconfig: Path, tmp_path: Path, budget: int
):
    with GpuWatch(api_server, NAMESPACE) as watch:
        with OperatorProcess(kubeconfig, tmp_path / "first.log", "first", ENVIRONMENT) as first:
            api_server.apply([policy(budget), pool()])
            wait_until("the start", lambda: settled(api_server, 1))
            old = revisions(api_server)
            edit(api_server, {"recipe": {"preset": "throughput"}})
            wait_until("a roll-out under way", lambda: max(revisions(api_server).values()) < 2 or _new(api_server, old))
            first.kill()
        with OperatorProcess(kubeconfig, tmp_path / "second.log", "second", ENVIRONMENT):
            wait_until("the end of the roll-out", lambda: settled(api_server, 2))
            # The last old replica may still drain when all that serve are new.
            wait_until("the end of the last drain", lambda: sorted(revisions(api_server).values()) == [0, 2])
            assert revisions(api_server)[next(iter(old))] == 0
        assert watch.is_alive
    assert watch.peak == budget, "the budget was used, and never passed"


def _new(cluster: Cluster, old: dict[str, int]) -> bool:
    return any(count for name, count in revisions(cluster).items() if name not in old)


def test_a_revision_that_never_answers_is_rolled_back_and_not_tried_again(
    api_server: Cluster, kubeconfig: Path, tmp_path: Path
):
    with OperatorProcess(kubeconfig, tmp_path / "log", "only", ENVIRONMENT):
        api_server.apply([policy(2), pool(spec__rollout={"progressDeadlineSeconds": 10})])
        wait_until("the start", lambda: settled(api_server, 1))
        (good,) = revisions(api_server)
        edit(api_server, {"nodes": {"selector": {"type": "nowhere"}}})

        def rolled_back() -> bool:
            found = conditions(api_server)
            ready = api_server.get("tpool", "low", "-n", NAMESPACE)["status"].get("readyReplicas")
            return found.get("RolledOut") == ("False", "RolledBack", 2) and ready == 2

        wait_until("the way back", rolled_back)
        now = revisions(api_server)
        assert {name for name, count in now.items() if count} == {good}
        assert conditions(api_server)["Stalled"][:2] == ("True", "RolledBack")
        edit(api_server, {"nodes": {"selector": {"type": "kwok"}}})
        wait_until("the old spec is the present one", lambda: settled(api_server, 3))
