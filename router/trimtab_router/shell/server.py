"""The client's side of a connection: one answer after the other, back-pressure, time limits."""

import asyncio
from typing import Protocol, cast

from trimtab_router.core.errors import STATUS, ApiError
from trimtab_router.shell.options import Options
from trimtab_router.shell.reader import RequestReader
from trimtab_router.shell.request import Request

LINGER_SECONDS = 2
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange(Protocol):
    """An answer that comes from an engine."""

    def client_gone(self) -> None:
        """Nobody waits any more."""

    def pause(self) -> None:
        """The client reads too slowly."""

    def resume(self) -> None:
        """The client reads again."""


class Host(Protocol):
    """The worker that the connection belongs to."""

    options: Options
    draining: bool
    clients: "set[ClientConnection]"

    def dispatch(self, client: "ClientConnection", request: Request) -> None:
        """Starts the answer to a request; `client.done` must follow."""


class ClientConnection(asyncio.Protocol):
    """One client. Requests of a pipeline wait for the one before them."""

    __slots__ = (
        *("_host", "_paused", "_pumping", "_reader", "_seconds", "_waits_for"),
        *("busy", "current", "exchange", "stalled_seconds", "transport"),
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._reader = RequestReader(host.options)
        self._seconds = 0
        self._waits_for: Request | None = None
        self._paused = False
        self._pumping = False
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.current: Request | None = None
        """The request that is being answered; None for one that could not be read."""
        self.busy = False
        self.stalled_seconds: int | None = None
        """How long the client has read nothing although there is something to read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        self.transport = cast("asyncio.Transport", transport)
        self._host.clients.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Asyncio's callback."""
        self.transport = None
        self._reader.queue.clear()
        self._host.clients.discard(self)
        if self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.client_gone()

    def pause_writing(self) -> None:
        """Asyncio's callback."""
        self.stalled_seconds = 0
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """Asyncio's callback."""
        self.stalled_seconds = None
        if self.exchange is not None:
            self.exchange.resume()
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        self._reader.feed(data)
        self._pump()

    def _pump(self) -> None:
        """Starts the next answer when there is none in progress."""
        if self._pumping:
            return
        self._pumping = True
        queue = self._reader.queue
        while queue and not self.busy and self.stalled_seconds is None and self.transport is not None:
            self.busy = True
            item = queue.popleft()
            if isinstance(item, ApiError):
                self.current = None
                self.respond_error(item)
            else:
                self.current = item
                self._host.dispatch(self, item)
        self._pumping = False
        if self.transport is None or self.transport.is_closing():
            return
        if self._reader.continue_due and not self.busy:
            self._reader.continue_due = False
            self.transport.write(CONTINUE)
        self._hold_back(bool(queue))

    def _hold_back(self, wanted: bool) -> None:
        """A client that sends ahead is not read until it is served."""
        if self.transport is not None and wanted is not self._paused:
            self._paused = wanted
            if wanted:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def keeps(self) -> bool:
        """The connection stays open after the current answer."""
        return self.current is not None and self.current.keep_alive and not self._host.draining

    def respond(
        self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"application/json"
    ) -> None:
        """A whole answer. `headers` are lines, each with a CRLF before it."""
        keep = self.keeps()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d%b%b\r\n\r\n" % (
            *(status, STATUS[status], content_type, len(body)),
            *(headers, b"" if keep else b"\r\nconnection: close"),
        )
        if self.transport is not None:
            without = self.current is not None and self.current.method == b"HEAD"
            self.transport.write(head if without else head + body)
        self.done(keep=keep)

    def respond_error(self, error: ApiError, headers: bytes = b"") -> None:
        """An error in OpenAI's shape."""
        if error.retry_after_seconds is not None:
            headers += b"\r\nretry-after: %d" % error.retry_after_seconds
        if error.status == 401:
            headers += b"\r\nwww-authenticate: Bearer"
        if error.allow is not None:
            headers += b"\r\nallow: %b" % error.allow.encode()
        self.respond(error.status, error.body(), headers)

    def done(self, *, keep: bool) -> None:
        """The current answer is complete; `keep` is false when the connection must end with it."""
        self.busy = False
        self.exchange = None
        self._seconds = 0
        if self.transport is None:
            return
        if not keep:
            self._linger()
        elif self._paused or self._reader.queue or self._reader.continue_due:
            self._pump()

    def _linger(self) -> None:
        """Ends the sending side and swallows what still arrives: closing with unread data would reset the connection
        and could destroy the answer on its way (RFC 9112, 9.6).
        """
        self._reader.deaf = True
        self._reader.queue.clear()
        if self.transport is not None:
            self._hold_back(False)
            self.transport.write_eof()

    def close_idle(self) -> None:
        """Closes the connection if nothing is in progress on it."""
        if not self.busy and self._reader.request is None and self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def tick(self) -> None:
        """Once a second: time limits."""
        options = self._host.options
        if self.stalled_seconds is not None:
            self.stalled_seconds += 1
            if self.stalled_seconds > options.stall_seconds:
                self.abort()
        elif not self.busy:
            self._tick_waiting(options)

    def _tick_waiting(self, options: Options) -> None:
        """Limits while a request is awaited; the time starts again when its first byte comes."""
        arriving = self._reader.request
        if arriving is not self._waits_for:
            self._waits_for, self._seconds = arriving, 0
        self._seconds += 1
        if self._reader.deaf:
            if self._seconds > LINGER_SECONDS:
                self.abort()
        elif arriving is None:
            if self._seconds > options.keep_alive_seconds:
                self.close_idle()
        else:
            part, limit = ("body", options.body_seconds) if arriving.method else ("headers", options.head_seconds)
            if self._seconds > limit:
                message = f"{part}: not complete after {limit:g} seconds; send faster"
                self._reader.stop(ApiError(408, message, code="timeout"))
                self._pump()
