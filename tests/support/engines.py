"""Starts simulated engines as processes for tests: a free port, wait for /health, stop by pid."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

START_SECONDS = 120
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class SimulatedEngine:
    """A running `trimtab engine-sim`."""

    base_url: str
    """Without a path: `http://127.0.0.1:PORT`."""
    model: str
    """The served model's name."""
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


def free_port() -> int:
    """A loopback port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def simulated_engine(
    *flags: str, model: str = "Qwen/Qwen3-8B", served_name: str = "tiny", env: Mapping[str, str] | None = None
) -> Iterator[SimulatedEngine]:
    """An engine with these flags of `vllm serve` and `--sim-*`; it answers /health when this returns it."""
    port = free_port()
    argv = [sys.executable, "-m", "trimtab_cli.engine_sim", model, "--host=127.0.0.1", f"--port={port}"]
    argv += [f"--served-model-name={served_name}", *flags]
    with TemporaryDirectory(prefix="trimtab-engine-") as folder:
        log = Path(folder) / "engine.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )
        engine = SimulatedEngine(f"http://127.0.0.1:{port}", served_name, log, process)
        try:
            _wait_healthy(engine)
            yield engine
        finally:
            _stop(process)


def _wait_healthy(engine: SimulatedEngine) -> None:
    deadline = time.monotonic() + START_SECONDS
    while engine.process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{engine.base_url}/health", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"the simulated engine did not start: {engine.log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)
