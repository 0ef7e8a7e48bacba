"""One streamed call of an attempt: a replica is found, its events are read, it can be cut at any time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from trimtab_crds.wire import PoolConfig
from trimtab_router.core.disaggregated import Reading, decode_body
from trimtab_router.core.events import EventReader, Piece, read_event
from trimtab_router.core.http1 import Head, unchunk
from trimtab_router.shell.answer import Answer
from trimtab_router.shell.endpoints import Directory
from trimtab_router.shell.options import Options
from trimtab_router.shell.prefill import Prefill
from trimtab_router.shell.request import Request
from trimtab_router.shell.upstream import MAX_ATTEMPTS, Connection, Endpoint

MAX_ERROR_BYTES: Final = 64 * 1024


class Host(Protocol):
    """The worker, as far as a call needs it."""

    options: Options
    directory: Directory

    def now(self) -> float:
        """Monotonic seconds."""


class CallError(Exception):
    """The call has no answer. `body` is the engine's own error document, where it gave one; `died`: the engine did,
    another may do better.
    """

    def __init__(self, message: str, status: int = 502, body: bytes = b"", *, died: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.body = body
        self.died = died


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to send where."""

    pool: str
    key: int
    path: bytes
    body: bytes
    pinned: Endpoint | None = None
    """Only this replica will do."""
    reader: PoolConfig | None = None
    """The pool that reads the prompt first, where another one does."""


class Call:
    """Send it with `run`; `piece` gets every event and says whether to cut."""

    __slots__ = (
        *(
            "_answer",
            "_connection",
            "_done",
            "_head",
            "_host",
            "_order",
            "_paused",
            "_piece",
            "_prefill",
            "_raw",
            "_reader",
            "_request",
        ),
        *("begun", "endpoint", "reading", "reads", "tried"),
    )

    def __init__(self, host: Host, request: Request, order: Order, piece: Callable[[Piece], bool]) -> None:
        self._host = host
        self._request = request
        self._order = order
        self._piece = piece
        self._connection: Connection | None = None
        self._answer: Answer | None = None
        self._head: Head | None = None
        self._reader = EventReader(chunked=True)
        self._raw = b""
        self._paused = False
        self._done: asyncio.Future[tuple[str, Any]] | None = None
        reader = order.reader
        self._prefill = None if reader is None else Prefill(host, request, reader, order.key)
        self.endpoint: Endpoint | None = None
        self.reading: Reading | None = None
        self.reads = 0
        self.begun = False
        self.tried: set[Endpoint] = set()

    async def run(self) -> bool:
        """Returns whether the answer is complete (else it was cut); raises CallError."""
        why = f"pool {self._order.pool} has no ready replica"
        for _ in range(MAX_ATTEMPTS):
            endpoint = self._next()
            if endpoint is None:
                break
            self.tried.add(endpoint)
            self.endpoint = endpoint
            endpoint.inflight += 1
            try:
                how, what = await self._send(endpoint)
            except (OSError, TimeoutError) as error:
                endpoint.failed(self._host.now())
                why = f"{endpoint.address} could not be reached ({error or 'timeout'})"
                continue
            finally:
                endpoint.inflight -= 1
            if how in ("complete", "cut"):
                return how == "complete"
            why = f"{endpoint.address}: {what}"
            if how == "failed":
                raise CallError(why, died=True)
            if how == "late":
                raise CallError(why, 504)
        raise CallError(f"{why}; try again in a moment", 503)

    def _next(self) -> Endpoint | None:
        pinned = self._order.pinned
        if pinned is not None:
            return None if pinned in self.tried or pinned.gone else pinned
        replicas = self._host.directory.pools.get(self._order.pool)
        return None if replicas is None else replicas.pick(self.tried, self._order.key, self._host.now())

    async def _send(self, endpoint: Endpoint) -> tuple[str, Any]:
        """One replica's answer; raises OSError or TimeoutError where it is out of reach, CallError where it refuses."""
        body = self._order.body
        if self._prefill is not None:
            self.reading = await self._prefill.read(self._order.path, body)
            self.reads += self.reading.reads
            body = body if self.reading.transfer is None else decode_body(body, self.reading.transfer)
        connection = endpoint.take_idle() or await endpoint.connect(self._host.options.connect_seconds)
        self._connection = connection
        self._done = asyncio.get_running_loop().create_future()
        self._answer = Answer(self, self._bytes)
        connection.post(self._answer, self._order.path, body, self._request.onward())
        if self._paused:
            connection.transport.pause_reading()
        whole = False
        try:
            how, what = await self._done
            whole = how == "complete"
            return self._judged(endpoint, connection, how, what)
        finally:
            self._leave(connection, keep=whole and what.keep and not what.until_close)

    def _judged(self, endpoint: Endpoint, connection: Connection, how: str, what: Any) -> tuple[str, Any]:
        if how == "refused":
            endpoint.refused(self._host.now())
        elif how == "failed":
            if not self.begun and connection.was_stale:
                self.tried.discard(endpoint)  # closed while idle: the request never reached the engine
                endpoint.close_idle(float("inf"))
                return "refused", "had closed an idle connection"
            endpoint.failed(self._host.now())
        elif how == "complete":
            endpoint.succeeded()
            if what.status != 200:
                body = unchunk(self._raw) if what.chunked else self._raw
                raise CallError(f"{endpoint.address} answered HTTP {what.status}", what.status, body)
        return how, what

    def _leave(self, connection: Connection, *, keep: bool) -> None:
        self._connection, answer = None, self._answer
        self._answer = None
        if answer is not None:
            answer.close()
        connection.receiver = None
        if keep:
            if self._paused:
                connection.transport.resume_reading()
            connection.release(self._host.now())
        else:
            connection.abort()

    def _finish(self, how: str, what: Any) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result((how, what))

    def _bytes(self, data: bytes) -> None:
        if self._done is None or self._done.done() or self._head is None:
            return
        if self._head.status != 200:
            self._raw += data[: MAX_ERROR_BYTES - len(self._raw)]
            return
        for event in self._reader.feed(data):
            piece = read_event(event)
            if piece is None:
                continue
            if piece.error is not None:
                self._finish("failed", piece.error)
            elif self._piece(piece):
                self._finish("cut", None)
            if self._done.done():
                return

    # the answer's owner

    def refused(self, why: str) -> None:
        """The engine has no room."""
        self._finish("refused", why)

    def begins(self, head: Head) -> bytes:
        """Nothing of the head goes to the client."""
        self._head, self.begun = head, head.status == 200
        self._reader = EventReader(chunked=head.chunked)
        return b""

    def ended(self, head: Head) -> None:
        """The answer is complete."""
        self._finish("complete", head)

    def failed(self, why: str) -> None:
        """The engine died or sent what is no HTTP."""
        self._finish("failed", why)

    # the conductor's side

    def tick(self) -> None:
        """Once a second: time limits."""
        if self._answer is not None and (late := self._answer.tick(self._host.options)):
            self._finish("late", late)

    def pause(self) -> None:
        """Stops reading the engine, or does not begin to."""
        self._paused = True
        if self._connection is not None and not self._connection.transport.is_closing():
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Reads the engine again."""
        self._paused = False
        if self._connection is not None and not self._connection.transport.is_closing():
            self._connection.transport.resume_reading()
