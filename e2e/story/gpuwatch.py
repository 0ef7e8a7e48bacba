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
    """`kubectl get pods --watch` in the background; `peak` is the most GPUs ever held at once.

    A watch that the API server ends, as it may at any time, begins again with what there is then; `resumed` counts how
    often that was.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        argv = ["get", "pods", "-n", namespace, "--watch", "--output-watch-events", "-o", "json"]
        self._program = [str(cluster.program("kubectl")), f"--kubeconfig={cluster.kubeconfig}", *argv]
        self._ending = threading.Event()
        self._held: dict[str, int] = {}
        self.instants: list[int] = []
        self.resumed = 0
        self._process = self._watch()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Start counting."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the watch."""
        self._ending.set()
        self._process.terminate()
        self._thread.join(timeout=10)

    @property
    def peak(self) -> int:
        """The most GPUs that were ever held at once."""
        return max(self.instants, default=0)

    @property
    def is_alive(self) -> bool:
        """The watch still follows; a dead one would count nothing and prove nothing."""
        return self._thread.is_alive()

    def _watch(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(self._program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def _run(self) -> None:
        while True:
            with self._process as process:
                self._follow(process)
                process.terminate()
            if self._ending.wait(1):
                return
            self.resumed += 1
            self._held.clear()
            self._process = self._watch()
            if self._ending.is_set():
                self._process.terminate()

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        text = ""
        assert process.stdout is not None
        for line in process.stdout:
            text += line
            event = _whole(text) if line.rstrip().endswith("}") else None
            if event and event["type"] == "ERROR":
                return
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
