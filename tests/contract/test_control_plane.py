"""The test cluster is what the other contract suites take it for: a real API server with RBAC and an audit log."""

import time
from typing import Any

import pytest

from testcluster.api import Api, ApiError
from testcluster.cluster import GPU, Cluster, is_true
from testcluster.errors import UnavailableError
from testcluster.processes import wait_until
from testcluster.pytesting import unavailable

pytestmark = pytest.mark.contract

PODS = "/api/v1/namespaces/{}/pods"


@pytest.fixture
def namespace(api_server: Cluster, request: pytest.FixtureRequest):
    name = request.node.name.replace("_", "-").split("[")[0][:63]
    yield api_server.namespace(name)
    api_server.remove_namespace(name, wait=False)


def gpu_pod(name: str, gpus: int, **metadata: Any) -> dict[str, Any]:
    container = {"name": "engine", "image": "localhost/none", "resources": {"limits": {GPU: str(gpus)}}}
    spec = {"containers": [container], "nodeSelector": {"accelerator": "test"}, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def ready(api: Api, path: str) -> bool:
    return is_true(api.get(path), "Ready")


@pytest.fixture
def nodes(api_server: Cluster):
    try:
        names = api_server.fake_nodes(2, prefix="contract", gpus=8, labels={"accelerator": "test"})
    except UnavailableError as error:
        unavailable(error)
    yield names
    for name in names:
        api_server.remove_node(name)


def test_it_is_a_kubernetes_api_server(api_server: Cluster):
    version = api_server.api.get("/version")
    assert int(version["minor"].rstrip("+")) >= 31
    assert api_server.api.get("/readyz") == "ok"


def test_rbac_refuses_who_was_given_nothing(api_server: Cluster):
    api = Api.from_kubeconfig(api_server.user("nobody-in-particular"))
    with pytest.raises(ApiError) as refused:
        api.get("/api/v1/namespaces/default/pods")
    assert refused.value.status == 403
    assert 'User "nobody-in-particular" cannot list resource "pods"' in refused.value.message


def test_a_service_account_may_do_what_its_role_says_and_no_more(api_server: Cluster, namespace: str):
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api_server.api.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    api_server.api.create(f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    binding = {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}
    api_server.api.create(f"{rbac}/rolebindings", binding)
    api = Api.from_kubeconfig(api_server.service_account(namespace, "reader"))

    def may_list() -> bool:  # the authorizer learns of a binding through a watch
        return api.get(PODS.format(namespace))["items"] == []

    wait_until("the role's effect", may_list)
    with pytest.raises(ApiError) as refused:
        api.create(PODS.format(namespace), gpu_pod("none", 1))
    assert refused.value.status == 403


def test_the_audit_log_says_who_wrote_what(api_server: Cluster, namespace: str):
    if api_server.audit_log is None:
        pytest.skip("another cluster's audit log is not at hand")
    user = Api.from_kubeconfig(api_server.user("audited"))
    with pytest.raises(ApiError, match="403"):
        user.create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "x"}})
    events = wait_until("the event", lambda: api_server.audit_events(user="audited", verbs=["create"]))
    reference = events[-1]["objectRef"]
    assert (reference["resource"], reference["namespace"]) == ("configmaps", namespace)
    assert events[-1]["responseStatus"]["code"] == 403


def test_the_audit_log_keeps_the_bodies_of_writes_to_deployments(api_server: Cluster, namespace: str):
    if api_server.audit_log is None:
        pytest.skip("another cluster's audit log is not at hand")
    make_deployment(api_server.api, namespace, replicas=3)
    events = api_server.audit_events(verbs=["create"])
    bodies = [e["requestObject"] for e in events if e["objectRef"].get("resource") == "deployments"]
    assert bodies[-1]["spec"]["replicas"] == 3


def test_a_gpu_pod_is_scheduled_onto_a_node_that_kwok_plays(api_server: Cluster, namespace: str, nodes: list[str]):
    pods = PODS.format(namespace)
    api_server.api.create(pods, gpu_pod("fits", 8))
    wait_until("Ready", lambda: ready(api_server.api, f"{pods}/fits"))
    assert api_server.api.get(f"{pods}/fits")["spec"]["nodeName"] in nodes


def test_more_gpus_than_a_node_has_stay_pending_with_the_schedulers_reason(
    api_server: Cluster, namespace: str, nodes: list[str]
):
    pods = PODS.format(namespace)
    api_server.api.create(pods, gpu_pod("too-big", 9))
    conditions = wait_until("the reason", lambda: api_server.api.get(f"{pods}/too-big")["status"].get("conditions"))
    assert conditions[0]["reason"] == "Unschedulable"
    assert f"Insufficient {GPU}" in conditions[0]["message"]


def test_an_annotation_plays_a_slow_start(api_server: Cluster, namespace: str, nodes: list[str]):
    pods = PODS.format(namespace)
    started = time.monotonic()
    annotations = {"pod-ready.stage.kwok.x-k8s.io/delay": "2s"}
    api_server.api.create(pods, gpu_pod("slow", 1, annotations=annotations))
    wait_until("Ready", lambda: ready(api_server.api, f"{pods}/slow"))
    assert time.monotonic() - started >= 2


def make_deployment(api: Api, namespace: str, replicas: int) -> None:
    labels = {"app": "web"}
    container = {"name": "web", "image": "localhost/none"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "nodeSelector": {"accelerator": "test"}},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    api.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", {"metadata": {"name": "web"}, "spec": spec})


def test_an_owners_end_is_its_childrens_end(api_server: Cluster, namespace: str, nodes: list[str]):
    make_deployment(api_server.api, namespace, replicas=2)
    pods = PODS.format(namespace)
    wait_until("two pods", lambda: len(api_server.api.get(pods)["items"]) == 2)
    api_server.api.delete(f"/apis/apps/v1/namespaces/{namespace}/deployments/web")
    wait_until("no pods", lambda: not api_server.api.get(pods)["items"])
