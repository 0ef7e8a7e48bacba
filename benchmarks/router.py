"""What a request and a streamed chunk cost in the router, against controls: `python -m benchmarks.router`.

Every candidate forwards to one engine that costs almost nothing (`native/engine.c`); `native/load.c` makes the load.
The candidate is pinned to the first core, engine and load to the second. Candidates take turns in every round, in
another order; CPU is that of the whole process tree. Ratios within a run mean something, absolute figures are the
machine's. nginx takes part where it is installed. Needs a C compiler (`cc`).
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import _proxies

HERE = Path(__file__).parent
START_SECONDS = 60
WARMUP = 0.5
CHUNKS = 64
TEXT = "Explain why the sky is blue and derive how scattering depends on wavelength. "


@dataclass(frozen=True)
class Phase:
    """One kind of load."""

    name: str
    connections: int
    rate: float
    """Requests a second; 0 is a closed loop."""
    characters: int
    stream: bool = False
    interval_us: int = 0


PHASES = (
    Phase("closed loop, 1k characters", 32, 0, 1_000),
    Phase("closed loop, 100k characters", 32, 0, 100_000),
    Phase("200 requests a second", 64, 200, 1_000),
    Phase("streams, 6.4k chunks a second", 400, 100, 1_000, stream=True, interval_us=20_000),
    Phase("streams, 32k chunks a second", 2_000, 500, 1_000, stream=True, interval_us=20_000),
)


@dataclass
class Result:
    """What one candidate cost in one phase, by round."""

    milliseconds_per_1k: list[float] = field(default_factory=list)
    us_per_chunk: list[float] = field(default_factory=list)
    requests_per_second: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    first_p50_us: list[float] = field(default_factory=list)
    wrong: int = 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compiled(folder: Path) -> tuple[str, str]:
    """The engine and the load generator."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("benchmarks.router needs a C compiler; install one (Debian: gcc) and try again")
    built = []
    for name in ("engine", "load"):
        source, out = HERE / "native" / f"{name}.c", folder / name
        subprocess.run([compiler, "-O2", "-o", out, source, "-lm"], check=True)
        built.append(str(out))
    return built[0], built[1]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children, from the scheduler (nanoseconds precise)."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


@contextlib.contextmanager
def process(argv: Sequence[str], core: int, port: int) -> Iterator[int]:
    """A server pinned to a core, ended when the block ends."""
    child = subprocess.Popen(argv, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core}))  # noqa: PLW1509 - no threads here
    try:
        _await_port(child, port)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await_port(child: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            time.sleep(0.3)
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}: {child.args!r}")


def body(phase: Phase) -> bytes:
    """The request of a phase."""
    text = (TEXT * (phase.characters // len(TEXT) + 1))[: phase.characters]
    document = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    if phase.stream:
        document["stream"] = True
    return json.dumps(document, separators=(",", ":")).encode()


def load(binary: str, port: int, phase: Phase, seconds: float, pid: int | None) -> tuple[dict[str, float], float]:
    """Runs the load on the second core; its figures and the CPU seconds that `pid` used in it."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body(phase))
        file.flush()
        argv = [binary, str(port), str(phase.connections), str(seconds), str(WARMUP), str(phase.rate), file.name]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, preexec_fn=_on_second_core)  # noqa: PLW1509
        time.sleep(WARMUP)
        before = cpu_seconds(pid) if pid else 0.0
        out, _ = child.communicate(timeout=seconds + 60)
        used = (cpu_seconds(pid) if pid else 0.0) - before
    return json.loads(out), used


def cores() -> tuple[int, int]:
    """The core of the candidate and that of everything else."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1 % len(allowed)]


def _on_second_core() -> None:
    os.sched_setaffinity(0, {cores()[1]})


def measure(binaries: tuple[str, str], phase: Phase, make: _proxies.Proxy | None, seconds: float, into: Result) -> None:
    """One candidate, one phase, one round. `make` None is the engine alone."""
    engine_port, (near, far) = free_port(), cores()
    engine = (binaries[0], str(engine_port), str(CHUNKS), str(phase.interval_us))
    with contextlib.ExitStack() as stack:
        stack.enter_context(process(engine, far, engine_port))
        port, pid = engine_port, None
        if make is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = free_port()
            pid = stack.enter_context(process(make(folder, port, engine_port), near, port))
        found, used = load(binaries[1], port, phase, seconds, pid)
    requests = max(found["good"], 1)
    into.wrong += int(found["bad"] + found["failures"])
    into.milliseconds_per_1k.append(used / requests * 1e6)
    into.us_per_chunk.append(used / max(found["chunks"], 1) * 1e6)
    into.requests_per_second.append(found["good"] / found["seconds"])
    into.p50_us.append(found["p50_us"])
    into.p99_us.append(found["p99_us"])
    into.first_p50_us.append(found["first_p50_us"])


def run(phase: Phase, rounds: int, seconds: float, binaries: tuple[str, str]) -> dict[str, Result]:
    """Every candidate in turn, `rounds` times."""
    candidates: dict[str, _proxies.Proxy | None] = {"engine alone": None, **_proxies.available()}
    results = {name: Result() for name in candidates}
    for number in range(rounds):
        order = list(candidates)
        random.Random(number).shuffle(order)
        for name in order:
            measure(binaries, phase, candidates[name], seconds, results[name])
    return results


def show(phase: Phase, results: dict[str, Result]) -> None:
    """The medians of a phase; ratios are to the control on starlette and aiohttp."""
    control = results[_proxies.CONTROL].milliseconds_per_1k
    alone = results["engine alone"]
    sys.stdout.write(f"\n{phase.name}: {len(alone.p50_us)} rounds, medians\n")
    columns = (
        "",
        "CPU ms/1k",
        "x control",
        "us/chunk",
        "req/s",
        "added p50 us",
        "added p99 us",
        "added TTFT us",
        "wrong",
    )
    sys.stdout.write(" | ".join(f"{c:>14}" for c in columns) + "\n")
    for name, found in results.items():
        cost, chunk = statistics.median(found.milliseconds_per_1k), statistics.median(found.us_per_chunk)
        ratio = cost / statistics.median(control)
        row = [
            f"{cost:.1f}",
            f"{min(found.milliseconds_per_1k):.1f}",
            f"{ratio:.3f}",
            f"{chunk:.1f}" if phase.stream else "",
            f"{statistics.median(found.requests_per_second):.0f}",
            *(f"{_added(getattr(found, f), getattr(alone, f)):.0f}" for f in ("p50_us", "p99_us", "first_p50_us")),
            str(found.wrong),
        ]
        sys.stdout.write(" | ".join(f"{c:>14}" for c in (name, *row)) + "\n")
    sys.stdout.flush()


def _added(with_proxy: list[float], alone: list[float]) -> float:
    return statistics.median(with_proxy) - statistics.median(alone)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status is 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.router", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a measurement")
    parser.add_argument(
        "--phase", type=int, action="append", choices=range(len(PHASES)), help="one of the phases, by number"
    )
    given = parser.parse_args(argv)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        binaries = compiled(Path(folder))
        for phase in [PHASES[i] for i in given.phase or range(len(PHASES))]:
            results = run(phase, given.rounds, given.seconds, binaries)
            show(phase, results)
            wrong += sum(r.wrong for r in results.values())
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
