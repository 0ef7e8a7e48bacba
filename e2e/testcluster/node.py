"""One real node beside the control plane: kubelet, containerd, kube-proxy and CoreDNS, no container engine.

All of it runs in a PID, a mount and a network namespace of its own below one process (`nodeinit`). Ending that
one ends every process, mount, pod and firewall rule. The machine keeps one veth end and two routes, so tests
reach the API server, pods and ClusterIPs directly:

    machine 10.98.0.1 (trimtab0) --veth-- 10.98.0.2 (eth0) node, pods 10.244.0.0/24, services 10.96.0.0/16
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from testcluster.api import Api
from testcluster.binaries import Binaries
from testcluster.controlplane import SERVICE_CIDR
from testcluster.debian import PROGRAM_PATH, ensure_programs
from testcluster.errors import StartError, UnavailableError
from testcluster.images import Image, write_archive
from testcluster.paths import ROOT
from testcluster.processes import Processes, direct_environment, recorded, wait_until
from testcluster.progress import Progress
from testcluster.teardown import (
    NODE_LINK,
    NODE_MARK,
    lock_node,
    open_node_lock,
    remove_node_traces,
)

NODE_NAME = "node-1"
MACHINE_IP, NODE_IP, POD_CIDR = "10.98.0.1", "10.98.0.2", "10.244.0.0/24"
PAUSE_IMAGE = "localhost/pause:1"
PACKAGES = {
    "runc": "runc",
    "nft": "nftables",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}
NO_ROOT = (
    "pods that run need a real node, and that needs root (namespaces, cgroups): run as root, or choose a cluster "
    "with KIND=1 (Docker) or TRIMTAB_TEST_KUBECONFIG"
)


class Node:
    """The node of one state folder. One can run on a machine at a time: its addresses are fixed."""

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binaries = binaries
        self._processes = Processes(self.folder)

    @classmethod
    def running(cls, folder: Path, binaries: Binaries) -> "Node":
        """The node that another process has started in `folder`."""
        if not (folder / NODE_MARK).exists():
            raise UnavailableError(f"no real node in {folder}: `scripts/controlplane up --node` starts one")
        return cls(folder, binaries)

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    def start(self, *, gpus: int = 8, labels: Mapping[str, str] | None = None, progress: Progress) -> None:
        """Start control plane and node and wait until the node is Ready with its GPUs."""
        if os.geteuid() != 0:
            raise UnavailableError(NO_ROOT)
        ensure_programs(PACKAGES, progress)
        lock = open_node_lock()
        try:
            if not lock_node(lock):
                raise UnavailableError("another test node runs on this machine; there can be one at a time")
            remove_node_traces()
            (self.folder / NODE_MARK).write_text("{}")
            self._start_init(lock)
        finally:
            os.close(lock)  # init holds it on
        self._connect()
        self._processes.wait_ready("node", (self.folder / "ready").exists)
        pause = Image.of_program(PAUSE_IMAGE, self.binaries.path("pause"), self.folder / "pause.tar")
        self.import_image(pause)
        self._announce(gpus, labels or {})

    def stop(self) -> None:
        """End the node with all that runs on it."""
        self._processes.stop_all()

    def _start_init(self, lock: int) -> None:
        namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        env = direct_environment() | {
            "PYTHONPATH": str(ROOT / "e2e"),
            "PATH": f"{self.binaries.search_path}:{PROGRAM_PATH}",
            "TRIMTAB_NODE_BIN": self.binaries.search_path,
        }
        argv: list[str | Path] = [
            "unshare",
            *namespaces,
            "--",
            sys.executable,
            "-m",
            "testcluster.nodeinit",
            self.folder,
        ]
        child = self._processes.start("node", argv, env=env, pass_fds=(lock,))
        listed = Path(f"/proc/{child.pid}/task/{child.pid}/children")

        def init() -> int | None:
            if child.poll() is not None:
                raise StartError(f"no namespaces: {(self._processes.log('node')).read_text().strip()}")
            children = listed.read_text().split()
            return int(children[0]) if children else None

        self._processes.record("init", wait_until("the node's first process", init))

    def _connect(self) -> None:
        pid = str(recorded(self.folder)["init"]["pid"])
        _ip("link", "add", NODE_LINK, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _ip("addr", "add", f"{MACHINE_IP}/30", "dev", NODE_LINK)
        _ip("link", "set", NODE_LINK, "up")
        for network in (POD_CIDR, SERVICE_CIDR):
            _ip("route", "add", network, "via", NODE_IP, "dev", NODE_LINK)

    def _announce(self, gpus: int, labels: Mapping[str, str]) -> None:
        api, path = Api.from_kubeconfig(self.kubeconfig), f"/api/v1/nodes/{NODE_NAME}"

        def ready() -> bool:
            conditions = api.get(path)["status"].get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        wait_until("node Ready", ready)
        if labels:
            api.merge(path, {"metadata": {"labels": dict(labels)}})
        if gpus:  # the kubelet keeps a resource that it does not know: no device plugin is needed
            api.merge(f"{path}/status", {"status": {"capacity": {"nvidia.com/gpu": str(gpus)}}})
            wait_until("GPUs", lambda: "nvidia.com/gpu" in api.get(path)["status"]["allocatable"])

    def import_image(self, image: Image) -> None:
        """Give the node an image; pods use it with imagePullPolicy IfNotPresent or Never."""
        archive = self.folder / "image.tar"
        write_archive(image, archive)
        try:
            self.run(["ctr", "-n", "k8s.io", "images", "import", "--local", str(archive)])
        finally:
            archive.unlink()

    def run(self, argv: Sequence[str], timeout_seconds: float = 120) -> str:
        """Run a command where the node runs, and return what it printed; AssertionError where it fails."""
        done = subprocess.run(
            self._entering(argv), capture_output=True, text=True, check=False, timeout=timeout_seconds, env=self._env()
        )
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, name: str, argv: Sequence[str]) -> Processes:
        """Start a server where the node runs; it ends with the node."""
        self._processes.start(name, self._entering(argv), env=self._env())
        return self._processes

    def end(self, name: str) -> None:
        """End a server that `spawn` has started."""
        self._processes.stop(name)

    def execute(self, argv: Sequence[str]) -> NoReturn:
        """Become a command where the node runs."""
        command = self._entering(argv)
        os.execvpe(command[0], command, self._env())

    def _entering(self, argv: Sequence[str]) -> list[str]:
        pid = str(recorded(self.folder)["init"]["pid"])
        return ["nsenter", "-t", pid, "-m", "-n", "-p", "--", *argv]

    def _env(self) -> dict[str, str]:
        return direct_environment() | {"PATH": f"{self.binaries.search_path}:{PROGRAM_PATH}"}


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
