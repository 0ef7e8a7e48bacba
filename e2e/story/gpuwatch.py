"""Counts, from a watch of the API server, the GPUs that a namespace's pods hold at every instant."""

import json
import subprocess
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from testcluster.cluster import GPU, Cluster

ENDED = ("Succeeded", "Failed")


def gpus_of(pod: Mapping[str, Any]) -> int:
    """GPUs that a pod holds; an ending pod holds them until it is gone."""
    if pod.get("status", {}).get("phase") in ENDED:
        return 0
    containers = pod["spec"]["containers"]
    return sum(int(c.get("resources", {}).get("limits", {}).get(GPU, 0)) for c in containers)


class GpuWatch:
    """`kubectl get pods --watch` in the background; `peak` is the most GPUs ever held at once."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        argv = ["get", "pods", "-n", namespace, "--watch", "--output-watch-events", "-o", "json"]
        program = [str(cluster.program("kubectl")), f"--kubeconfig={cluster.kubeconfig}", *argv]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._held: dict[str, int] = {}
        self.instants: list[int] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        """Start counting."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the watch."""
        self._process.terminate()
        self._process.communicate(timeout=10)
        self._thread.join(timeout=10)

    @property
    def peak(self) -> int:
        """The most GPUs that were ever held at once."""
        return max(self.instants, default=0)

    @property
    def is_alive(self) -> bool:
        """The watch still follows; a dead one would count nothing and prove nothing."""
        return self._process.poll() is None

    def _follow(self) -> None:
        text = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text += line
            event = _whole(text) if line.rstrip().endswith("}") else None
            if event:
                text = ""
                self._count(event["type"], event["object"])

    def _count(self, kind: str, pod: Mapping[str, Any]) -> None:
        self._held[pod["metadata"]["uid"]] = 0 if kind == "DELETED" else gpus_of(pod)
        self.instants.append(sum(self._held.values()))


def _whole(text: str) -> Any:
    """The event, or None while its end is missing: kubectl prints one over many lines."""
    try:
        return json.loads(text)
    except ValueError:
        return None
