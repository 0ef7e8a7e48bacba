"""HTTP/1.1 as far as passing an answer through needs it (RFC 9112): its head, and where its body ends. No I/O."""

import re
from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
# Hop-by-hop headers (RFC 9110, 7.6.1) and those that the router sets itself.
_OWN: Final = rb"\r\n(?:connection|keep-alive|proxy-[a-z-]+|te|trailer|upgrade|x-request-id|x-trimtab-[a-z-]+):"
_HAS_OWN: Final = re.compile(_OWN)
_OWN_LINES: Final = re.compile(_OWN + rb"[^\r]*", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[^\r]*\bclose\b")
_MAX_SIZE_LINE: Final = 4096


class FramingError(Exception):
    """What came is not HTTP/1.1; the connection cannot be used further."""


@dataclass(slots=True)
class Head:
    """The head of an answer."""

    status: int
    lines: bytes
    """Status line and end-to-end headers, each line but the last followed by CRLF."""
    length: int | None
    chunked: bool
    events: bool
    """The body is a stream of server-sent events."""
    keep: bool
    """The connection may be used again."""

    @property
    def until_close(self) -> bool:
        """Only the end of the connection ends the body."""
        return self.length is None and not self.chunked


def parse_head(raw: bytes) -> Head:
    """`raw` is everything up to the empty line, without it, but with the CRLF of the last header."""
    if not raw.startswith(b"HTTP/1.") or not raw[9:12].isdigit():
        raise FramingError(f"not an HTTP/1.1 answer: {raw[:40]!r}")
    status, low = int(raw[9:12]), raw.lower()
    chunked = _value(low, b"\r\ntransfer-encoding:").endswith(b"chunked")
    length = _number(_value(low, b"\r\ncontent-length:")) if not chunked else None
    if status in (204, 304) or status < 200:
        length, chunked = 0, False
    events = _value(low, b"\r\ncontent-type:").startswith(b"text/event-stream")
    if _HAS_OWN.search(low) is None:
        return Head(status, raw[:-2], length, chunked, events, raw[7:8] == b"1")
    keep = raw[7:8] == b"1" and _CLOSE.search(low) is None
    return Head(status, _OWN_LINES.sub(b"", raw[:-2]), length, chunked, events, keep)


def _value(low: bytes, name: bytes) -> bytes:
    """The value of a header in a head in lower case; empty when it is absent."""
    start = low.find(name)
    return low[start + len(name) : low.find(b"\r", start + len(name))].strip() if start >= 0 else b""


def _number(text: bytes) -> int | None:
    if not text:
        return None
    if not text.isdigit():
        raise FramingError(f"not a Content-Length: {text[:40]!r}")
    return int(text)


class Chunks:
    """Follows a chunked body without copying it."""

    __slots__ = ("_line", "_skip", "_trailer", "boundary", "done")

    def __init__(self) -> None:
        self._skip = 0
        self._line = b""
        self._trailer = False
        self.done = False
        self.boundary = 0
        """How much of the last fed data ends with a whole chunk: what is forwarded up to there is well formed."""

    def feed(self, data: bytes) -> None:
        """Follows `data`; raises FramingError, and then `boundary` still tells what came before the fault."""
        before = len(self._line)
        if before:
            data, self._line = self._line + data, b""
        pos, end = self._skip, len(data)
        self._skip = self.boundary = 0
        while pos <= end:
            if not self._trailer and pos > before:
                self.boundary = pos - before
            line = data.find(b"\r\n", pos)
            if line < 0:
                self._keep_line(data[pos:])
                return
            if self._trailer:
                if line == pos:
                    self.done, self.boundary = True, line + 2 - before
                    return
                pos = line + 2
            elif size := chunk_size(data[pos:line]):
                pos = line + 4 + size
            else:
                self._trailer, pos = True, line + 2
        self._skip = pos - end

    def _keep_line(self, line: bytes) -> None:
        if len(line) > _MAX_SIZE_LINE:
            raise FramingError("the size line of a chunk has no end")
        self._line = line


def chunk_size(line: bytes) -> int:
    """The size in the line before a chunk; raises FramingError."""
    try:
        size = int(line.split(b";", 1)[0], 16)
    except ValueError:
        size = -1
    if size < 0:
        raise FramingError(f"not the size of a chunk: {line[:40]!r}")
    return size


def unchunk(data: bytes) -> bytes:
    """The payload in the beginning of a chunked body; a chunk that is cut off counts as far as it goes."""
    parts: list[bytes] = []
    pos = 0
    while (line := data.find(b"\r\n", pos)) >= 0:
        try:
            size = chunk_size(data[pos:line])
        except FramingError:
            if parts:
                break
            raise
        parts.append(data[line + 2 : line + 2 + size])
        pos = line + 4 + size
        if size == 0 or pos > len(data):
            break
    return b"".join(parts)
