"""Cleans up when `trimtab up` is killed: `python watchdog.py FOLDER`.

Reads process groups from standard input, `+123` for one that started and `-123` for one that ended. When the pipe
closes, its parent is gone: whatever still runs is ended, then the folder is removed. It runs in a session of its own,
so that Ctrl-C in the terminal does not reach it.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_SECONDS = 1.5


def main(folder: str, lines: Iterable[str]) -> int:
    """Follow the groups until the pipe closes, then end those that are left and remove the folder."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    _end(groups)
    shutil.rmtree(Path(folder), ignore_errors=True)
    return 0


def _end(groups: set[int]) -> None:
    for group in groups:
        _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(_signal(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether the group could be signalled, so exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.stdin))
