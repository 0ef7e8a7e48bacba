"""A real Kubernetes control plane on one address: no container engine, no node, no root.

etcd, kube-apiserver (Node and RBAC authorizers, default admission, audit log), kube-controller-manager,
kube-scheduler, and kwok, which plays the nodes labelled `type=kwok` and their pods.
"""

import json
import random
import socket
from functools import partial
from pathlib import Path

from testcluster.api import Api, certificate_user, write_kubeconfig
from testcluster.binaries import Binaries
from testcluster.build import KWOK_STAGES
from testcluster.errors import StartError
from testcluster.pki import Pki
from testcluster.processes import RECORD, Processes

SERVICE_CIDR, FIRST_SERVICE_IP = "10.96.0.0/16", "10.96.0.1"
ADMIN = "admin"
# Below the range that the kernel gives to outgoing connections (32768 and up): nobody takes one by chance.
PORTS = range(20000, 32000)
START_ATTEMPTS = 2
SYSTEM_USERS = (
    "system:apiserver",
    "system:kube-scheduler",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "trimtab-test-kwok",
    "trimtab-test-dns",
)


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on. Another run may pick the same a moment later: see `ControlPlane.start`."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise StartError(f"no {count} free ports on {address} in {PORTS.start}-{PORTS.stop - 1}")


def accepts(port: int) -> bool:
    """Whether something listens on the loopback port; OSError while nothing does."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def audit_policy() -> dict[str, object]:
    """What the audit log holds: every user's requests, the bodies of those writes that tests argue about.

    Components of Kubernetes itself are left out, so what is in the log is what the operator and users did.
    """
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": list(SYSTEM_USERS)},
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {
                "level": "RequestResponse",
                "verbs": ["create", "update", "patch", "delete"],
                "resources": [{"group": "apps"}, {"group": "trimtab.dev"}],
            },
            {"level": "Metadata"},
        ],
    }


class ControlPlane:
    """One control plane with all its state in one folder."""

    def __init__(self, folder: Path, binaries: Binaries, host: str = "127.0.0.1", record: str = RECORD) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binaries = binaries
        self.host = host
        self.processes = Processes(self.folder, record)
        self.audit_log = self.folder / "audit.log"

    @property
    def pki(self) -> Pki:
        """The control plane's certificates."""
        return Pki(self.folder / "pki")

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.host}:{self._ports['apiserver']}"

    @property
    def admin_kubeconfig(self) -> Path:
        """The kubeconfig of a member of system:masters."""
        return self.folder / f"{ADMIN}.kubeconfig"

    def start(self) -> None:
        """Start all components and wait until pods can be made; StartError with a log's end otherwise."""
        for attempt in range(START_ATTEMPTS):
            try:
                self._start()
            except StartError as error:
                self.processes.stop_all()
                if attempt + 1 == START_ATTEMPTS or "address already in use" not in str(error):
                    raise
            except BaseException:
                self.processes.stop_all()
                raise
            else:
                return

    def stop(self) -> None:
        """End all components."""
        self.processes.stop_all()

    def client_kubeconfig(self, name: str, user: str, groups: tuple[str, ...] = ()) -> Path:
        """A kubeconfig with a certificate of this cluster's CA."""
        pki = self.pki
        pki.issue_client(name, user, groups)
        files = (Path(pki[f"{name}.crt"]), Path(pki[f"{name}.key"]))
        entry = certificate_user(*(f.read_bytes() for f in files))
        authority = Path(pki["ca.crt"]).read_bytes()
        path = self.folder / f"{name}.kubeconfig"
        return write_kubeconfig(path, server=self.server, authority=authority, user=entry)

    def _start(self) -> None:
        names = ("etcd", "etcd-peer", "apiserver", "controller-manager", "scheduler", "kwok")
        self._ports = dict(zip(names, free_ports(len(names), self.host), strict=True))
        self._issue_certificates()
        (self.folder / "audit-policy.json").write_text(json.dumps(audit_policy()))
        self.processes.start("etcd", self._etcd(), urgent=True)
        self.processes.start("kube-apiserver", self._apiserver(), urgent=True)
        self.client_kubeconfig(ADMIN, ADMIN, ("system:masters",))
        api = Api.from_kubeconfig(self.admin_kubeconfig)
        self.processes.wait_ready("kube-apiserver", lambda: api.get("/readyz") == "ok")
        self.processes.start("kube-controller-manager", self._controller_manager(), urgent=True)
        self.processes.start("kube-scheduler", self._scheduler(), urgent=True)
        self.processes.start("kwok", self._kwok())
        # Pods are refused until the service account controller has made this one.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.processes.wait_ready("kube-controller-manager", lambda: api.get(account))
        for name, port in (("kube-scheduler", "scheduler"), ("kwok", "kwok")):
            self.processes.wait_ready(name, partial(accepts, self._ports[port]))

    def _issue_certificates(self) -> None:
        names = [f"IP:{ip}" for ip in dict.fromkeys((self.host, "127.0.0.1", FIRST_SERVICE_IP))]
        names += [f"DNS:{n}" for n in ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")]
        self.pki.issue_server("apiserver", names)
        self.pki.issue_client("kubelet-client", "kubelet-client", ("system:masters",))
        self.pki.issue_client("front-proxy", "front-proxy")

    def _etcd(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{self._ports[n]}" for n in ("etcd", "etcd-peer"))
        return [
            str(self.binaries.path("etcd")),
            f"--data-dir={self.folder / f'etcd-{client[-5:]}'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ]

    def _apiserver(self) -> list[str]:
        pki = self.pki
        # A Service's endpoint may not be a loopback address: the server would try for ever to publish one.
        endpoint = ["--endpoint-reconciler-type=none"] if self.host.startswith("127.") else []
        return [
            str(self.binaries.path("kube-apiserver")),
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            f"--bind-address={self.host}",
            f"--secure-port={self._ports['apiserver']}",
            f"--advertise-address={self.host}",
            *endpoint,
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--profiling=false",
            f"--tls-cert-file={pki['apiserver.crt']}",
            f"--tls-private-key-file={pki['apiserver.key']}",
            f"--client-ca-file={pki['ca.crt']}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki['sa.pub']}",
            f"--service-account-signing-key-file={pki['sa.key']}",
            # How it asks a kubelet for logs, exec and port-forward.
            f"--kubelet-client-certificate={pki['kubelet-client.crt']}",
            f"--kubelet-client-key={pki['kubelet-client.key']}",
            "--kubelet-preferred-address-types=InternalIP",
            *self._aggregation(),
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self.audit_log}",
            # Else it is rotated at 100 MB, and who counts requests would miss those before.
            "--audit-log-maxsize=10000",
        ]

    def _aggregation(self) -> list[str]:
        pki = self.pki
        return [
            f"--requestheader-client-ca-file={pki['ca.crt']}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki['front-proxy.crt']}",
            f"--proxy-client-key-file={pki['front-proxy.key']}",
        ]

    def _controller_manager(self) -> list[str]:
        pki = self.pki
        kubeconfig = self.client_kubeconfig("controller-manager", "system:kube-controller-manager")
        return [
            str(self.binaries.path("kube-controller-manager")),
            f"--kubeconfig={kubeconfig}",
            f"--secure-port={self._ports['controller-manager']}",
            f"--service-account-private-key-file={pki['sa.key']}",
            f"--root-ca-file={pki['ca.crt']}",
            f"--cluster-signing-cert-file={pki['ca.crt']}",
            f"--cluster-signing-key-file={pki['ca.key']}",
            "--use-service-account-credentials=true",
            # Its default would be made below /usr/libexec.
            f"--flex-volume-plugin-dir={self.folder / 'flex'}",
            *self._client_flags(),
        ]

    def _scheduler(self) -> list[str]:
        kubeconfig = self.client_kubeconfig("scheduler", "system:kube-scheduler")
        return [
            str(self.binaries.path("kube-scheduler")),
            f"--kubeconfig={kubeconfig}",
            f"--secure-port={self._ports['scheduler']}",
            *self._client_flags(),
        ]

    def _client_flags(self) -> list[str]:
        # The default rate limits (20 to 50 requests a second) are what a thousand objects would wait for.
        limits = ["--kube-api-qps=500", "--kube-api-burst=1000"]
        return ["--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false", *limits]

    def _kwok(self) -> list[str]:
        kubeconfig = self.client_kubeconfig("kwok", "trimtab-test-kwok", ("system:masters",))
        return [
            str(self.binaries.path("kwok")),
            f"--kubeconfig={kubeconfig}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-label-selector=type=kwok",
            "--node-lease-duration-seconds=40",
            "--cidr=10.0.0.1/24",
            "--node-ip=127.0.0.1",
            f"--server-address=127.0.0.1:{self._ports['kwok']}",
            f"--config={self.binaries.path(KWOK_STAGES)}",
        ]
