"""The real controller of LeaderWorkerSets beside a cluster, with the admission webhooks that it cannot do without.

As sigs.k8s.io/lws installs it (config/default), but as a process on loopback, whose certificate is ours.
"""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from testcluster.binaries import Binaries
from testcluster.build import LWS_CRD
from testcluster.cluster import Cluster
from testcluster.controlplane import free_ports
from testcluster.pki import Pki
from testcluster.processes import Processes

SETS = "leaderworkersets.leaderworkerset.x-k8s.io"
NAME = "trimtab-test-lws"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_SETS_RULE = {"apiGroups": ["leaderworkerset.x-k8s.io"], "apiVersions": ["v1"], "resources": ["leaderworkersets"]}
_PODS_RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
#: Pods of groups alone.
_PODS = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}
_CHANGES = ["CREATE", "UPDATE"]


def definition(binaries: Binaries) -> dict[str, Any]:
    """The published CustomResourceDefinition."""
    found: dict[str, Any] = yaml.safe_load(binaries.path(LWS_CRD).read_text())
    return found


@contextmanager
def controller(cluster: Cluster, binaries: Binaries, folder: Path) -> Iterator[None]:
    """The controller for as long as it is used; its definition must be served. StartError where it does not start."""
    port, probes = free_ports(2)
    pki = Pki(folder / "certificates")
    pki.issue_server("tls", ["IP:127.0.0.1"])
    config = folder / "config.json"
    config.write_text(json.dumps(_configuration(port, probes, pki.folder)))
    processes = Processes(folder)
    argv = [str(binaries.path("lws")), f"--config={config}", f"--kubeconfig={cluster.kubeconfig}"]
    hooks = webhooks(f"https://127.0.0.1:{port}", Path(pki["ca.crt"]).read_bytes())
    processes.start("lws", argv)
    try:
        processes.wait_ready("lws", lambda: _serves(f"https://127.0.0.1:{port}/validate--v1-pod", pki["ca.crt"]))
        for path, hook in hooks.items():
            cluster.api.apply(path, hook)
        yield
    finally:
        for path in hooks:
            if cluster.api.exists(path):
                cluster.api.delete(path)
        processes.stop("lws")


def _configuration(port: int, probes: int, certificates: Path) -> dict[str, Any]:
    return {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{probes}"},
        "metrics": {"bindAddress": "0"},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
    }


def webhooks(url: str, authority: bytes) -> dict[str, dict[str, Any]]:
    """Path to object: what config/webhook of sigs.k8s.io/lws registers, answered at `url`."""
    sets, pods = "leaderworkerset-x-k8s-io-v1-leaderworkerset", "-v1-pod"

    def hook(name: str, path: str, rule: dict[str, Any], operations: list[str]) -> dict[str, Any]:
        bundle = base64.b64encode(authority).decode()
        return {
            "name": name,
            "clientConfig": {"url": f"{url}/{path}", "caBundle": bundle},
            "rules": [rule | {"operations": operations}],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        } | ({"objectSelector": _PODS} if rule is _PODS_RULE else {})

    mutating = [
        hook("mleaderworkerset.kb.io", f"mutate-{sets}", _SETS_RULE, _CHANGES),
        hook("mpod.kb.io", f"mutate-{pods}", _PODS_RULE, ["CREATE"]),
    ]
    validating = [
        hook("vleaderworkerset.kb.io", f"validate-{sets}", _SETS_RULE, _CHANGES),
        hook("vpod.kb.io", f"validate-{pods}", _PODS_RULE, _CHANGES),
    ]
    return {
        f"{_ADMISSION}/{kind.lower()}s/{NAME}": {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": NAME},
            "webhooks": found,
        }
        for kind, found in (
            ("MutatingWebhookConfiguration", mutating),
            ("ValidatingWebhookConfiguration", validating),
        )
    }


def _serves(url: str, authority: str) -> bool:
    """Whether the last of its webhooks is there: it answers something else than "not found"."""
    context = ssl.create_default_context(cafile=authority)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(urllib.request.Request(url, b"", method="POST"), timeout=10):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code != 404
