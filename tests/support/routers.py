"""Starts routers as processes for tests: free ports, wait for readiness, stop by pid."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from support.engines import free_port
from testcluster import processes

STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RouterProcess:
    """A running `python -m trimtab_router`."""

    url: str
    admin: str
    config: Path
    log: Path
    process: subprocess.Popen[bytes]

    def write(self, content: Mapping[str, Any] | str) -> None:
        """Replaces its configuration as Kubernetes would: at once."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(content if isinstance(content, str) else json.dumps(content))
        fresh.replace(self.config)

    def ready(self) -> bool:
        """What /readyz says."""
        try:
            return httpx.get(f"{self.admin}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def metrics(self) -> str:
        """The text of /metrics."""
        return httpx.get(f"{self.admin}/metrics", timeout=5, trust_env=False).text

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        running = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [pid for pid in running if _parent(pid) == self.process.pid]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def _parent(pid: int) -> int | None:
    """The parent of a process that is there and not a zombie; proc(5)'s `children` misses some while others end."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


@contextmanager
def router_process(content: Mapping[str, Any] | str, *flags: str, ready: bool = True) -> Iterator[RouterProcess]:
    """A router that runs `content`; by default it is ready when this returns it."""
    with TemporaryDirectory(prefix="trimtab-router-") as folder:
        config, log = Path(folder) / "router.json", Path(folder) / "router.log"
        listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        argv = [sys.executable, "-m", "trimtab_router", "--config", str(config), "--listen", listen, "--admin", admin]
        with log.open("wb") as output:
            process = subprocess.Popen([*argv, *flags], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        router = RouterProcess(f"http://{listen}", f"http://{admin}", config, log, process)
        router.write(content)
        try:
            if ready:
                wait_until(router.ready, log.read_text)
            yield router
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(STOP_SECONDS)


def wait_until(happened: Any, otherwise: Any = lambda: "it did not happen") -> None:
    """Polls until `happened()`; fails with the text of `otherwise()`."""
    try:
        processes.wait_until("it", happened, every_seconds=0.05)
    except TimeoutError:
        raise AssertionError(otherwise()) from None
