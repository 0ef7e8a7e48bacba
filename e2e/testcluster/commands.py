"""Long commands with a log, a heartbeat and an error that ends in the log's last lines."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from testcluster.errors import UnavailableError
from testcluster.progress import Progress

HEARTBEAT_SECONDS = 30.0
READABLE_UMASK = 0o022
"""Whatever the shell's: a pod reads some of what is installed as another user."""


def run_logged(
    argv: Sequence[str],
    *,
    log: Path,
    what: str,
    progress: Progress,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = 3600,
) -> float:
    """Run `argv` to its end and return the seconds it took; raises UnavailableError with the log's end."""
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd, env=env, umask=READABLE_UMASK
        )
        try:
            _wait(process, what, progress, started, timeout_seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise UnavailableError(f"{what}: exit status {process.returncode}, see {log}:\n{tail(log)}")
    return time.monotonic() - started


def _wait(
    process: subprocess.Popen[bytes], what: str, progress: Progress, started: float, timeout_seconds: float
) -> None:
    while True:
        try:
            process.wait(timeout=HEARTBEAT_SECONDS)
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - started
            if elapsed > timeout_seconds:
                raise UnavailableError(f"{what}: not done after {timeout_seconds:.0f} s") from None
            progress(f"  still at {what}, {elapsed:.0f} s")
        else:
            return


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error's text."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"
