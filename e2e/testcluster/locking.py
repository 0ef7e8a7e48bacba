"""A lock between processes: two test runs on one machine must not build or install the same thing twice."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testcluster.errors import UnavailableError
from testcluster.progress import Progress

ANNOUNCE_SECONDS = 60.0


@contextmanager
def exclusive(path: Path, what: str, progress: Progress, timeout_seconds: float = 3600) -> Iterator[None]:
    """Hold the lock file at `path`; the kernel frees it when its process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    announce_at = 0.0
    with path.open("w") as file:
        while not _try(file.fileno()):
            if time.monotonic() > announce_at:
                progress(f"waiting: another process is at work on {what}")
                announce_at = time.monotonic() + ANNOUNCE_SECONDS
            if time.monotonic() > deadline:
                raise UnavailableError(f"{what}: {path} has been locked for {timeout_seconds:.0f} s")
            time.sleep(0.2)
        yield


def _try(fileno: int) -> bool:
    try:
        fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
