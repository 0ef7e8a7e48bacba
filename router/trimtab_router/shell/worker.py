"""One worker: its connections, its exchanges, its configuration; everything in one event loop."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from trimtab_router.core.keys import KeyRing
from trimtab_router.core.ladder import Ladder
from trimtab_router.core.tally import Tally
from trimtab_router.shell.batch import Batch, Scorer
from trimtab_router.shell.config import ConfigFile
from trimtab_router.shell.decisionlog import DecisionLog
from trimtab_router.shell.endpoints import Directory
from trimtab_router.shell.exchange import InFlight
from trimtab_router.shell.keyfolder import KeyFolder
from trimtab_router.shell.options import Options
from trimtab_router.shell.request import Request
from trimtab_router.shell.routes import dispatch
from trimtab_router.shell.server import ClientConnection
from trimtab_router.shell.upstream import IDLE_SECONDS

TICK_SECONDS = 1.0
FLUSH_SECONDS = 1.0
DRAIN_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Worker:
    """State of one worker process. Create and use it inside its event loop."""

    def __init__(
        self,
        options: Options,
        scorer: Scorer | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        directory: Directory | None = None,
        log: DecisionLog | None = None,
    ) -> None:
        self.options = options
        self.tally = Tally()
        self.directory = directory or Directory()
        self.log = log
        self.config = ConfigFile(options.config, self._configure)
        self.key_folder = KeyFolder(options.keys)
        self.ladder: Ladder | None = None
        self.draining = False
        self.clients: set[ClientConnection] = set()
        self.exchanges: set[InFlight] = set()
        self.clock = clock
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.batch = None if scorer is None else Batch(scorer, loop.call_soon, clock)
        self._id_prefix = b"%020x" % random.getrandbits(80)
        self._requests = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def _configure(self, ladder: Ladder) -> None:
        """Swaps the configuration; requests in flight keep the plan they have."""
        self.tally.know(rung.name for rung in ladder.rungs)
        self.directory.configure(ladder.pools)
        self.key_folder.configure(limits.name for limits in ladder.tenants.values() if limits.keyed)
        if self.batch is not None:
            self.batch.deadline_seconds = ladder.config.classifier.deadline_milliseconds / 1000
        self.ladder = ladder

    @property
    def keys(self) -> KeyRing:
        """The API keys that are valid now."""
        return self.key_folder.ring

    def dispatch(self, client: ClientConnection, request: Request) -> None:
        """Answers a request."""
        dispatch(self, client, request)

    def connection(self) -> ClientConnection:
        """The protocol of a new client."""
        return ClientConnection(self)

    def request_id(self) -> bytes:
        """A new id."""
        self._requests += 1
        return b"%b%012x" % (self._id_prefix, self._requests)

    def spawn(self, task: asyncio.Task[None]) -> None:
        """Keeps a reference to a task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tick(self) -> None:
        """Once a second: time limits, the configuration file, and API keys."""
        self.config.poll()
        self.key_folder.poll()
        for client in list(self.clients):
            client.tick()
        for exchange in list(self.exchanges):
            exchange.tick()
        self.directory.close_idle(self.now() - IDLE_SECONDS)

    def report(self) -> dict[str, Any]:
        """What the supervisor needs to know."""
        if self.log is not None:
            self.tally.log_written, self.tally.log_dropped = self.log.written, self.log.dropped
        return {
            "policy": self.ladder.policy if self.ladder else "",
            "configured": self.ladder is not None,
            "valid": self.config.valid,
            "problem": self.config.problem,
            "hash": self.config.digest,
            "draining": self.draining,
            "pools": {name: len(r.endpoints) for name, r in self.directory.pools.items()},
            "keys": {"counts": self.key_folder.counts, "problems": self.key_folder.problems},
            "tally": self.tally.dump(),
        }

    async def drain(self, server: asyncio.Server, stop_now: asyncio.Event) -> None:
        """Stops accepting, lets open answers end within the bound, then ends them with an error."""
        self.draining = True
        server.close()
        await self._until_gone(self.options.drain_seconds, stop_now)
        if self.exchanges:
            _log.warning("%d answers are still open after draining; ending them", len(self.exchanges))
        for exchange in list(self.exchanges):
            exchange.fail("the router is shutting down", status=503)
        await self._until_gone(FLUSH_SECONDS, asyncio.Event())
        for client in list(self.clients):
            client.abort()
        self.directory.close()

    async def _until_gone(self, seconds: float, stop: asyncio.Event) -> None:
        """Waits until no client is left, the time is over, or `stop` is set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.clients and not stop.is_set():
                    for client in list(self.clients):
                        client.close_idle()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), DRAIN_POLL_SECONDS)
