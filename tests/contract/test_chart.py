"""The chart as Helm sees it: lint, what it renders, what its schema refuses, and what the API server says of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from support import golden
from testcluster.cluster import Cluster

pytestmark = pytest.mark.contract

CHART = Path(__file__).resolve().parents[2] / "charts" / "trimtab"
NAMESPACE = "trimtab-system"


def template(cluster: Cluster, *options: str) -> list[dict[str, Any]]:
    text = cluster.helm("template", "trimtab", CHART, "--namespace", NAMESPACE, "--kube-version", "1.36.0", *options)
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [d for d in documents if d["kind"] == kind]


def test_lint_has_nothing_to_say(api_server: Cluster):
    assert "0 chart(s) failed" in api_server.helm("lint", "--strict", CHART)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("default", [], id="as it comes"),
        pytest.param(
            "namespaces",
            [
                *("--set", "watchNamespaces={team-a,team-b}", "--set", "replicas=2", "--set", "metrics.service=false"),
                *("--set", "image.repository=registry.example/trimtab", "--set", "image.tag=1.2.3"),
                *("--set", "routerImage=registry.example/router:1", "--set", "imagePullSecrets={pull}"),
                *("--set", "serviceAccount.create=false", "--set", "serviceAccount.name=mine"),
                *("--set", "nodeSelector.pool=system", "--set", "podLabels.team=ml", "--set", "podAnnotations.note=x"),
                *("--set-json", 'tolerations=[{"key":"system","operator":"Exists"}]', "--set", "logLevel=DEBUG"),
                *("--set", "fullnameOverride=tt", "--set", "metrics.port=9000", "--set", "resources.limits.memory=1Gi"),
            ],
            id="every value changed",
        ),
    ],
)
def test_it_renders_what_was_accepted(api_server: Cluster, name: str, options: list[str]):
    documents = template(api_server, *options)
    golden.check(f"chart/{name}.yaml", yaml.safe_dump_all(documents, sort_keys=False, width=110))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "replica=2"], "- at '': additional properties 'replica' not allowed"),
        (["--set", "replicas=two"], "- at '/replicas': got string, want integer"),
        (["--set", "replicas=9"], "- at '/replicas': maximum: got 9, want 5"),
        (["--set", "image.tga=1"], "- at '/image': additional properties 'tga' not allowed"),
        (["--set", "image.repository="], "- at '/image/repository': minLength: got 0, want 1"),
        (["--set", "logLevel=info"], "- at '/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        (["--set", "watchNamespaces=a"], "- at '/watchNamespaces': got string, want array"),
        (["--set", "watchNamespaces={a,a}"], "- at '/watchNamespaces': items at 0 and 1 are equal"),
        (["--set", "metrics.port=80"], "- at '/metrics/port': minimum: got 80, want 1,024"),
        (["--set", "metrics.port=8081"], "- at '/metrics/port': 'not' failed"),
        (
            ["--set", "serviceAccount.create=false"],
            "serviceAccount.name is needed when serviceAccount.create is false; set it to an existing ServiceAccount",
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_values_that_make_no_sense_are_refused(api_server: Cluster, options: list[str], message: str):
    done = api_server.run("helm", "template", "trimtab", CHART, *options, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_an_old_cluster_is_refused(api_server: Cluster):
    done = api_server.run("helm", "template", "trimtab", CHART, "--kube-version", "1.29.0", check=False)
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.30.0-0" in done.stderr


def test_no_rule_allows_more_than_one_group_or_everything(api_server: Cluster):
    documents = template(api_server, "--set", "watchNamespaces={a}") + template(api_server)
    rules = [rule for kind in ("Role", "ClusterRole") for d in of_kind(documents, kind) for rule in d["rules"]]
    assert rules
    for rule in rules:
        assert len(rule["apiGroups"]) == 1
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not set(rule["resources"]) & {"secrets", "roles", "clusterroles", "nodes", "namespaces", "pods/exec"}


def test_with_namespaces_nothing_is_allowed_in_the_whole_cluster(api_server: Cluster):
    documents = template(api_server, "--set", "watchNamespaces={team-a,team-b}")
    assert of_kind(documents, "ClusterRole") == of_kind(documents, "ClusterRoleBinding") == []
    assert [d["metadata"]["namespace"] for d in of_kind(documents, "Role")] == ["team-a", "team-b", NAMESPACE]


def test_the_pod_is_restricted(api_server: Cluster):
    [deployment] = of_kind(template(api_server), "Deployment")
    namespace = api_server.namespace("chart-restricted", {"pod-security.kubernetes.io/enforce": "restricted"})
    spec = deployment["spec"]["template"]["spec"] | {"serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}
    try:
        made = api_server.api.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
        assert made["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    finally:
        api_server.remove_namespace(namespace, wait=False)


def test_the_api_server_takes_all_of_it(api_server: Cluster):
    namespace = api_server.namespace("chart-dry-run")
    try:
        options = ["--namespace", namespace, "--dry-run=server"]
        text = api_server.helm("install", "trimtab", CHART, *options)
    finally:
        api_server.remove_namespace(namespace, wait=False)
    assert f"kubectl -n {namespace} rollout status deployment/trimtab" in text
    assert "looks after all namespaces" in text
    assert "trimtab crds | kubectl apply --server-side -f -" in text
