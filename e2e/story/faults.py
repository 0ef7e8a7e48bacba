"""Ends processes the hard way."""

import os
import signal
from pathlib import Path
from typing import Any

from testcluster.cluster import Cluster


def sigkill(cluster: Cluster, pod: dict[str, Any], program: str) -> None:
    """SIGKILL to the process of a pod whose command line has `program`; it gets no chance to say goodbye.

    On the project's own node the process is visible here. On another cluster the pod is deleted without grace, which
    ends in the same signal.
    """
    uid, name, namespace = (pod["metadata"][k] for k in ("uid", "name", "namespace"))
    pids = [pid for pid in _pids() if _is_of(pid, uid, program)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if not pids:
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _is_of(pid: int, pod_uid: str, program: str) -> bool:
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it ended meanwhile
        return False
    return f"pod{pod_uid}" in groups and program in command
