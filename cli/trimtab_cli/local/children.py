"""Child processes that never outlive `trimtab up`: each leads its own process group, and a watchdog knows them all."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

#: Run as a file and without site packages: it needs the standard library only, and is there in 20 ms.
_WATCHDOG = Path(__file__).parent / "watchdog.py"


class Child:
    """One running program and what it printed."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """Process id, and id of its group."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.returncode

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL for what is left of the group after the grace."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), grace_seconds)
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def last_words(self, lines: int = 3) -> str:
        """The end of what it printed, on one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:]) or "it printed nothing"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class Children:
    """Starts children; leaving the context ends them all and removes the working folder."""

    def __init__(self, *, logs: Path | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-"))
        self._logs = logs or self.folder
        self._logs.mkdir(parents=True, exist_ok=True)
        self._running: dict[int, Child] = {}
        self._watchdog: asyncio.subprocess.Process | None = None
        self._reapers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Start the watchdog."""
        self._watchdog = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_WATCHDOG), str(self.folder),
            stdin=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs, then the watchdog, which removes the folder."""
        await asyncio.gather(*(child.stop(5) for child in list(self._running.values())))
        await asyncio.gather(*self._reapers)
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            await self._watchdog.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        """Start a program. Its output goes to `name.log`. Raises OSError when there is no such program."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                # Libraries write where they like (onnxruntime leaves `.ses`): it goes with the folder.
                env={**os.environ, "TMPDIR": str(self.folder), **(env or {})},
            )  # fmt: skip
        child = Child(name, process, log)
        self._running[child.pid] = child
        self._tell(f"+{child.pid}")
        reaper = asyncio.create_task(self._reap(child))
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)
        return child

    async def _reap(self, child: Child) -> None:
        await child.ended()
        del self._running[child.pid]
        self._tell(f"-{child.pid}")

    def _tell(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.write(f"{line}\n".encode())
