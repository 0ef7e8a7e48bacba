"""Starts servers, records them by pid and start time, and ends exactly those.

The record is a file, so that another process (`scripts/controlplane down`, or the watchman of a test run
that was killed) can end what was started. A pid alone could by then be somebody else's.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from testcluster.commands import tail
from testcluster.errors import StartError
from testcluster.paths import ROOT

RECORD = "processes.json"
PATIENCE_SECONDS = 600
"""How long tests wait for what should come soon: a shared machine may stand still, and only a failure costs it."""
URGENT = -15
"""As nice(1): about thirty times the share of an ordinary process."""


def start_time(pid: int) -> str | None:
    """The process's start in clock ticks since boot; None where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def direct_environment() -> dict[str, str]:
    """This process's environment without proxies: test servers are on this machine."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def wait_until(
    what: str, check: Callable[[], Any], timeout_seconds: float = PATIENCE_SECONDS, every_seconds: float = 0.1
) -> Any:
    """The first true value of `check`; an OSError or ValueError of it counts as not yet."""
    deadline = time.monotonic() + timeout_seconds
    last: Exception | None = None
    while True:
        try:
            if value := check():
                return value
        except (OSError, ValueError) as error:
            last = error
        if time.monotonic() > deadline:
            reason = f"; last error: {last}" if last else ""
            raise TimeoutError(f"not within {timeout_seconds:g} s: {what}{reason}")
        time.sleep(every_seconds)


def prefer_session(autogroup: Path) -> None:
    """Give a session the share of URGENT: where the kernel groups by session, niceness counts within one (sched(7))."""
    with suppress(OSError):  # a kernel without them, or a process that ended
        autogroup.write_text(str(URGENT))


class Processes:
    """The servers of one state folder."""

    def __init__(self, folder: Path, record: str = RECORD) -> None:
        self.folder = folder
        self._record = folder / record
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        urgent: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a server in a session of its own; its output goes to NAME.log.

        An `urgent` one comes before engines that use the whole machine, where this process may say so.
        """
        urgent = urgent and os.geteuid() == 0
        if urgent:
            argv = ["nice", "-n", str(URGENT), *argv]
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=direct_environment() if env is None else env,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        if urgent:
            prefer_session(Path(f"/proc/{child.pid}/autogroup"))
        self._children[name] = child
        self.record(name, child.pid)
        return child

    def record(self, name: str, pid: int) -> None:
        """Note a process for `stop_recorded`."""
        entries = _read(self._record) | {name: {"pid": pid, "started": start_time(pid)}}
        _write(self._record, entries)

    def log(self, name: str) -> Path:
        """The file that the server writes its output to."""
        return self.folder / f"{name}.log"

    def alive(self, name: str) -> bool:
        """Whether the server still runs."""
        child = self._children.get(name)
        if child:
            return child.poll() is None
        entry = _read(self._record).get(name)
        return entry is not None and _runs(entry)

    def wait_ready(self, name: str, check: Callable[[], Any], timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `check` is true; StartError with the log's end when the server ends or stays silent."""

        def ready_or_dead() -> bool:
            return not self.alive(name) or bool(check())

        try:
            wait_until(f"{name} ready", ready_or_dead, timeout_seconds)
        except TimeoutError as error:
            raise StartError(f"{error}\n{tail(self.log(name))}") from None
        if not self.alive(name):
            raise StartError(f"{name} ended while starting:\n{tail(self.log(name))}")

    def stop(self, name: str) -> None:
        """End one server with the processes that it started, and wait for its end."""
        child = self._children.pop(name)
        _kill_group(child.pid)
        child.wait()
        entries = _read(self._record)
        entries.pop(name, None)
        _write(self._record, entries)

    def stop_all(self) -> None:
        """End all servers, the last started first. Their state is thrown away: nothing to flush."""
        stop_recorded(self._record)
        for child in self._children.values():
            child.wait()
        self._children.clear()


def recorded(folder: Path) -> dict[str, Any]:
    """The processes noted in a state folder, in the order of their start."""
    return _read(folder / RECORD)


def stop_recorded(record: Path, timeout_seconds: float = 10) -> None:
    """End the processes noted in a record, and no other one that has a pid of theirs by now."""
    entries = [e for e in reversed(_read(record).values()) if _runs(e)]
    for entry in entries:
        _kill_group(entry["pid"])
    wait_until("end of killed processes", lambda: not any(map(_runs, entries)), timeout_seconds)
    if entries:
        _write(record, {})


def _kill_group(leader: int) -> None:
    """Kill a server and its children: each server leads a session of its own, its pid is the group's name.

    The state is thrown away with it: there is nothing that it should still write.
    """
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _runs(entry: Mapping[str, Any]) -> bool:
    started: str | None = entry["started"]
    return started is not None and start_time(entry["pid"]) == started  # None: it was gone before it was noted


def start_watchman(folder: Path) -> subprocess.Popen[bytes]:
    """A process that outlives this one by a moment: when this one is gone, it removes what is in `folder`.

    It waits for the end of its standard input, which the kernel brings about however this process ends.
    """
    env = os.environ | {"PYTHONPATH": str(ROOT / "e2e")}
    argv = [sys.executable, "-m", "testcluster.watchman", str(folder)]
    with (folder / "watchman.log").open("ab") as log:
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, cwd="/", start_new_session=True
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    new.replace(path)
