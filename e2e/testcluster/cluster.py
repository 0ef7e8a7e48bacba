"""A cluster as tests see it, whoever started it: users, service accounts, CRDs, nodes, kubectl and Helm."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from testcluster.api import Api, certificate_user, current_context, write_kubeconfig
from testcluster.binaries import Binaries
from testcluster.errors import UnavailableError
from testcluster.pki import Pki
from testcluster.processes import PATIENCE_SECONDS, direct_environment, wait_until

GPU = "nvidia.com/gpu"
#: How a client says that its request never left it (kubectl gives a TLS handshake 10 s), whatever it was for.
UNSENT = ("TLS handshake timeout", "connection refused")
#: How it says that no answer came: what changes nothing the second time may be asked again.
UNANSWERED = (
    "client connection lost",
    "i/o timeout",
    "connection reset by peer",
    "unexpected EOF",
    ": EOF",
    "request timed out",
)
REPEATABLE = frozenset({"get", "apply", "wait", "logs", "describe", "rollout", "auth", "explain", "version"})
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Cluster:
    """One cluster with its admin's rights.

    `audit_log` is None where the cluster is not the project's own; `folder` holds the kubeconfigs made here.
    """

    def __init__(self, kubeconfig: Path, *, folder: Path, binaries: Binaries, audit_log: Path | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.binaries = binaries
        self.audit_log = audit_log
        self.api = Api.from_kubeconfig(kubeconfig)

    # -- who asks -----------------------------------------------------------------------------------------

    def user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """The kubeconfig of a user, signed by the cluster itself; RBAC says what the user may do."""
        pki = Pki(self.folder / "users")
        request = base64.b64encode(pki.request(name, name, groups)).decode()
        base = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        path = f"{base}/trimtab-test-{name}"
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": f"trimtab-test-{name}"},
            "spec": {
                "request": request,
                "signerName": "kubernetes.io/kube-apiserver-client",
                "expirationSeconds": 86400,
                "usages": ["client auth"],
            },
        }
        if self.api.exists(path):
            self.api.delete(path)
        created = self.api.create(base, body)
        condition = {"type": "Approved", "status": "True", "reason": "Test", "message": "made by a test"}
        self.api.request("PUT", f"{path}/approval", created | {"status": {"conditions": [condition]}})
        signed = wait_until(f"certificate of {name}", lambda: self.api.get(path)["status"].get("certificate"))
        self.api.delete(path)
        key = Path(pki[f"{name}.key"]).read_bytes()
        return self._kubeconfig(name, certificate_user(base64.b64decode(signed), key))

    def service_account(self, namespace: str, name: str) -> Path:
        """The kubeconfig of an existing service account, by a token of one day."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        token = self.api.create(path, body)["status"]["token"]
        return self._kubeconfig(f"{namespace}.{name}", {"token": token})

    def _kubeconfig(self, name: str, user: Mapping[str, Any]) -> Path:
        cluster, _ = current_context(self.kubeconfig)
        data = cluster.get("certificate-authority-data")
        authority = base64.b64decode(data) if data else Path(cluster["certificate-authority"]).read_bytes()
        path = self.folder / f"{name}.kubeconfig"
        return write_kubeconfig(path, server=cluster["server"], authority=authority, user=user)

    # -- what is there ------------------------------------------------------------------------------------

    def install_crds(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Apply CustomResourceDefinitions and wait until their objects can be listed."""
        definitions = list(definitions)
        for definition in definitions:
            self.api.apply(f"{CRDS}/{definition['metadata']['name']}", definition)
        for path in (p for d in definitions for p in served_paths(d)):
            # A new one answers 404, then for a moment 429 "storage is (re)initializing".
            wait_until(f"{path} served", partial(self.api.get, f"{path}?limit=1"))

    def fake_nodes(
        self,
        count: int,
        *,
        prefix: str = "gpu",
        gpus: int = 8,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        cpu: str = "64",
        memory: str = "512Gi",
    ) -> list[str]:
        """Make nodes that kwok plays: pods on them get as far as Ready, with no process behind them.

        A pod's annotation `pod-ready.stage.kwok.x-k8s.io/delay: 90s` plays a cold start, and
        `pod-delete.stage.kwok.x-k8s.io/delay` a slow end.
        """
        names = [f"{prefix}-{i}" for i in range(count)]
        amount = {"cpu": cpu, "memory": memory, "pods": "110"} | ({GPU: str(gpus)} if gpus else {})
        status = {"status": {"capacity": amount, "allocatable": amount}}
        for name in names:
            self.api.create("/api/v1/nodes", _fake_node(name, labels or {}, taints) | status)
            # A new object's status is not kept by every version: it is written as a kubelet does.
            self.api.merge(f"/api/v1/nodes/{name}/status", status)
        try:
            for name in names:
                wait_until(f"node {name} Ready", partial(self._schedulable, name))
        except TimeoutError as error:
            for name in names:
                self.remove_node(name)
            raise UnavailableError(f"{self.api.server} has no kwok that plays nodes: {error}") from error
        return names

    def _schedulable(self, name: str) -> bool:
        node = self.api.get(f"/api/v1/nodes/{name}")
        keys = {taint["key"] for taint in node["spec"].get("taints", [])}
        # The node controller takes this one off a moment after Ready.
        return is_true(node, "Ready") and "node.kubernetes.io/not-ready" not in keys

    def remove_node(self, name: str) -> None:
        """Delete a node; the pod garbage collector then deletes its pods."""
        self.api.delete(f"/api/v1/nodes/{name}")

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a namespace and wait until pods can be made in it."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_until(f"service account of {name}", lambda: self.api.exists(account))
        return name

    def remove_namespace(self, name: str, *, wait: bool = True, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Delete a namespace and, with `wait`, return when it and all that is in it are gone (5 s at least)."""
        path = f"/api/v1/namespaces/{name}"
        if self.api.exists(path):
            self.api.delete(path)
        if wait:
            wait_until(f"end of namespace {name}", lambda: not self.api.exists(path), timeout_seconds)

    # -- programs -----------------------------------------------------------------------------------------

    def program(self, name: str) -> Path:
        """The path of a program such as kubectl or helm: the test cluster's own, else the one on PATH."""
        found = self.binaries.find(name) or shutil.which(name)
        if not found:
            raise UnavailableError(f"{name} is missing: `scripts/controlplane build` makes it")
        return Path(found)

    def run(
        self,
        program: str,
        *arguments: str | Path,
        stdin: str | None = None,
        check: bool = True,
        timeout_seconds: float = 2 * PATIENCE_SECONDS,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program against this cluster; a failure's error carries what it printed."""
        argv = [str(self.program(program)), *map(str, arguments)]
        helm = {f"HELM_{kind}_HOME": str(self.folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        env = direct_environment() | helm | {"KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_seconds, env=env
        )
        if check and done.returncode != 0:
            command = " ".join([program, *map(str, arguments)])
            raise AssertionError(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, **options: Any) -> str:
        """kubectl's standard output; AssertionError with its messages where it fails."""
        lost = (*UNSENT, *UNANSWERED) if REPEATABLE & set(map(str, arguments)) else UNSENT
        return self._run_reaching(lost, "kubectl", *arguments, stdin=stdin, **options)

    def helm(self, *arguments: str | Path, **options: Any) -> str:
        """helm's standard output; AssertionError with its messages where it fails."""
        return self._run_reaching(("cluster unreachable",), "helm", *arguments, **options)

    def _run_reaching(self, lost: Sequence[str], program: str, *arguments: str | Path, **options: Any) -> str:
        """Run it, again and again where it did not reach the API server: a starved machine answers some time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.run(program, *arguments, **options).stdout
            except AssertionError as error:
                if time.monotonic() > deadline or not any(words in str(error) for words in lost):
                    raise
            time.sleep(1)

    def apply(self, documents: str | Path | Iterable[Mapping[str, Any]], **options: Any) -> str:
        """`kubectl apply` of YAML text, a file or folder, or objects."""
        if isinstance(documents, Path):
            return self.kubectl("apply", "-f", documents, **options)
        if not isinstance(documents, str):
            documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        return self.kubectl("apply", "-f", "-", stdin=documents, **options)

    def get(self, *what: str) -> Any:
        """`kubectl get WHAT -o json`, decoded."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    # -- what happened ------------------------------------------------------------------------------------

    def audit_events(self, *, user: str | None = None, verbs: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The audit log's events so far, of one user and of these verbs where given, in their order.

        A request that ended before it was authenticated has an event without a user name.
        """
        if self.audit_log is None:
            raise UnavailableError("this cluster's audit log is not at hand: the project's own has one")
        wanted = frozenset(verbs)
        events = [_event(line) for line in self.audit_log.read_text().splitlines()]
        return [
            e
            for e in events
            if e and (user is None or e["user"].get("username") == user) and (not wanted or e["verb"] in wanted)
        ]


def _event(line: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:  # the line that is just being written
        return {}
    return event


def is_true(thing: Mapping[str, Any], condition: str) -> bool:
    """Whether an object's status has the condition with status True."""
    conditions = thing.get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def served_paths(definition: Mapping[str, Any]) -> list[str]:
    """The collection paths of a CRD's served versions."""
    spec = definition["spec"]
    served = (version["name"] for version in spec["versions"] if version["served"])
    return [f"/apis/{spec['group']}/{version}/{spec['names']['plural']}" for version in served]


def _fake_node(name: str, labels: Mapping[str, str], taints: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    own = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    metadata = {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": own | dict(labels)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": list(taints)}}
