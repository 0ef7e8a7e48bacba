"""The operator as a least-privilege user of a real API server: children, conditions, ownership, rest and the end."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.manifests import H100, kwok_pool, policy_manifest, tier
from support.operatorprocess import OperatorProcess, grant, revoke
from testcluster.cluster import Cluster, is_true
from testcluster.processes import wait_until
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

USER = "operator-on-a-server"
NOWHERE = {"url": "http://127.0.0.1:1"}


@pytest.fixture(scope="module")
def cluster(api_server: Cluster) -> Iterator[Cluster]:
    api_server.install_crds(definitions().values())
    nodes = api_server.fake_nodes(2, prefix="operator", gpus=8)
    yield api_server
    for node in nodes:
        api_server.remove_node(node)


@pytest.fixture(scope="module")
def kubeconfig(cluster: Cluster) -> Iterator[Path]:
    yield grant(cluster, USER)
    revoke(cluster, USER)


@pytest.fixture(scope="module")
def operator(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    log = tmp_path_factory.mktemp("operator") / "log"
    with OperatorProcess(kubeconfig, log, "first", {"POD_NAMESPACE": USER}) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster, operator: OperatorProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:50].rstrip("-")
    yield cluster.namespace(name)
    for plural in ("routingpolicies", "inferencepools"):
        cluster.kubectl("delete", f"{plural}.trimtab.dev", "--all", "-n", name, "--timeout=300s")
    cluster.remove_namespace(name, wait=False)


def policy(namespace: str, **changes: Any) -> dict[str, Any]:
    return policy_manifest(metadata__namespace=namespace, **changes)


class Look:
    """What is there in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def get(self, kind: str, name: str) -> Any:
        return self.cluster.get(kind, name, "-n", self.namespace)

    def deployment(self, pool: str = "low") -> Any:
        """The Deployment of the pool's present revision."""
        return self.get("deploy", self.get("tpool", pool)["status"]["revision"])

    def ready(self, kind: str, name: str) -> bool:
        return is_true(self.get(kind, name), "Ready")

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == condition), {})

    def reason(self, kind: str, name: str, condition: str = "Ready") -> str:
        return str(self.condition(kind, name, condition).get("reason", ""))

    def wait_reason(self, kind: str, name: str, reason: str, condition: str = "Ready") -> str:
        wait_until(f"{name}: {reason}", lambda: self.reason(kind, name, condition) == reason)
        return str(self.condition(kind, name, condition)["message"])

    def patch(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        body = json.dumps({"spec": spec})
        self.cluster.kubectl("patch", kind, name, "-n", self.namespace, "--type=merge", "-p", body)

    def children(self) -> list[str]:
        lines = self.cluster.kubectl(
            *("get", "deploy,svc,cm,pdb,pods", "-n", self.namespace, "-o", "name"),
            *("-l", "app.kubernetes.io/managed-by=trimtab"),
        )
        return sorted(lines.split())


@pytest.fixture
def look(cluster: Cluster, namespace: str) -> Look:
    return Look(cluster, namespace)


def test_a_pool_becomes_ready_and_its_children_are_ours(cluster: Cluster, look: Look, namespace: str):
    cluster.apply([kwok_pool(namespace=namespace, spec__replicas=2)])
    cluster.kubectl("wait", "tpool/low", "-n", namespace, "--for=condition=Ready", "--timeout=300s")
    live = look.get("tpool", "low")
    for kind in ("deploy", "svc", "pdb"):
        child = look.deployment() if kind == "deploy" else look.get(kind, "low-engine")
        (reference,) = child["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (live["metadata"]["uid"], True)
    fields = cluster.get("deploy", look.deployment()["metadata"]["name"], "-n", namespace, "--show-managed-fields")[
        "metadata"
    ]["managedFields"]
    managers = {f["manager"]: f["fieldsV1"] for f in fields if f["operation"] == "Apply"}
    assert {"trimtab", "trimtab-replicas"} <= set(managers) <= {"trimtab", "trimtab-replicas", "trimtab-rollout"}
    assert managers["trimtab-replicas"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in managers["trimtab"]["f:spec"]
    assert (live["status"]["replicas"], live["status"]["readyReplicas"], live["status"]["gpus"]) == (2, 2, 2)
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"] == 1
    assert live["metadata"]["finalizers"] == ["trimtab.dev/operator"]
    own = [key for key in live["metadata"].get("annotations", {}) if "kubectl" not in key]
    assert own == [], "nothing but the user's in its metadata"


def test_an_edit_reaches_the_pods_and_scale_moves_replicas(cluster: Cluster, look: Look, namespace: str):
    cluster.apply([kwok_pool(namespace=namespace)])
    wait_until("Ready", lambda: look.ready("tpool", "low"))
    look.patch("tpool", "low", {"recipe": {"preset": "throughput"}})

    def flags() -> str:
        return " ".join(look.deployment()["spec"]["template"]["spec"]["containers"][0]["command"])

    wait_until("the new flags", lambda: "--performance-mode throughput" in flags())
    wait_until("the roll-out", lambda: look.condition("tpool", "low", "RolledOut")["status"] == "True")
    wait_until("Ready", lambda: look.ready("tpool", "low"))
    assert look.deployment()["spec"]["replicas"] == 1
    cluster.kubectl("scale", "tpool/low", "-n", namespace, "--replicas=3")
    wait_until("three replicas", lambda: look.get("tpool", "low").get("status", {}).get("readyReplicas") == 3)
    cluster.kubectl("scale", "tpool/low", "-n", namespace, "--replicas=0")
    look.wait_reason("tpool", "low", "ScaledToZero")


def test_what_is_not_ours_is_not_adopted(cluster: Cluster, look: Look, namespace: str):
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "low-engine", "namespace": namespace},
        "spec": {"ports": [{"port": 1}]},
    }
    cluster.apply([theirs])
    before = look.get("svc", "low-engine")
    cluster.apply([kwok_pool(namespace=namespace)])
    assert look.wait_reason("tpool", "low", "NotOurs") == (
        "Service low-engine exists and belongs to somebody else; delete or rename it"
    )
    assert look.get("svc", "low-engine") == before
    cluster.kubectl("delete", "svc", "low-engine", "-n", namespace)
    look.patch("tpool", "low", {"slo": {"timeToFirstTokenMilliseconds": 4000}})
    wait_until("Ready", lambda: look.ready("tpool", "low"))


def test_a_refused_recipe_says_field_value_and_fix(cluster: Cluster, look: Look, namespace: str):
    cluster.apply([kwok_pool(namespace=namespace, spec__engine={"args": ["--max-num-seqs=4"]})])
    message = look.wait_reason("tpool", "low", "RecipeRefused", "RecipeValid")
    assert message == (
        "engine.args --max-num-seqs=4 sets --max-num-seqs, which the recipe owns; "
        "remove it and use recipe.batching.maxSequences"
    )
    assert look.condition("tpool", "low", "Stalled")["status"] == "True"
    assert look.children() == []
    events = cluster.get("events", "-n", namespace)["items"]
    told = [e for e in events if e["involvedObject"]["name"] == "low" and e["reason"] == "RecipeRefused"]
    assert {e["message"] for e in told} == {message}
    look.patch("tpool", "low", {"engine": {"args": []}})
    wait_until("Ready", lambda: look.ready("tpool", "low"))


def test_a_field_that_the_server_refuses_is_shown_in_its_words(cluster: Cluster, look: Look, namespace: str):
    cluster.apply([kwok_pool(namespace=namespace, spec__engine={"pod": {"volumes": [{"name": "x", "emptyDirr": {}}]}})])
    message = look.wait_reason("tpool", "low", "ApplyRejected")
    assert message.startswith("the API server refused Deployment low-engine-")
    assert "emptyDirr" in message


def test_a_policy_serves_and_its_disruption_budget_comes_and_goes(cluster: Cluster, look: Look, namespace: str):
    routers = {"replicas": 2}
    rebalance = {"prometheus": NOWHERE}
    tenants = [{"name": "acme", "apiKeys": {"secretRef": {"name": "not-there"}}}]
    cluster.apply(
        [
            kwok_pool("low", namespace=namespace),
            kwok_pool("high", namespace=namespace),
            policy(namespace, spec__router=routers, spec__rebalance=rebalance, spec__tenants=tenants),
        ]
    )
    cluster.kubectl("wait", "tpolicy/chat", "-n", namespace, "--for=condition=Ready", "--timeout=300s")
    template = look.get("deploy", "chat-router")["spec"]["template"]["spec"]
    assert [v["secret"] for v in template["volumes"] if "secret" in v] == [
        {"secretName": "not-there", "optional": True, "defaultMode": 0o440}
    ]
    assert "http://127.0.0.1:1" in look.wait_reason("tpolicy", "chat", "DemandUnknown", "MetricsAvailable")
    document = json.loads(look.get("cm", "chat-router")["data"]["router.json"])
    assert [p["host"] for p in document["pools"]] == [f"low-engine.{namespace}.svc", f"high-engine.{namespace}.svc"]
    assert "poddisruptionbudget.policy/chat-router" in look.children()
    look.patch("tpolicy", "chat", {"router": {"replicas": 1}})
    wait_until("no budget", lambda: "poddisruptionbudget.policy/chat-router" not in look.children())
    look.patch("tpolicy", "chat", {"tiers": [tier("low"), tier("high", pool="nobody")]})
    assert look.wait_reason("tpolicy", "chat", "SpecInvalid") == (
        f"tiers[1].poolRef.name nobody is not an InferencePool of namespace {namespace}; create it or correct the name"
    )
    assert json.loads(look.get("cm", "chat-router")["data"]["router.json"]) == document, "the last good one"


def test_pools_of_a_policy_start_within_its_gpu_budget(cluster: Cluster, look: Look, namespace: str):
    bounds = {"minReplicas": 1, "maxReplicas": 6}
    rebalance = {
        "mode": "Apply",
        "gpuBudget": [{"accelerator": H100, "gpus": 4}],
        "prometheus": NOWHERE,
        "intervalSeconds": 1,
    }
    cluster.apply([policy(namespace, spec__rebalance=rebalance)])
    cluster.apply(
        [
            kwok_pool("low", namespace=namespace, spec__replicas=3, spec__scaling=bounds),
            kwok_pool("high", namespace=namespace, spec__replicas=3, spec__scaling=bounds),
        ]
    )
    most = 0

    def started() -> bool:
        nonlocal most
        pods = cluster.get("pods", "-n", namespace, "-l", "app.kubernetes.io/component=engine")["items"]
        most = max(most, len(pods))
        gpus = look.get("tpolicy", "chat").get("status", {}).get("gpus")
        return gpus == [{"accelerator": H100, "budget": 4, "held": 4}]

    wait_until("the budget is used", started)
    wait_until("both ready", lambda: all(look.ready("tpool", name) for name in ("low", "high")))
    assert most <= 4
    look.patch("tpolicy", "chat", {"rebalance": {**rebalance, "gpuBudget": [{"accelerator": H100, "gpus": 1}]}})
    message = look.wait_reason("tpolicy", "chat", "BudgetTooSmall")
    assert message.startswith(f"spec.rebalance.gpuBudget[{H100}].gpus 1 is below the 2 GPUs")


def test_nothing_is_left_when_everything_is_deleted(cluster: Cluster, look: Look, namespace: str):
    cluster.apply([kwok_pool("low", namespace=namespace), kwok_pool("high", namespace=namespace), policy(namespace)])
    wait_until("Ready", lambda: look.ready("tpool", "low") and look.ready("tpolicy", "chat"))
    started = time.monotonic()
    cluster.kubectl("delete", "tpool,tpolicy", "--all", "-n", namespace, "--timeout=300s")
    assert time.monotonic() - started < 25, "the finalizer does not hold a deletion up"
    wait_until("no children", lambda: look.children() == [])


def test_at_rest_nothing_is_written_and_the_role_is_enough(
    cluster: Cluster, look: Look, namespace: str, operator: OperatorProcess
):
    if cluster.audit_log is None:
        pytest.skip("another cluster's audit log is not at hand")
    rebalance = {"prometheus": NOWHERE, "intervalSeconds": 1}
    cluster.apply(
        [
            kwok_pool("low", namespace=namespace),
            kwok_pool("high", namespace=namespace),
            policy(namespace, spec__rebalance=rebalance),
        ]
    )
    names = (("tpool", "low"), ("tpool", "high"), ("tpolicy", "chat"))
    wait_until("Ready", lambda: all(look.ready(*name) for name in names))
    wait_until("the last tick saw them ready", lambda: _ready_replicas(look) == [1, 1])
    before = len(_writes(cluster))
    time.sleep(25)
    assert _writes(cluster)[before:] == []
    refused = [e for e in cluster.audit_events(user=USER) if e["responseStatus"]["code"] == 403]
    assert [(e["verb"], e["requestURI"]) for e in refused] == []
    assert all(look.get(*name)["metadata"]["generation"] == 1 for name in names), "no spec was written"
    assert operator.get("/healthz")[0] == 200


def _writes(cluster: Cluster) -> list[tuple[str, str]]:
    """Writes of the operator so far, renewals of its lease left out."""
    events = cluster.audit_events(user=USER, verbs=("create", "update", "patch", "delete"))
    return [(e["verb"], e["requestURI"]) for e in events if e["objectRef"]["resource"] != "leases"]


def _ready_replicas(look: Look) -> list[int]:
    tiers = look.get("tpolicy", "chat").get("status", {}).get("tiers", [])
    return [t["replicas"]["ready"] for t in tiers]
