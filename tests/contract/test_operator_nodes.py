"""Nodes for pools on a real API server: the CRDs of Karpenter as published, and the real scheduler's words."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.manifests import compute_class, karpenter, pool_manifest, shape
from support.operatorprocess import OperatorProcess, grant, revoke
from testcluster.cluster import Cluster
from testcluster.processes import wait_until
from trimtab_crds.manifests import definitions
from trimtab_operator.core import names

pytestmark = pytest.mark.contract

USER = "operator-of-nodes"
H100 = "nvidia-h100-80gb"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROOT = Path(__file__).resolve().parents[2]
#: A folder with CRDs of other projects, named GROUP_PLURAL.yaml.
FOLDER = Path(os.environ.get("TRIMTAB_TEST_CRDS", ROOT.parent / "shared" / "data" / "crds"))
#: GKE publishes no CRD: the fields that we write, as its reference describes them.
COMPUTE_CLASSES = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    # A group of google.com is not protected, as those of kubernetes.io are.
    "metadata": {"name": "computeclasses.cloud.google.com"},
    "spec": {
        "group": "cloud.google.com",
        "scope": "Cluster",
        "names": {"kind": "ComputeClass", "plural": "computeclasses", "singular": "computeclass"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["priorities"],
                                "properties": {
                                    "nodePoolAutoCreation": {
                                        "type": "object",
                                        "properties": {"enabled": {"type": "boolean"}},
                                    },
                                    "whenUnsatisfiable": {"type": "string", "enum": ["DoNotScaleUp", "ScaleUpAnyway"]},
                                    "priorities": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "properties": {
                                                "machineFamily": {"type": "string"},
                                                "machineType": {"type": "string"},
                                                "spot": {"type": "boolean"},
                                                "flexStart": {
                                                    "type": "object",
                                                    "properties": {"enabled": {"type": "boolean"}},
                                                },
                                                "gpu": {
                                                    "type": "object",
                                                    "required": ["type", "count"],
                                                    "properties": {
                                                        "type": {"type": "string"},
                                                        "count": {"type": "integer"},
                                                    },
                                                },
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def cluster(api_server: Cluster) -> Iterator[Cluster]:
    api_server.install_crds(definitions().values())
    nodes = api_server.fake_nodes(1, prefix="nodes", gpus=1, labels={"suite": "nodes"})
    yield api_server
    for node in nodes:
        api_server.remove_node(node)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    kubeconfig = grant(cluster, USER)
    # No sweep falls into these tests: what goes, the loop of its pool deletes.
    environment = {"POD_NAMESPACE": USER, "TRIMTAB_RESYNC_SECONDS": "3600"}
    with OperatorProcess(kubeconfig, tmp_path_factory.mktemp("operator") / "log", "first", environment) as running:
        yield running
    revoke(cluster, USER)


@pytest.fixture
def namespace(cluster: Cluster, operator: OperatorProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    name = re.sub(r"[^a-z]+", "-", request.node.name.removeprefix("test_"))[:50].strip("-")
    yield cluster.namespace(name)
    cluster.kubectl("delete", "inferencepools.trimtab.dev", "--all", "-n", name, "--timeout=300s")
    cluster.remove_namespace(name, wait=False)


@pytest.fixture(scope="module")
def karpenter_api(cluster: Cluster) -> Iterator[None]:
    paths = [FOLDER / f"karpenter.sh_{plural}.yaml" for plural in ("nodepools", "nodeclaims")]
    if not all(path.exists() for path in paths):
        pytest.skip(f"{FOLDER} has no CRDs of Karpenter; set TRIMTAB_TEST_CRDS to a folder with karpenter.sh_*.yaml")
    yield from _installed(cluster, [yaml.safe_load(path.read_text()) for path in paths])


def _installed(cluster: Cluster, wanted: list[dict[str, Any]]) -> Iterator[None]:
    cluster.install_crds(wanted)
    yield
    for path in (f"{CRDS}/{definition['metadata']['name']}" for definition in wanted):
        cluster.api.delete(path)
        wait_until(f"no {path}", lambda path=path: not cluster.api.exists(path))


def pool(namespace: str, **changes: Any) -> dict[str, Any]:
    plain = {"metadata__namespace": namespace, "spec__model__shape": shape(), "spec__accelerator__name": H100}
    return pool_manifest(**plain | changes)


def condition(cluster: Cluster, namespace: str, kind: str = "NodesReady") -> dict[str, Any]:
    conditions = cluster.get("tpool", "low", "-n", namespace).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def wait_reason(cluster: Cluster, namespace: str, status: str, reason: str) -> str:
    def there() -> bool:
        now = condition(cluster, namespace)
        return (now.get("status"), now.get("reason")) == (status, reason)

    try:
        wait_until(f"NodesReady {status} {reason}", there)
    except TimeoutError as error:
        raise AssertionError(cluster.get("tpool", "low", "-n", namespace).get("status")) from error
    return str(condition(cluster, namespace)["message"])


def test_a_node_pool_lives_and_ends_with_its_pool(cluster: Cluster, karpenter_api: None, namespace: str):
    nodes = karpenter(
        capacityTypes=["spot", "on-demand"],
        requirements=[{"key": "karpenter.k8s.aws/instance-family", "operator": "NotIn", "values": ["g4dn"]}],
        maxGpus=16,
        disruption={"budgets": [{"nodes": "10%"}, {"nodes": "0", "schedule": "@daily", "durationMinutes": 90}]},
    )
    cluster.apply([pool(namespace, spec__nodes=nodes)])
    name = names.nodes_name(namespace, "low")
    wait_reason(cluster, namespace, "Unknown", "Provisioning")
    made = cluster.get("nodepool", name)
    assert (
        made["metadata"]["labels"][names.POOL_UID_LABEL]
        == cluster.get("tpool", "low", "-n", namespace)["metadata"]["uid"]
    )
    assert made["spec"]["limits"] == {"nvidia.com/gpu": "16"}
    assert made["spec"]["template"]["spec"]["expireAfter"] == "Never"
    (pod,) = cluster.get("pods", "-n", namespace)["items"]
    assert pod["spec"]["nodeSelector"] == {"karpenter.sh/nodepool": name}
    assert pod["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    [node] = cluster.fake_nodes(1, prefix=f"made-{namespace}"[:40], labels={"karpenter.sh/nodepool": name})
    try:
        cluster.kubectl("wait", "tpool/low", "-n", namespace, "--for=condition=NodesReady", "--timeout=300s")
        cluster.kubectl("delete", "tpool", "low", "-n", namespace, "--timeout=300s")
        wait_until("no NodePool", lambda: not cluster.get("nodepools")["items"])
    finally:
        cluster.remove_node(node)


def test_a_pool_that_turns_static_gives_its_node_pool_back(cluster: Cluster, karpenter_api: None, namespace: str):
    cluster.apply([pool(namespace, spec__nodes=karpenter())])
    wait_until("a NodePool", lambda: cluster.get("nodepools")["items"])
    cluster.apply([pool(namespace, spec__nodes={"selector": {"suite": "nodes"}})])
    wait_until("no NodePool", lambda: not cluster.get("nodepools")["items"])
    cluster.kubectl("wait", "tpool/low", "-n", namespace, "--for=condition=Ready", "--timeout=300s")


def test_an_api_that_is_not_served_is_named_until_it_comes(cluster: Cluster, namespace: str):
    nodes = compute_class({"machineFamily": "a3", "spot": True}, {"machineFamily": "a3", "flexStart": True})
    cluster.apply([pool(namespace, spec__nodes=nodes)])
    assert wait_reason(cluster, namespace, "False", "NodesApiMissing") == (
        "nodes.mode GKEComputeClass needs cloud.google.com/v1 ComputeClass, which this cluster does not serve; "
        "install it, or set nodes.mode Static"
    )
    for _ in _installed(cluster, [COMPUTE_CLASSES]):
        wait_reason(cluster, namespace, "Unknown", "Provisioning")
        [made] = cluster.get("computeclasses")["items"]
        assert made["metadata"]["name"] == names.nodes_name(namespace, "low")
        rest = {"gpu": {"type": H100, "count": 1}, "spot": False}
        assert made["spec"]["priorities"] == [
            rest | {"machineFamily": "a3", "spot": True},
            rest | {"machineFamily": "a3", "flexStart": {"enabled": True}},
        ]
        cluster.kubectl("delete", "tpool", "low", "-n", namespace, "--timeout=300s")
        wait_until("no ComputeClass", lambda: not cluster.get("computeclasses")["items"])


def test_a_node_pool_of_somebody_else_stays_as_it_is(cluster: Cluster, karpenter_api: None, namespace: str):
    name = names.nodes_name(namespace, "low")
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "theirs"}
    template = {"spec": {"nodeClassRef": reference, "requirements": []}}
    theirs = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name}}
    cluster.apply([theirs | {"spec": {"template": template}}])
    before = cluster.get("nodepool", name)
    cluster.apply([pool(namespace, spec__nodes=karpenter())])
    wait_reason(cluster, namespace, "False", "NotOurs")
    cluster.kubectl("delete", "tpool", "low", "-n", namespace, "--timeout=300s")
    assert cluster.get("nodepool", name) == before


@pytest.mark.parametrize(
    ("nodes", "count", "reason"),
    [
        pytest.param({"selector": {"suite": "nodes"}}, 2, "InsufficientGpu", id="gpus"),
        pytest.param({"selector": {"suite": "nowhere"}}, 1, "NoMatchingNode", id="label"),
    ],
)
def test_the_scheduler_is_understood(cluster: Cluster, namespace: str, nodes: Any, count: int, reason: str):
    gpu = {"name": H100, "count": count}
    cluster.apply([pool(namespace, spec__nodes=nodes, spec__accelerator=gpu)])
    message = wait_reason(cluster, namespace, "False", reason)
    assert not any(letter.isdigit() for letter in message)


def test_claimed_gpus_are_scheduled_and_counted(cluster: Cluster, namespace: str):
    driver, resource_api = "gpu.trimtab.test", "/apis/resource.k8s.io/v1"
    [node] = cluster.fake_nodes(1, prefix="claims", gpus=0, labels={"suite": "claims"})
    selector = {"cel": {"expression": f"device.driver == '{driver}'"}}
    device_class = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": driver}}
    devices = {
        "driver": driver,
        "nodeName": node,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": f"gpu-{i}"} for i in range(2)],
    }
    slices = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "trimtab-test"}}
    try:
        cluster.apply([device_class | {"spec": {"selectors": [selector]}}, slices | {"spec": devices}])
        gpu = {"name": H100, "count": 2, "allocation": "DRA", "deviceClassName": driver}
        cluster.apply([pool(namespace, spec__accelerator=gpu, spec__nodes={"selector": {"suite": "claims"}})])
        cluster.kubectl("wait", "tpool/low", "-n", namespace, "--for=condition=Ready", "--timeout=300s")
        assert cluster.get("tpool", "low", "-n", namespace)["status"]["gpus"] == 2
        [claim] = cluster.get("resourceclaims", "-n", namespace)["items"]
        assert len(claim["status"]["allocation"]["devices"]["results"]) == 2
        cluster.kubectl("scale", "tpool/low", "-n", namespace, "--replicas=2")
        wait_reason(cluster, namespace, "False", "InsufficientGpu")
        cluster.kubectl("delete", "tpool", "low", "-n", namespace, "--timeout=300s")
        templates = "resourceclaimtemplates"
        wait_until("no template", lambda: not cluster.get(templates, "-n", namespace)["items"])
    finally:
        cluster.api.delete(f"{resource_api}/resourceslices/trimtab-test")
        cluster.api.delete(f"{resource_api}/deviceclasses/{driver}")
        cluster.remove_node(node)
