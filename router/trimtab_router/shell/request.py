"""One request as it arrives."""

from typing import Final

# Hop-by-hop, rewritten, or about the bytes that the router reads itself. Everything else is passed on.
NOT_FORWARDED: Final = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)
_READ: Final = {
    *(b"connection", b"content-encoding", b"content-length", b"expect", b"transfer-encoding", b"x-request-id"),
}
_OWN: Final = b"x-trimtab-"


_LINES: dict[bytes, bytes] = {}
"""How a header's forwarded line begins, by its name as clients write it; empty for those that are not forwarded."""
_MAX_LINES: Final = 512


def _classify(name: bytes) -> bytes:
    """Fills `_LINES`, within a bound: names are the clients' choice."""
    key = name.lower()
    line = b"" if key in NOT_FORWARDED or key.startswith(_OWN) else b"\r\n%b: " % key
    if len(_LINES) < _MAX_LINES:
        _LINES[name] = line
    return line


class Request:
    """Its parts, filled by the parser's callbacks."""

    __slots__ = (
        "forward",
        "header_bytes",
        "headers",
        "keep_alive",
        "method",
        "options",
        "parts",
        "size",
        "target",
        "v1_0",
    )

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.keep_alive = False
        self.v1_0 = False
        self.header_bytes = 0
        self.forward: list[bytes] = []
        """Header lines for the engine, each with a CRLF before it."""
        self.headers: dict[bytes, bytes] = {}
        """Those that the router reads."""
        self.options: dict[str, str] = {}
        """`x-trimtab-*`."""
        self.parts: list[bytes] = []
        self.size = 0

    def add_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self.header_bytes += len(name) + len(value) + 4
        line = _LINES.get(name)
        if line is None:
            line = _classify(name)
        if line:
            self.forward.append(line + value)
            return
        key = name.lower()
        if key in _READ:
            self.headers[key] = value
        elif key.startswith(_OWN):
            self.options[key.decode("latin-1")] = value.decode("latin-1").strip()

    def path(self) -> bytes:
        """The target without its query."""
        return self.target.split(b"?", 1)[0]

    def body(self) -> bytes:
        """The whole body."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def onward(self) -> bytes:
        """Header lines for an engine, each with a CRLF before it."""
        return b"\r\nx-request-id: " + self.headers[b"x-request-id"] + b"".join(self.forward)

    def head_without_upgrade(self) -> bytes:
        """The head as it came, but for the header `Upgrade`."""
        read = [b"\r\n%b: %b" % item for item in self.headers.items()]
        own = [f"\r\n{name}: {value}".encode("latin-1") for name, value in self.options.items()]
        return b"%b %b HTTP/1.1%b\r\n\r\n" % (self.method, self.target, b"".join((*read, *own, *self.forward)))

    def take(self, name: bytes) -> list[bytes]:
        """The values of a header, by its name in lower case, that engines do not get then."""
        start = b"\r\n%b: " % name
        found = [line for line in self.forward if line.startswith(start)]
        for line in found:
            self.forward.remove(line)
        return [line[len(start) :] for line in found]

    def drop_nominated(self) -> None:
        """Leaves out the headers that `Connection` declares to be for this hop only (RFC 9110, 7.6.1)."""
        named = {n.strip().lower() for n in self.headers.get(b"connection", b"").split(b",")}
        names = named - {b"keep-alive", b"close", b""}
        if names:
            self.forward = [line for line in self.forward if line[2:].split(b":", 1)[0] not in names]
