"""An engine's answer on its way to the client: looked at until it is sure, then passed through unparsed."""

from collections.abc import Callable
from typing import Protocol

from trimtab_router.core import http1, sse
from trimtab_router.shell.options import Options

HELD_BYTES = 256 * 1024
"""A chunk that is longer than this is forwarded in parts."""


class Owner(Protocol):
    """Who asked for the answer."""

    def refused(self, why: str) -> None:
        """The engine has no room; nothing has been forwarded."""

    def begins(self, head: http1.Head) -> bytes:
        """The answer is this one; returns its head as the client gets it."""

    def ended(self, head: http1.Head) -> None:
        """The answer is complete."""

    def failed(self, why: str) -> None:
        """The engine died or sent what is no HTTP."""


class Answer:
    """The receiver of one connection for one request. `write` sends to the client."""

    __slots__ = (
        *("_before", "_chunks", "_events", "_head", "_held", "_last", "_left", "_next", "_owner", "_quiet_seconds"),
        *("_send", "_start", "begun"),
    )

    def __init__(self, owner: Owner, write: Callable[[bytes], None]) -> None:
        self._owner = owner
        self._send = write
        self._start = b""
        self._next: Callable[[bytes], None] = self._read_head
        self._head: http1.Head | None = None
        self._chunks = http1.Chunks()
        self._held = b""
        self._before = b""
        self._last = b""
        self._left = 0
        self._events = 0
        self._quiet_seconds = 0
        self.begun = False
        """Bytes of it have been forwarded."""

    def received(self, data: bytes) -> None:
        """Bytes from the engine."""
        self._quiet_seconds = 0
        try:
            self._next(data)
        except http1.FramingError as error:
            self._owner.failed(str(error))

    def tick(self, options: Options) -> str:
        """Once a second; says what did not come in time, else nothing."""
        self._quiet_seconds += 1
        limit, what = (options.idle_seconds, "token") if self.begun else (options.first_byte_seconds, "answer")
        return f"no {what} for {limit:g} seconds" if self._quiet_seconds > limit else ""

    def lost(self) -> None:
        """The engine closed the connection."""
        if self.begun and self._head is not None and self._head.until_close:
            self._owner.ended(self._head)
        else:
            self._owner.failed("the engine closed the connection")

    def _read_head(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > http1.MAX_HEAD_BYTES:
                raise http1.FramingError("the head of the answer has no end")
            self._held = data
            return
        self._held = b""
        head, body = http1.parse_head(data[: end + 2]), data[end + 4 :]
        if head.status < 200:
            if body:
                self._read_head(body)
        elif head.status == 503:
            self._owner.refused(f"HTTP 503 {body[:200].decode('utf-8', 'replace')}")
        else:
            self._head = head
            if head.events and head.status == 200:
                self._next = self._read_first_event
                if body:
                    self._read_first_event(body)
            else:
                self._begin(head, body)

    def _read_first_event(self, data: bytes) -> None:
        """Holds a stream back until its first event shows whether the engine takes the request."""
        self._held += data
        head = self._head
        assert head is not None  # noqa: S101 - set by _read_head
        event = sse.first_event(http1.unchunk(self._held) if head.chunked else self._held)
        if event is None:
            return
        why = sse.refusal(event)
        if why is None:
            held, self._held = self._held, b""
            self._begin(head, held)
        else:
            self._owner.refused(why)

    def _begin(self, head: http1.Head, body: bytes) -> None:
        self.begun = True
        self._left = head.length or 0
        if head.chunked:
            self._next = self._pass_chunks
        else:
            self._next = self._pass_length if head.length is not None else self._pass_until_close
        self._start = self._owner.begins(head)
        if body or head.length == 0:
            self._next(body)
        if self._start:
            self._write(b"")

    def _write(self, data: bytes) -> None:
        """To the client; the head goes with the first bytes of the body, in one system call."""
        if self._start:
            data, self._start = self._start + data, b""
        self._send(data)

    def _pass_length(self, data: bytes) -> None:
        self._before, self._last = self._last, data
        self._left -= len(data)
        if self._left < 0:
            raise http1.FramingError("the answer is longer than its Content-Length")
        self._write(data)
        if not self._left:
            self._end()

    def _pass_until_close(self, data: bytes) -> None:
        self._before, self._last = self._last, data
        self._events += sse.count_tokens(data)
        self._write(data)

    def _pass_chunks(self, data: bytes) -> None:
        """Forwards whole chunks only, so that an error event can follow at any time."""
        chunks = self._chunks
        try:
            chunks.feed(data)
        except http1.FramingError:
            self._pass_partly(data, chunks.boundary)
            raise
        self._before, self._last = self._last, data
        self._events += sse.count_tokens(data)
        if chunks.boundary == len(data) and not self._held:
            self._write(data)
        else:
            self._pass_partly(data, chunks.boundary)
        if chunks.done:
            self._end()

    def _pass_partly(self, data: bytes, boundary: int) -> None:
        if boundary:
            self._write(self._held + data[:boundary])
            self._held = data[boundary:]
        else:
            self._held += data
            if len(self._held) > HELD_BYTES:
                self._write(self._held)
                self._held = b""

    def _end(self) -> None:
        assert self._head is not None  # noqa: S101 - set by _read_head
        self._owner.ended(self._head)

    def break_off(self, message: str, code: int) -> None:
        """Tells the client that a begun answer ends here: an event in a stream, nothing elsewhere."""
        if self._head is not None and self._head.events:
            self._write(sse.error_event(message, code, chunked=self._head.chunked))

    def close(self) -> int:
        """Takes no more bytes; returns the tokens that the engine produced.

        That is its own usage where it says it, else the events after the first one, which only opens the message.
        """
        self._next = _ignore  # a bound method would keep the answer alive until the garbage collector runs
        if not self.begun:
            return 0
        used = sse.used_tokens(self._last)
        if used is None and self._before:
            used = sse.used_tokens(self._before[-sse.TAIL_BYTES :] + self._last)
        return max(self._events - 1, 0) if used is None else used


def _ignore(_data: bytes) -> None:
    """Bytes after the end."""
