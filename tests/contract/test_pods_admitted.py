"""Pods and NetworkPolicies as a real API server admits them: Pod Security restricted, priorities, volumes."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.manifests import policy_manifest, pool_manifest, shape
from testcluster.api import ApiError
from testcluster.cluster import Cluster
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import networkpolicies
from trimtab_operator.core.desired import ChildSettings, policy_objects, pool_objects
from trimtab_operator.core.recipe import resolve
from trimtab_operator.core.routerconfig import compile_config

pytestmark = pytest.mark.contract

NAME = "pods-restricted"
LEVEL = "pod-security.kubernetes.io/enforce"
H100 = {"name": "nvidia-h100-80gb"}
CACHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "claim": {"spec__model__cache": {"claimName": "models"}, "spec__model__tokenSecret": {"name": "hf"}},
    "image": {
        "spec__model__cache": {"image": "registry.example.com/model:1"},
        "spec__model__name": "/models/x",
        "spec__model__offline": True,
    },
    "claimed GPUs": {"spec__accelerator": H100 | {"allocation": "DRA"}},
    "own spread": {
        "spec__engine": {
            "pod": {
                "topologySpread": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
            }
        }
    },
    "isolated": {"spec__network": {"isolated": True, "allowFrom": [{"podSelector": {}}]}},
}


@pytest.fixture(scope="module")
def namespace(api_server: Cluster) -> Iterator[str]:
    api_server.namespace(NAME, {LEVEL: "restricted"})
    yield NAME
    api_server.remove_namespace(NAME, wait=False)


def pool_of(**changes: Any) -> InferencePool:
    plain = {"metadata__namespace": NAME, "spec__accelerator": H100, "spec__model__shape": shape()}
    pool = load(pool_manifest(**plain | changes))
    assert isinstance(pool, InferencePool)
    return pool


def children(pool: InferencePool) -> list[dict[str, Any]]:
    resolution = resolve(pool)
    assert resolution.reasons == ()
    return pool_objects(pool, resolution, replicas=1)


def pod_of(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (template,) = [m["spec"]["template"] for m in manifests if m["kind"] == "Deployment"]
    metadata = {**template["metadata"], "name": "one", "namespace": NAME}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def admit(cluster: Cluster, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
    query = "?dryRun=All&fieldValidation=Strict"
    group = "/api/v1" if plural == "pods" else "/apis/networking.k8s.io/v1"
    return dict(cluster.api.create(f"{group}/namespaces/{NAME}/{plural}{query}", manifest))


@pytest.mark.parametrize("variant", CACHES)
def test_engines_are_admitted_where_restricted_is_enforced(api_server: Cluster, namespace: str, variant: str):
    wanted = pod_of(children(pool_of(**CACHES[variant])))
    admitted = admit(api_server, "pods", wanted)
    assert admitted["metadata"]["namespace"] == namespace
    kept = {volume["name"]: volume for volume in admitted["spec"]["volumes"]}
    for volume in wanted["spec"]["volumes"]:
        assert set(volume) <= set(kept[volume["name"]]), (
            "a source that the API server drops is one that it does not know"
        )


def test_routers_are_admitted_where_restricted_is_enforced(api_server: Cluster, namespace: str):
    tiers = [{"name": "low", "poolRef": {"name": "low"}}]
    tenants = [{"name": "acme", "apiKeys": {"secretRef": {"name": "acme.keys"}}}]
    policy = load(policy_manifest(metadata__namespace=namespace, spec__tiers=tiers, spec__tenants=tenants))
    assert isinstance(policy, RoutingPolicy)
    config = compile_config(policy, {"low": pool_of()})
    wanted = pod_of(policy_objects(policy, config, ChildSettings(router_image="x")))
    kept = {volume["name"]: volume for volume in admit(api_server, "pods", wanted)["spec"]["volumes"]}
    assert kept["acme-keys"]["secret"] == {"secretName": "acme.keys", "optional": True, "defaultMode": 0o440}


def test_a_folder_of_the_node_is_refused_there_as_documented(api_server: Cluster, namespace: str):
    pod = pod_of(children(pool_of(metadata__namespace=namespace, spec__model__cache={"hostPath": "/mnt/models"})))
    with pytest.raises(ApiError) as refused:
        admit(api_server, "pods", pod)
    assert refused.value.status == 403
    assert "hostPath" in refused.value.message


def test_a_priority_class_that_is_not_there_is_named(api_server: Cluster, namespace: str):
    asked = {"pod": {"priorityClassName": "no-such-class"}}
    with pytest.raises(ApiError) as refused:
        admit(api_server, "pods", pod_of(children(pool_of(metadata__namespace=namespace, spec__engine=asked))))
    assert "no PriorityClass with name no-such-class was found" in refused.value.message


def test_the_class_says_whether_pods_may_preempt(api_server: Cluster, namespace: str):
    priorities = "/apis/scheduling.k8s.io/v1/priorityclasses"
    name = "pods-admitted-serving"
    body = {"metadata": {"name": name}, "value": 1000, "preemptionPolicy": "Never"}
    try:
        api_server.api.create(priorities, body)
        asked = {"pod": {"priorityClassName": name}}
        admitted = admit(
            api_server, "pods", pod_of(children(pool_of(metadata__namespace=namespace, spec__engine=asked)))
        )
        assert (admitted["spec"]["priority"], admitted["spec"]["preemptionPolicy"]) == (1000, "Never")
    finally:
        api_server.api.delete(f"{priorities}/{name}")


def test_network_policies_are_admitted_as_they_are(api_server: Cluster, namespace: str):
    isolated = {"isolated": True, "allowFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    pool = pool_of(spec__network=isolated, spec__model__name="/models/x", spec__model__offline=True)
    tiers = [{"name": "low", "poolRef": {"name": "low"}}]
    policy = load(policy_manifest(metadata__namespace=namespace, spec__tiers=tiers, spec__router={"network": isolated}))
    assert isinstance(policy, RoutingPolicy)
    made = [networkpolicies.of_engines(pool), *networkpolicies.of_routers(policy, {"low": pool})]
    assert len(made) == 3
    for manifest in filter(None, made):
        assert admit(api_server, "networkpolicies", manifest)["spec"] == manifest["spec"]
