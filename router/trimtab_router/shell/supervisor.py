"""The parent process: starts workers, restarts those that die, passes signals on, serves the admin port."""

import asyncio
import contextlib
import json
import logging
import resource
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Iterator
from dataclasses import replace

import orjson
import uvicorn

from trimtab_router.shell import decisionlog
from trimtab_router.shell.admin import admin_app
from trimtab_router.shell.fleet import Fleet
from trimtab_router.shell.options import Options

SHORT_LIFE_SECONDS = 5.0
MAX_SHORT_LIVES = 5
"""Workers that die at once, one after the other, before the router gives up."""
GRACE_SECONDS = 5.0
MAX_REPORT_BYTES = 16 * 1024 * 1024
_log = logging.getLogger(__name__)


class StartError(Exception):
    """The router cannot start; the message names the option and the fix."""


class _Admin(uvicorn.Server):
    """Signals are the supervisor's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


class Supervisor:
    """Everything of one router but its workers."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._fleet = Fleet()
        self._processes: dict[int, Process] = {}
        self._stop = asyncio.Event()
        self._failed = False

    async def run(self) -> int:
        """Runs until a signal; 0 after a drain, 1 when workers cannot live. Raises StartError."""
        self._check_log()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an open stream is two sockets
        loop = asyncio.get_running_loop()
        data = reserve("--listen", self._options.host, self._options.port)
        admin = reserve("--admin", self._options.admin_host, self._options.admin_port)
        self._options = replace(self._options, port=data.getsockname()[1])
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._signal, signal.SIGHUP)
        config = uvicorn.Config(
            admin_app(self._fleet),
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=30,
        )
        server = _Admin(config)
        admin.listen(128)
        serving = asyncio.create_task(server.serve(sockets=[admin]))
        _log.info("listening on http://%s:%d", *data.getsockname()[:2])
        _log.info("admin on http://%s:%d", *admin.getsockname()[:2])
        watching = asyncio.create_task(self._watch_silence())
        await asyncio.gather(*(self._keep() for _ in range(self._options.workers)))
        watching.cancel()
        server.should_exit = True
        await asyncio.wait([serving, watching], timeout=GRACE_SECONDS)
        data.close()
        return 1 if self._failed else 0

    def _check_log(self) -> None:
        try:
            decisionlog.check(self._options.decision_log or decisionlog.STDOUT)
        except OSError as error:
            where = self._options.decision_log
            raise StartError(
                f"--decision-log: {where} cannot be written ({error.strerror}); choose a folder"
            ) from error

    def _on_stop(self) -> None:
        """Drains; a second signal ends at once."""
        again = self._stop.is_set()
        self._fleet.draining = True
        self._stop.set()
        self._signal(signal.SIGKILL if again else signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self) -> None:
        """Keeps one worker alive."""
        loop, short_lives = asyncio.get_running_loop(), 0
        while not self._stop.is_set():
            started = loop.time()
            process = await self._run_once()
            if self._stop.is_set():
                return
            lived = loop.time() - started
            short_lives = short_lives + 1 if lived < SHORT_LIFE_SECONDS else 0
            _log.error("worker %d ended with status %s after %.1f s", process.pid, process.returncode, lived)
            if short_lives >= MAX_SHORT_LIVES:
                _log.critical("%d workers in a row ended at once; giving up", short_lives)
                self._failed = True
                self._on_stop()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(0.1 * 2**short_lives, SHORT_LIFE_SECONDS))

    async def _run_once(self) -> Process:
        """One worker from start to end."""
        ours, theirs = socket.socketpair()
        arguments = ("-m", "trimtab_router.app", json.dumps(self._options.as_dict()))
        with theirs:
            process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=theirs.fileno())
        pid = process.pid
        self._processes[pid] = process
        self._fleet.started(pid)
        if self._stop.is_set():
            process.terminate()
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_REPORT_BYTES)
        listening = asyncio.create_task(self._listen(pid, reader))
        await process.wait()
        await asyncio.wait([listening], timeout=GRACE_SECONDS)
        listening.cancel()
        writer.close()
        del self._processes[pid]
        self._fleet.ended(pid)
        return process

    async def _listen(self, pid: int, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            try:
                self._fleet.heard(pid, orjson.loads(line))
            except orjson.JSONDecodeError:
                _log.warning("worker %d: a report was cut", pid)

    async def _watch_silence(self) -> None:
        """Kills workers that hang, and those that do not end in time."""
        loop = asyncio.get_running_loop()
        stopping_at: float | None = None
        while True:
            await asyncio.sleep(1)
            if self._stop.is_set() and stopping_at is None:
                stopping_at = loop.time()
            late = stopping_at is not None and loop.time() - stopping_at > self._options.drain_seconds + GRACE_SECONDS
            hung = self._fleet.tick()
            for pid in list(self._fleet.workers) if late else hung:
                _log.error("worker %d does not answer; killing it", pid)
                self._processes[pid].kill()


def reserve(option: str, host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening, that fails when another program has it. Raises StartError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise StartError(f"{option}: {host}:{port} has no address ({error}); use HOST:PORT") from error
    family, kind, protocol, _, address = found
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(probe, option, address)
        address = probe.getsockname()
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(sock, option, address)
    return sock


def _bind(
    sock: socket.socket, option: str, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
) -> None:
    try:
        sock.bind(address)
    except OSError as error:
        shown = f"{address[0]!s}:{address[1]!s}"
        raise StartError(f"{option}: {shown} cannot be used ({error.strerror}); choose another address") from error
