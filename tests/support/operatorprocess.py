"""The operator as a process of its own, as a user who may do what its role says and nothing else."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from testcluster.cluster import Cluster
from testcluster.processes import PATIENCE_SECONDS, direct_environment, wait_until
from trimtab_crds.manifests import definitions

#: What the operator may do: in all namespaces, and in its own.
RULES: list[dict[str, Any]] = [
    {
        "apiGroups": ["trimtab.dev"],
        "resources": ["inferencepools", "routingpolicies"],
        "verbs": ["get", "list", "watch", "patch"],
    },
    {
        "apiGroups": ["trimtab.dev"],
        "resources": ["inferencepools/status", "routingpolicies/status"],
        "verbs": ["patch"],
    },
    {
        "apiGroups": ["trimtab.dev"],
        "resources": ["inferencepools/finalizers", "routingpolicies/finalizers"],
        "verbs": ["update"],
    },
    {
        "apiGroups": ["", "apps", "policy", "networking.k8s.io"],
        "resources": ["deployments", "services", "configmaps", "poddisruptionbudgets", "networkpolicies"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {
        "apiGroups": ["resource.k8s.io"],
        "resources": ["resourceclaimtemplates"],
        "verbs": ["get", "list", "create", "patch", "delete"],
    },
    {
        "apiGroups": ["leaderworkerset.x-k8s.io"],
        "resources": ["leaderworkersets"],
        "verbs": ["get", "list", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "list"]},
    {
        "apiGroups": ["autoscaling", "keda.sh"],
        "resources": ["horizontalpodautoscalers", "scaledobjects"],
        "verbs": ["list"],
    },
]
#: Outside of namespaces.
NODE_RULES: list[dict[str, Any]] = [
    {
        "apiGroups": ["karpenter.sh", "cloud.google.com"],
        "resources": ["nodepools", "computeclasses"],
        "verbs": ["get", "list", "create", "patch", "delete"],
    },
]
LEASE_RULES: list[dict[str, Any]] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
]


def grant(cluster: Cluster, account: str, *, everywhere: bool = True) -> Path:
    """Make the user `account` with its roles and a namespace of its name; returns the user's kubeconfig.

    Without `everywhere` it may work in that namespace alone.
    """
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    subject = {"kind": "User", "name": account, "apiGroup": "rbac.authorization.k8s.io"}
    api = cluster.api
    cluster.namespace(account)
    own = f"{rbac}/namespaces/{account}"
    wide = [("ClusterRole", rbac, RULES + NODE_RULES), ("Role", own, LEASE_RULES)]
    for kind, path, rules in wide if everywhere else [("Role", own, RULES + LEASE_RULES)]:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": account},
            "rules": rules,
        }
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": account}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": account},
            "roleRef": reference,
            "subjects": [subject],
        }
        api.apply(f"{path}/{kind.lower()}s/{account}", role)
        api.apply(f"{path}/{kind.lower()}bindings/{account}", binding)
    return cluster.user(account)


def forget(cluster: Cluster, namespace: str) -> None:
    """Delete what no operator is there to let go of any more."""
    for plural in ("routingpolicies", "inferencepools"):
        path = f"/apis/trimtab.dev/v1alpha1/namespaces/{namespace}/{plural}"
        for item in cluster.api.get(path)["items"]:
            name = item["metadata"]["name"]
            cluster.api.delete(f"{path}/{name}")
            if cluster.api.exists(f"{path}/{name}"):
                cluster.api.merge(f"{path}/{name}", {"metadata": {"finalizers": None}})


def revoke(cluster: Cluster, account: str) -> None:
    """Take away what `grant` made."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    for path in (f"{rbac}/clusterrolebindings/{account}", f"{rbac}/clusterroles/{account}"):
        if cluster.api.exists(path):
            cluster.api.delete(path)
    cluster.remove_namespace(account, wait=False)


@contextmanager
def account(cluster: Cluster, name: str, *, nodes: int = 0, labels: Mapping[str, str] | None = None) -> Iterator[Path]:
    """The kubeconfig of an operator that may work everywhere, with a namespace of its name and kwok nodes of 8 GPUs."""
    cluster.install_crds(definitions().values())
    made = cluster.fake_nodes(nodes, prefix=name, gpus=8, labels=labels) if nodes else []
    yield grant(cluster, name)
    revoke(cluster, name)
    for node in made:
        cluster.remove_node(node)


class OperatorProcess:
    """One candidate; leaving the block ends it."""

    def __init__(self, kubeconfig: Path, log: Path, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._environment = dict(environment)
        self._kubeconfig = kubeconfig
        self.metrics_port, self.probe_port = _free_ports(2)

    def __enter__(self) -> Self:
        self.start()
        self.await_ready_or_dead()
        assert self.process.poll() is None, self.log.read_text()
        return self

    def start(self) -> None:
        """Begin, and wait for nothing."""
        environment = direct_environment() | {
            "KUBECONFIG": str(self._kubeconfig),
            "POD_NAME": self.name,
            "TRIMTAB_ROUTER_IMAGE": "localhost/trimtab:test",
            "TRIMTAB_LISTEN_ADDRESS": "127.0.0.1",
            "TRIMTAB_METRICS_PORT": str(self.metrics_port),
            "TRIMTAB_PROBE_PORT": str(self.probe_port),
        }
        argv = [sys.executable, "-m", "trimtab_operator"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=environment | self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def await_ready_or_dead(self) -> None:
        """Return when it stands by, leads, or has ended."""
        wait_until(f"{self.name} ready", self._ready_or_dead)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End it as Kubernetes does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(timeout=PATIENCE_SECONDS)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a probe or of /metrics."""
        port = self.metrics_port if path == "/metrics" else self.probe_port
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def leads(self) -> bool:
        """Whether it holds the lease."""
        return "trimtab_operator_leader 1.0" in self.get("/metrics")[1]

    def _ready_or_dead(self) -> bool:
        return self.process.poll() is not None or self.get("/readyz")[0] == 200


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
