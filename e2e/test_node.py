"""The story's cluster is a real one: pods run, are found by name, are scraped, and one of them is a real vLLM."""

import json
from typing import Any

import pytest

from testcluster.cluster import GPU
from testcluster.fetching import fetch
from testcluster.processes import wait_until
from testcluster.prometheus import IN_CLUSTER_URL
from testcluster.story import GPUS, StoryCluster
from testcluster.vllm import CPU_FLAGS

NAMESPACE = "node-test"
HARDENED = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
WEB = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"web_answers 1\\n")
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
# A pod is Ready up to a second before kube-proxy has its endpoint.
FETCH = """
import time, urllib.request
for _ in range(20):
    try:
        print(urllib.request.urlopen("{}", timeout=3).read().decode())
        break
    except OSError:
        time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def namespace(cluster: StoryCluster):
    yield cluster.namespace(NAMESPACE)
    cluster.remove_namespace(NAMESPACE, wait=False)


def pod(cluster: StoryCluster, name: str, command: list[str], **more: Any) -> dict[str, Any]:
    spec = more.pop("spec", {})
    container = {
        "name": "main",
        "image": cluster.trimtab_image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": HARDENED,
    }
    whole = {"containers": [container | more], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1} | spec
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole}


def status(cluster: StoryCluster, name: str) -> dict[str, Any]:
    return cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")["status"]


def output(cluster: StoryCluster, name: str) -> str:
    """A finished pod's output."""
    phase = wait_until(
        f"end of {name}",
        lambda: (p := status(cluster, name).get("phase")) in ("Succeeded", "Failed") and p,
    )
    text = cluster.kubectl("-n", NAMESPACE, "logs", name)
    assert phase == "Succeeded", text
    return text


def run_python(cluster: StoryCluster, name: str, code: str) -> str:
    cluster.apply([pod(cluster, name, ["python3", "-c", code])])
    return output(cluster, name)


def test_the_image_of_this_checkout_runs_hardened(cluster: StoryCluster, namespace: str):
    cluster.apply([pod(cluster, "help", ["trimtab", "--help"])])
    assert "explain" in output(cluster, "help")
    code = "import os, trimtab_crds\nprint(os.getuid())\ntry: open('/x', 'w')\nexcept OSError as e: print(e.strerror)"
    assert run_python(cluster, "hardened", code).splitlines() == ["1000", "Read-only file system"]


def test_a_pod_is_found_by_its_services_name_and_scraped(cluster: StoryCluster, namespace: str):
    ports = [{"port": 80, "targetPort": 8000}]
    service = {"selector": {"app": "web"}, "ports": ports}
    cluster.apply(
        [
            pod(
                cluster, "web", ["python3", "-c", WEB], readinessProbe={"tcpSocket": {"port": 8000}, "periodSeconds": 1}
            ),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web", "namespace": namespace},
                "spec": service,
            },
        ]
    )
    cluster.kubectl("-n", namespace, "wait", "pod/web", "--for=condition=Ready", "--timeout=300s")
    assert "web_answers 1" in run_python(cluster, "client", FETCH.format("http://web/"))

    sd = {"role": "pod", "namespaces": {"names": [namespace]}, "selectors": [{"role": "pod", "label": "app=web"}]}
    relabel = [{"source_labels": ["__meta_kubernetes_pod_ip"], "replacement": "$1:8000", "target_label": "__address__"}]
    config = {"job_name": "web", "kubernetes_sd_configs": [sd], "relabel_configs": relabel}
    prometheus = cluster.prometheus([config])
    prometheus.wait_up("web")
    assert prometheus.value("web_answers") == 1
    query = f"{IN_CLUSTER_URL}/api/v1/query?query=web_answers"
    assert '"success"' in run_python(cluster, "asks", FETCH.format(query))


def test_gpus_are_given_away_and_no_more_than_there_are(cluster: StoryCluster, namespace: str):
    sleep = ["python3", "-c", "import time; time.sleep(600)"]
    pinned = {"nodeSelector": {"kubernetes.io/hostname": cluster.node}}
    for name, gpus in (("all-but-one", GPUS - 1), ("two-more", 2)):
        cluster.apply([pod(cluster, name, sleep, resources={"limits": {GPU: str(gpus)}}, spec=pinned)])
        wait_until(f"word on {name}", lambda n=name: status(cluster, n).get("conditions"))
        if name == "all-but-one":
            wait_until("it runs", lambda: status(cluster, "all-but-one").get("phase") == "Running")
    message = wait_until("the reason", lambda: status(cluster, "two-more")["conditions"][0].get("message"))
    assert f"Insufficient {GPU}" in message
    cluster.kubectl("-n", namespace, "delete", "pod", "all-but-one", "two-more", "--wait=false")


def test_a_real_vllm_in_a_pod_obeys_a_thinking_budget(cluster: StoryCluster, namespace: str):
    mount = cluster.vllm()
    command = ["vllm", "serve", mount.model_at, "--port=8000", "--served-model-name=tiny", "--reasoning-parser=qwen3"]
    ready = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 2}
    engine = pod(
        cluster,
        "vllm",
        [*command, *CPU_FLAGS],
        env=mount.env,
        volumeMounts=mount.volume_mounts,
        readinessProbe=ready,
        spec={"volumes": mount.volumes},
    )
    service = {"selector": {"app": "vllm"}, "ports": [{"port": 8000}]}
    metadata = {"name": "engine", "namespace": namespace}  # a Service called vllm would set VLLM_PORT
    cluster.apply([engine, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}])

    def ready_or_ended() -> str | None:
        state = status(cluster, "vllm")
        if state.get("phase") in ("Failed", "Succeeded"):
            return "ended"
        conditions = state.get("conditions", [])
        return "ready" if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions) else None

    outcome = wait_until("vLLM in its pod", ready_or_ended, 400, every_seconds=1)
    assert outcome == "ready", cluster.kubectl("-n", namespace, "logs", "vllm", "--tail=40")
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What is 17 times 23?"}],
        "max_tokens": 64,
        "temperature": 0,
        "thinking_token_budget": 16,
    }
    with cluster.reach(namespace, "engine", 8000) as url:
        answer = wait_until("an answer", lambda: post(f"{url}/v1/chat/completions", body))
    assert 0 < answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 16
    cluster.kubectl("-n", namespace, "delete", "pod", "vllm", "--wait=false")


def post(url: str, body: dict[str, Any]) -> Any:
    return json.loads(fetch(url, data=json.dumps(body).encode(), timeout_seconds=60))
