"""`python -m testcluster.nodeinit FOLDER`: the first process of the node's namespaces.

It sets them up, starts the control plane and the node's servers, then only reaps orphans.
"""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from testcluster.binaries import Binaries
from testcluster.controlplane import ControlPlane
from testcluster.fetching import answers
from testcluster.node import MACHINE_IP, NODE_IP, NODE_NAME, PAUSE_IMAGE, POD_CIDR
from testcluster.paths import ROOT, cache_home
from testcluster.processes import wait_until
from testcluster.teardown import CGROUPS, NODE_CGROUP

# The kubelet writes these into the machine's kernel where they differ: it gets private copies that already say
# what it wants.
SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
COVERED = ("var", "run")
"""Top folders that the node gets of its own: /var/lib/kubelet, /var/log/pods, /run/containerd and so on."""
SOCKET = "/run/containerd/containerd.sock"


def main() -> None:
    """Start all, tell by the file `ready`, reap for ever."""
    folder = Path(sys.argv[1])
    set_up_namespaces(folder)
    start(folder)
    (folder / "ready").touch()
    reap()


def reap() -> None:
    """Wait for children that end: the first process of a namespace inherits all orphans."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


def set_up_namespaces(folder: Path) -> None:
    """Mounts, cgroups and addresses. `unshare` has made the mounts private: none reaches the machine."""
    _run("mount", "--make-rshared", "/")  # a pod may ask for mounts that propagate within the node
    cover(folder)
    for name, value in SYSCTLS.items():
        copy = folder / name.replace("/", ".")
        copy.write_text(f"{value}\n")
        _run("mount", "--bind", str(copy), f"/proc/sys/{name}")
    make_cgroups()
    wait_until("the veth", lambda: "eth0:" in Path("/proc/net/dev").read_text())
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "addr", "add", f"{NODE_IP}/30", "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    # A ClusterIP needs some route before it is translated, for the API server's webhooks too.
    _run("ip", "route", "add", "default", "via", MACHINE_IP)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def cover(folder: Path) -> None:
    """Put folders of the node's own over /var and /run; what this very run needs from below them stays seen."""
    for sub in ("lib", "log", "cache", "tmp"):
        (folder / "var" / sub).mkdir(parents=True, exist_ok=True)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "var" / "run").symlink_to("/run")
    needed = {folder, ROOT, cache_home(), Path(sys.prefix), Path(sys.base_prefix)}
    for top in COVERED:
        for path in sorted(p for p in needed if p.is_relative_to(f"/{top}") and p.exists()):
            seen = folder / path.relative_to("/")
            seen.mkdir(parents=True, exist_ok=True)
            _run("mount", "--bind", str(path), str(seen))
        _run("mount", "--rbind", str(folder / top), f"/{top}")


def make_cgroups() -> None:
    """The folder below which pods are accounted: one in each hierarchy of cgroup v1, or one of v2."""
    controllers = CGROUPS / "cgroup.controllers"
    if controllers.exists():
        (CGROUPS / NODE_CGROUP).mkdir(exist_ok=True)
        wanted = {"cpu", "cpuset", "memory", "pids"} & set(controllers.read_text().split())
        for folder in (CGROUPS, CGROUPS / NODE_CGROUP):
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
        return
    for top in (d for d in CGROUPS.iterdir() if d.is_dir() and d.name != "unified"):
        (top / NODE_CGROUP).mkdir(exist_ok=True)
    # All pods together would count as much as one process of this machine: on a busy one a model loads for minutes.
    for shares in CGROUPS.glob(f"*/{NODE_CGROUP}/cpu.shares"):
        shares.write_text("4096")


def start(folder: Path) -> None:
    """Start the servers in the order in which they need each other."""
    binaries = Binaries(tuple(map(Path, os.environ["TRIMTAB_NODE_BIN"].split(os.pathsep))))
    plane = ControlPlane(folder, binaries, NODE_IP, record="inside.json")
    plane.start()
    processes = plane.processes
    config = folder / "containerd.toml"
    config.write_text(containerd_config(folder))
    _write(folder / "cni" / "10-pods.conflist", cni_config())
    processes.start("containerd", [binaries.path("containerd"), "--config", config], urgent=True)
    processes.wait_ready("containerd", Path(SOCKET).exists)
    start_kubelet(plane)
    start_proxy(plane)
    start_dns(plane)
    urls = {"kubelet": "10248/healthz", "kube-proxy": "10256/healthz", "coredns": "8181/ready"}
    for name, url in urls.items():
        processes.wait_ready(name, partial(answers, f"http://127.0.0.1:{url}"))


def start_kubelet(plane: ControlPlane) -> None:
    """The kubelet, as the node's own user."""
    kubeconfig = plane.client_kubeconfig("kubelet", f"system:node:{NODE_NAME}", ("system:nodes",))
    config = _write(plane.folder / "kubelet.json", kubelet_config(plane.pki["ca.crt"]))
    argv = [f"--config={config}", f"--kubeconfig={kubeconfig}", f"--hostname-override={NODE_NAME}"]
    plane.processes.start("kubelet", [plane.binaries.path("kubelet"), *argv, f"--node-ip={NODE_IP}"], urgent=True)


def start_proxy(plane: ControlPlane) -> None:
    """kube-proxy in nftables mode."""
    kubeconfig = plane.client_kubeconfig("kube-proxy", "system:kube-proxy")
    config = _write(plane.folder / "kube-proxy.json", proxy_config(kubeconfig))
    plane.processes.start("kube-proxy", [plane.binaries.path("kube-proxy"), f"--config={config}"])


def start_dns(plane: ControlPlane) -> None:
    """CoreDNS on the node's address, as a process."""
    kubeconfig = plane.client_kubeconfig("dns", "trimtab-test-dns", ("system:masters",))
    config = plane.folder / "Corefile"
    config.write_text(corefile(kubeconfig))
    plane.processes.start("coredns", [plane.binaries.path("coredns"), "-conf", config])


def cni_config() -> dict[str, Any]:
    """Routed veths, no bridge: service traffic between two pods then always passes the firewall rules."""
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}


def containerd_config(folder: Path) -> str:
    """containerd with CRI, and without the plugins that would make folders elsewhere."""
    return f"""version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true  # lowering it needs CAP_SYS_RESOURCE
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{folder}/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def kubelet_config(authority: str) -> dict[str, Any]:
    """A kubelet that needs no systemd, no swap rules, no free disk and no CAP_SYS_RESOURCE."""
    never = {f"{what}.available": "0%" for what in ("memory", "nodefs", "imagefs")} | {"nodefs.inodesFree": "0%"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": "cluster.local",
        "clusterDNS": [NODE_IP],
        "resolvConf": "",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NODE_CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "evictionHard": never,
        "imageGCHighThresholdPercent": 100,  # an image thrown away could not be pulled again
        "syncFrequency": "5s",  # how soon a changed ConfigMap is in its volume; the default is a minute
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }


def proxy_config(kubeconfig: Path) -> dict[str, Any]:
    """kube-proxy; connection tracking's limits cannot be set from a network namespace of one's own."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": NODE_NAME,
        "clusterCIDR": POD_CIDR,
        "bindAddress": NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def corefile(kubeconfig: Path) -> str:
    """Names of this cluster alone, fresh within a second."""
    return f""".:53 {{
  bind {NODE_IP}
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    ttl 1
  }}
}}
"""


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    return path


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
