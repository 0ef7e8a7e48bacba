"""The first half of a divided request: a replica of the prefill pool reads the prompt.

It never fails a request. Where no replica reads the prompt in time, the engine that answers reads it itself: later, but
right.
"""

import asyncio
import logging
from typing import Any, Final, Protocol

from trimtab_crds.wire import PoolConfig
from trimtab_router.core import http1
from trimtab_router.core.disaggregated import READS, Reading, prefill_body, transfer_of, undivided
from trimtab_router.core.http1 import Head
from trimtab_router.shell.answer import Answer
from trimtab_router.shell.endpoints import Directory
from trimtab_router.shell.options import Options
from trimtab_router.shell.request import Request
from trimtab_router.shell.upstream import Connection, Endpoint

READ_SECONDS: Final = 120.0
"""After this the answering engine reads the prompt itself; longer than any prompt takes on an engine with room."""
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_log = logging.getLogger(__name__)


class Host(Protocol):
    """The worker, as far as reading needs it."""

    options: Options
    directory: Directory

    def now(self) -> float:
        """Monotonic seconds."""


class Prefill:
    """One prompt on its way through a prefill pool; cancel `read` and the engine stops."""

    __slots__ = ("_done", "_host", "_key", "_parts", "_reads", "_request", "_size", "_status", "pool")

    def __init__(self, host: Host, request: Request, pool: PoolConfig, key: int) -> None:
        self._host = host
        self._request = request
        self.pool = pool
        self._key = key
        self._reads = 0
        self._status = self._size = 0
        self._parts: list[bytes] = []
        self._done: asyncio.Future[tuple[str, Head | None]] | None = None

    async def read(self, path: bytes, body: bytes, *, seconds: float = READ_SECONDS) -> Reading:
        """Asks the replicas in turn; over all calls no more than READS of them read."""
        before = self._reads
        why, transfer = undivided(body), None
        if not why:
            try:
                async with asyncio.timeout(seconds):
                    transfer, why = await self._in_turn(path, prefill_body(body, self.pool.served_name))
            except TimeoutError:
                why = "Timeout"
            except Exception:  # noqa: BLE001 - a fault must cost a reading only
                _log.exception("reading a prompt on pool %s failed", self.pool.name)
                why = "Failed"
        _log.debug("prefill on pool %s: %s", self.pool.name, why or "read")
        return Reading(transfer, why, self._reads - before)

    async def _in_turn(self, path: bytes, body: bytes) -> tuple[dict[str, Any] | None, str]:
        why, tried = "NoReplica", set[Endpoint]()
        for _ in range(2 * READS):  # a connection that was closed while idle costs a look and no read
            replicas = self._host.directory.pools.get(self.pool.name)
            endpoint = replicas.pick(tried, self._key, self._host.now()) if replicas is not None else None
            if endpoint is None or self._reads >= READS:
                break
            tried.add(endpoint)
            endpoint.inflight += 1
            try:
                found, why = await self._on(endpoint, path, body)
            except (OSError, TimeoutError):
                endpoint.failed(self._host.now())
                why = "Unreachable"
                continue
            finally:
                endpoint.inflight -= 1
            if why == "Stale":
                tried.discard(endpoint)
            if found is not None or why in ("Rejected", "NoTransfer"):
                return found, why
        return None, "Failed" if why == "Stale" else why

    async def _on(self, endpoint: Endpoint, path: bytes, body: bytes) -> tuple[dict[str, Any] | None, str]:
        """What one replica says, or why it says nothing; raises OSError or TimeoutError where it is out of reach."""
        connection = endpoint.take_idle() or await endpoint.connect(self._host.options.connect_seconds)
        self._done, self._parts, self._status, self._size = asyncio.get_running_loop().create_future(), [], 0, 0
        answer = Answer(self, self._bytes)
        self._reads += 1
        whole = False
        try:
            connection.post(answer, path, body, self._request.onward())
            how, head = await self._done
            whole = head is not None and head.keep and not head.until_close
            return self._judged(endpoint, connection, how, head)
        finally:
            answer.close()
            connection.receiver = None
            if whole:
                connection.release(self._host.now())
            else:
                connection.abort()

    def _judged(
        self, endpoint: Endpoint, connection: Connection, how: str, head: Head | None
    ) -> tuple[dict[str, Any] | None, str]:
        if how == "Refused":
            self._reads -= 1  # it has written nothing
            endpoint.refused(self._host.now())
        elif head is None and connection.was_stale:
            self._reads -= 1  # closed while idle: the request never reached the engine
            endpoint.close_idle(float("inf"))
            return None, "Stale"
        elif head is None or self._status >= 500:
            endpoint.failed(self._host.now())
        else:
            endpoint.succeeded()
            if self._status != 200:
                self._reads -= 1
                return None, "Rejected"  # the answering engine will say why to the client
            raw = b"".join(self._parts)
            found = transfer_of(http1.unchunk(raw) if head.chunked else raw)
            return found, "" if found is not None else "NoTransfer"
        return None, "Refused" if how == "Refused" else "Failed"

    def _finish(self, how: str, head: Head | None = None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result((how, head))

    def _bytes(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_ANSWER_BYTES:
            self._finish("Failed")
        else:
            self._parts.append(data)

    # the answer's owner

    def refused(self, why: str) -> None:
        """The engine has no room."""
        _log.debug("prefill on pool %s: %s", self.pool.name, why)
        self._finish("Refused")

    def begins(self, head: Head) -> bytes:
        """Nothing of it goes to the client."""
        self._status = head.status
        return b""

    def ended(self, head: Head) -> None:
        """The answer is complete."""
        self._finish("Complete", head)

    def failed(self, why: str) -> None:
        """The engine died or sent what is no HTTP."""
        _log.debug("prefill on pool %s: %s", self.pool.name, why)
        self._finish("Failed")
