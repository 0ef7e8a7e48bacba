"""The cluster on which the story runs: real pods, images of this checkout, GPUs to schedule, Prometheus.

Three kinds behind one face: the project's own node, kind (KIND=1), any cluster (TRIMTAB_TEST_KUBECONFIG).
"""

import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from testcluster import provide, vllm
from testcluster.binaries import Binaries
from testcluster.build import NODE
from testcluster.checkout import checkout_image
from testcluster.cluster import GPU, Cluster
from testcluster.commands import run_logged
from testcluster.controlplane import accepts, free_ports
from testcluster.errors import UnavailableError
from testcluster.images import Image, pack, write_archive
from testcluster.node import NO_ROOT, NODE_IP, NODE_NAME, Node
from testcluster.paths import ROOT, cache_home
from testcluster.processes import Processes, wait_until
from testcluster.progress import Progress
from testcluster.prometheus import IN_CLUSTER_URL, NAMESPACE, PORT, Prometheus, command, configuration

IMAGE = "localhost/trimtab:test"
EXISTING_IMAGE = "TRIMTAB_TEST_IMAGE"
GPUS = 8
MANIFESTS = ROOT / "e2e" / "kind"
KIND_NAME = "trimtab"
KIND_CACHE = Path("/trimtab-cache")
"""Where kind's node sees this machine's cache folder (kind/config.yaml)."""


class StoryCluster(Cluster, ABC):
    """What a story needs besides a cluster: pods that run, and a way to give them images."""

    node: str
    """The name of a node that runs pods and has `GPUS` GPUs to give away."""
    trimtab_image: str
    """The image of this checkout: operator, router and simulated engine, by their commands."""

    @abstractmethod
    def image(self, name: str, rootfs: Path) -> str:
        """Make a folder an image that pods can use with imagePullPolicy IfNotPresent; returns its name."""

    @abstractmethod
    def prometheus(self, scrape_configs: Sequence[Mapping[str, Any]]) -> Prometheus:
        """Start the cluster's Prometheus with these scrape configs; pods reach it at IN_CLUSTER_URL.

        A second call replaces the first one's.
        """

    @abstractmethod
    def vllm(self) -> vllm.PodMount:
        """How a pod's container becomes a real vLLM with the tiny model."""

    @abstractmethod
    def reach(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """A URL, without a path, by which this process reaches a Service for as long as the context lasts."""


class NodeCluster(StoryCluster):
    """The project's own control plane and node."""

    def __init__(self, node: Node, progress: Progress) -> None:
        super().__init__(
            node.kubeconfig, folder=node.folder, binaries=node.binaries, audit_log=node.folder / "audit.log"
        )
        self.machine = node
        self.node = NODE_NAME
        self.trimtab_image = IMAGE
        self._progress = progress

    def image(self, name: str, rootfs: Path) -> str:
        """Pack and import a folder."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            self.machine.import_image(Image(name, (pack(rootfs, Path(scratch, "layer.tar")),)))
        return name

    def prometheus(self, scrape_configs: Sequence[Mapping[str, Any]]) -> Prometheus:
        """Run it where the node runs, behind a Service without a selector."""
        folder = self.folder / "prometheus"
        if folder.exists():
            self.machine.end("prometheus")
            shutil.rmtree(folder)
        folder.mkdir()
        config = configuration(scrape_configs, kubeconfig=self.kubeconfig)
        (folder / "prometheus.yml").write_text(json.dumps(config))
        program = provide.prometheus(self._progress)
        processes = self.machine.spawn("prometheus", command(program, folder, f"{NODE_IP}:{PORT}"))
        server = Prometheus.at(f"http://{NODE_IP}:{PORT}")
        processes.wait_ready("prometheus", server.ready)
        self.apply(service_to(NODE_IP))
        return server

    def vllm(self) -> vllm.PodMount:
        """The machine's own folders: the node sees them at their places."""
        return vllm.pod_mount(self._progress)

    @contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """The Service's own address: this machine has a route to it."""
        spec = self.api.get(f"/api/v1/namespaces/{namespace}/services/{service}")["spec"]
        yield f"http://{spec['clusterIP']}:{port}"


def service_to(address: str) -> list[dict[str, Any]]:
    """The namespace and Service by which pods reach a Prometheus that is not a pod."""
    metadata = {"name": "prometheus", "namespace": NAMESPACE}
    labels = {"kubernetes.io/service-name": "prometheus"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": PORT}]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | {"labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": [{"port": PORT}],
        },
    ]


class ForeignCluster(StoryCluster):
    """A cluster of somebody else's: Prometheus is a pod there, and tests reach it through the API server."""

    def __init__(self, kubeconfig: Path, folder: Path, image: str) -> None:
        super().__init__(kubeconfig, folder=folder, binaries=Binaries(()))
        self.trimtab_image = image
        self.node = self._gpu_node()

    def _gpu_node(self) -> str:
        """A node with GPUs; without any, the first schedulable one is made to say that it has some."""
        nodes = self.api.get("/api/v1/nodes")["items"]
        usable = [n for n in nodes if not n["spec"].get("unschedulable") and not n["spec"].get("taints")]
        if not usable:
            raise UnavailableError(f"{self.api.server} has no schedulable node without taints")
        having = [n for n in usable if int(n["status"]["allocatable"].get(GPU, "0")) >= GPUS]
        name: str = (having or usable)[0]["metadata"]["name"]
        if not having:  # the kubelet keeps a resource that it does not know
            path = f"/api/v1/nodes/{name}"
            self.api.merge(f"{path}/status", {"status": {"capacity": {GPU: str(GPUS)}}})
            wait_until("GPUs", lambda: GPU in self.api.get(path)["status"]["allocatable"])
        return name

    def image(self, name: str, rootfs: Path) -> str:
        """Not on a cluster that only its owner can give images."""
        raise UnavailableError(f"{name}: tests cannot give this cluster an image made of {rootfs}")

    def prometheus(self, scrape_configs: Sequence[Mapping[str, Any]]) -> Prometheus:
        """Apply the manifest with these scrape configs; queries go through the API server's proxy."""
        self.apply(MANIFESTS / "prometheus.yaml")
        config = {"prometheus.yml": json.dumps(configuration(scrape_configs))}
        metadata = {"name": "prometheus", "namespace": NAMESPACE}
        self.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config}])
        rollout = ("-n", NAMESPACE, "rollout")
        self.kubectl(*rollout, "restart", "deployment/prometheus")
        self.kubectl(*rollout, "status", "deployment/prometheus", "--timeout=300s")
        proxy = f"/api/v1/namespaces/{NAMESPACE}/services/prometheus:{PORT}/proxy"
        server = Prometheus(IN_CLUSTER_URL, lambda path: self.api.get(proxy + path))
        wait_until("Prometheus", server.ready)
        return server

    @contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """A port forward to one pod behind the Service."""
        (local,) = free_ports(1)
        processes = Processes(self.folder)
        name = f"port-forward-{service}-{local}"
        argv = [str(self.program("kubectl")), f"--kubeconfig={self.kubeconfig}", "-n", namespace, "port-forward"]
        processes.start(name, [*argv, f"service/{service}", f"{local}:{port}"])
        try:
            processes.wait_ready(name, partial(accepts, local))
            yield f"http://127.0.0.1:{local}"
        finally:
            processes.stop(name)

    def vllm(self) -> vllm.PodMount:
        """Not on a cluster whose nodes do not see this machine's folders."""
        raise UnavailableError("a real vLLM is mounted from this machine, which this cluster's nodes do not see")


class KindCluster(ForeignCluster):
    """kind: its node sees the cache folder, and takes images from this machine."""

    def __init__(self, kubeconfig: Path, folder: Path, progress: Progress) -> None:
        super().__init__(kubeconfig, folder, IMAGE)
        self._progress = progress

    def image(self, name: str, rootfs: Path) -> str:
        """Load it from an archive."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            archive = Path(scratch, "image.tar")
            write_archive(Image(name, (pack(rootfs, Path(scratch, "layer.tar")),)), archive)
            self.run("kind", "load", "image-archive", archive, "--name", KIND_NAME)
        return name

    def vllm(self) -> vllm.PodMount:
        """The cache folder as kind mounts it into its node."""
        mount = vllm.pod_mount(self._progress)
        seen = {p: KIND_CACHE / p.relative_to(cache_home()) for p in (mount.venv, mount.model)}
        return vllm.PodMount(seen[mount.venv], seen[mount.model], python=mount.python)


@contextmanager
def story_cluster(progress: Progress) -> Iterator[StoryCluster]:
    """The cluster that the environment asks for; UnavailableError says in one line what is missing."""
    if os.environ.get("KIND", "0") not in ("", "0"):
        with kind_cluster(progress) as kind:
            yield kind
    elif existing := os.environ.get(provide.EXISTING):
        image = os.environ.get(EXISTING_IMAGE)
        if not image:
            raise UnavailableError(f"{EXISTING_IMAGE} must name an image of this checkout (Dockerfile) for {existing}")
        with provide.scratch_folder() as folder:
            yield ForeignCluster(provide.kubeconfig_path(existing), folder, image)
    else:
        with node_cluster(progress) as own:
            yield own


@contextmanager
def node_cluster(progress: Progress) -> Iterator[NodeCluster]:
    """The project's own node with an image of this checkout, for as long as it is used."""
    if os.geteuid() != 0:
        raise UnavailableError(NO_ROOT)
    binaries = provide.programs((*NODE, "prometheus"), progress)
    image = checkout_image(IMAGE, progress)
    with provide.state_folder() as folder:
        node = Node(folder, binaries)
        try:
            node.start(gpus=GPUS, progress=progress)
            node.import_image(image)
            yield NodeCluster(node, progress)
        finally:
            node.stop()


@contextmanager
def kind_cluster(progress: Progress) -> Iterator[KindCluster]:
    """A kind cluster with an image of this checkout, for as long as it is used."""
    for program, source in (("docker", "Docker"), ("kind", "kind"), ("kubectl", "kubectl"), ("helm", "Helm 4")):
        if not shutil.which(program):
            raise UnavailableError(f"KIND=1 needs {source}: {program} is not on PATH")
    with provide.scratch_folder() as folder:
        kubeconfig = folder / "kind.kubeconfig"
        environment = os.environ | {"KUBECONFIG": str(kubeconfig), "TRIMTAB_CACHE": str(cache_home())}
        log = folder / "kind.log"
        up, down = (str(MANIFESTS / name) for name in ("up", "down"))
        try:
            run_logged([up], log=log, what="kind", progress=progress, env=environment, timeout_seconds=1800)
            yield KindCluster(kubeconfig, folder, progress)
        finally:
            run_logged([down], log=log, what="kind down", progress=progress, env=environment, timeout_seconds=300)
