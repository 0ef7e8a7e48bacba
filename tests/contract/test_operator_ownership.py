"""Other people's autoscalers and edits on a real API server: found, named, respected or put back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.manifests import pool_manifest, shape
from support.operatorprocess import OperatorProcess, grant, revoke
from testcluster.cluster import Cluster
from testcluster.processes import wait_until
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

NAMESPACE = "operator-ownership"


@pytest.fixture(scope="module")
def cluster(api_server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    api_server.install_crds(definitions().values())
    kubeconfig: Path = grant(api_server, NAMESPACE)
    environment = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_WATCH_NAMESPACES": NAMESPACE}
    with OperatorProcess(kubeconfig, tmp_path_factory.mktemp("operator") / "log", "owner", environment):
        api_server.apply([pool()])
        yield api_server
        api_server.kubectl("delete", "tpool", "--all", "-n", NAMESPACE, "--timeout=300s")
    revoke(api_server, NAMESPACE)


def pool() -> dict[str, Any]:
    bounds = {"minReplicas": 0, "maxReplicas": 4}
    return pool_manifest(
        metadata__namespace=NAMESPACE,
        spec__accelerator__name="nvidia-h100-80gb",
        spec__model__shape=shape(),
        spec__replicas=0,
        spec__scaling=bounds,
    )


def hpa(target: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "by-cpu", "namespace": NAMESPACE},
        "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
    }


def condition(cluster: Cluster, kind: str) -> tuple[str, str, str] | None:
    conditions = cluster.get("tpool", "low", "-n", NAMESPACE).get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == kind), None)


def deployment(cluster: Cluster) -> Any:
    def found() -> Any:
        items = cluster.get("deploy", "-n", NAMESPACE, "-l", "trimtab.dev/pool=low")["items"]
        return items[0] if items else None

    return wait_until("the Deployment", found)


def test_who_edits_a_child_is_named_by_the_api_server(cluster: Cluster):
    name = deployment(cluster)["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}"
    cluster.api.merge(f"{path}?fieldManager=mallory", {"spec": {"minReadySeconds": 7, "revisionHistoryLimit": 9}})
    status, reason, message = wait_until("the condition", lambda: condition(cluster, "ChildrenOwned"))
    assert (status, reason) == ("False", "FieldConflict")
    assert f'Deployment {name}: Apply failed with 1 conflict: conflict with "mallory"' in message
    assert ".spec.revisionHistoryLimit" in message
    spec = deployment(cluster)["spec"]
    assert spec["revisionHistoryLimit"] != 9, "what we say is put back"
    assert spec["minReadySeconds"] == 7, "what we do not say is theirs"


def test_an_hpa_is_found_and_a_mistaken_one_corrected(cluster: Cluster):
    name = deployment(cluster)["metadata"]["name"]
    cluster.apply([hpa({"apiVersion": "apps/v1", "kind": "Deployment", "name": name})])
    found = wait_until("the mistake", lambda: condition(cluster, "ScalingOwned"))
    assert found[:2] == ("False", "DeploymentScaled")
    cluster.apply([hpa({"apiVersion": "trimtab.dev/v1alpha1", "kind": "InferencePool", "name": "low"})])

    def respected() -> bool:
        found = condition(cluster, "ScalingOwned")
        return found is not None and found[:2] == ("True", "HorizontalPodAutoscaler")

    wait_until("the HPA is respected", respected)
    cluster.kubectl("delete", "hpa", "by-cpu", "-n", NAMESPACE)
    wait_until("it is over", lambda: condition(cluster, "ScalingOwned") is None)
