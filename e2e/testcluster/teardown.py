"""Removes what a state folder's servers have left: processes, cgroups, interface, the folder itself."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from testcluster.processes import RECORD, stop_recorded, wait_until

CGROUPS = Path("/sys/fs/cgroup")
NODE_MARK = "node.json"
"""Lies in the state folder of a real node: its cgroups and its interface may then be this folder's to remove."""
NODE_CGROUP = "trimtab-test"
NODE_LINK = "trimtab0"


def tear_down(folder: Path) -> None:
    """End the folder's processes and remove all traces; a folder that is gone is fine."""
    if not folder.exists():
        return
    stop_recorded(folder / RECORD)
    if (folder / NODE_MARK).exists():
        lock = open_node_lock()
        try:
            if lock_node(lock):  # otherwise another node runs already, and they are that one's
                remove_node_traces()
        finally:
            os.close(lock)
    shutil.rmtree(folder, ignore_errors=True)


def open_node_lock() -> int:
    """The file whose lock says that a node runs: interface, addresses and cgroup are fixed, so there is one."""
    path = Path("/run/lock")
    return os.open(
        (path if path.is_dir() else Path(tempfile.gettempdir())) / "trimtab-node.lock", os.O_CREAT | os.O_RDWR
    )


def lock_node(lock: int) -> bool:
    """Take the node's lock; the kernel frees it when the node's first process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_node_traces() -> None:
    """Remove the interface and the cgroups of a node that is gone; to be called with its lock."""
    # The interface goes with the node's network namespace, but only a moment later.
    subprocess.run(["ip", "link", "del", NODE_LINK], stderr=subprocess.DEVNULL, check=False)
    for top in node_cgroups():
        remove_cgroup(top)


def node_cgroups() -> list[Path]:
    """The node's folder in each hierarchy of cgroup v1, or the one of v2."""
    return [p for p in (CGROUPS / NODE_CGROUP, *CGROUPS.glob(f"*/{NODE_CGROUP}")) if p.is_dir()]


def remove_cgroup(top: Path) -> None:
    """Remove a cgroup and those below it; each is busy until its last process has been reaped."""
    for name, _, _ in os.walk(top, topdown=False):
        folder = Path(name)
        wait_until(f"empty {folder}", partial(_removed, folder))


def _removed(folder: Path) -> bool:
    folder.rmdir()
    return True
