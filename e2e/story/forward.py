"""`kubectl port-forward`: the way to a Service that works on every cluster."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from testcluster.cluster import Cluster


@contextmanager
def forwarded(cluster: Cluster, namespace: str, target: str, port: int) -> Iterator[str]:
    """`http://127.0.0.1:PORT` that leads to `target` (such as svc/NAME) for as long as the block runs."""
    kubectl = [str(cluster.program("kubectl")), f"--kubeconfig={cluster.kubeconfig}"]
    argv = [*kubectl, "port-forward", "-n", namespace, target, f":{port}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found, f"{' '.join(argv)} said no port"
            yield f"http://127.0.0.1:{found.group(1)}"
        finally:
            process.terminate()
