"""Pods of kwok end at once; these take their time."""

import threading
from typing import Self

from testcluster.cluster import Cluster


class SlowEndings:
    """Lets every engine's pod of the namespace take `seconds` to end, as one with open answers does."""

    def __init__(self, cluster: Cluster, namespace: str, *, seconds: int = 4) -> None:
        self._cluster, self._namespace, self._seconds = cluster, namespace, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.known: set[str] = set()
        """Names of pods that do."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        delay = {"metadata": {"annotations": {"pod-delete.stage.kwok.x-k8s.io/delay": f"{self._seconds}s"}}}
        while not self._end.wait(0.05):
            for pod in self._cluster.api.get(f"{path}?labelSelector=app.kubernetes.io/component%3Dengine")["items"]:
                name = pod["metadata"]["name"]
                if name not in self.known and "deletionTimestamp" not in pod["metadata"]:
                    self._cluster.api.merge(f"{path}/{name}", delay)
                    self.known.add(name)
