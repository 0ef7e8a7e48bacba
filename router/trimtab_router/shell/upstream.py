"""Connections to engines: pooled, HTTP/1.1, bytes unparsed; and the replicas they belong to."""

import asyncio
from collections import deque
from typing import Protocol, cast
from zlib import crc32

from trimtab_router.core.breaker import WELL, Health, failed, refused

IDLE_SECONDS = 4.0
"""Below the 5 s after which vLLM's server (uvicorn) closes an idle connection."""
MAX_IDLE = 256
MAX_ATTEMPTS = 8
"""Replicas that are asked for one answer."""
MAX_DEATHS = 2
"""Replicas that may die of one request before it is not tried again."""


class Receiver(Protocol):
    """Who waits for an answer."""

    def received(self, data: bytes) -> None:
        """Bytes of the answer."""

    def lost(self) -> None:
        """The connection ended."""


class Endpoint:
    """One replica of a pool."""

    __slots__ = ("address", "gone", "health", "host", "host_header", "idle", "inflight", "port", "seed", "texts")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.host_header = self.address.encode()
        self.seed = crc32(self.address.encode())
        self.health: Health = WELL
        self.idle: deque[Connection] = deque()
        self.inflight = 0
        self.gone = False
        self.texts: dict[str, tuple[int, ...]] = {}
        """Texts whose tokens it was asked for."""

    def take_idle(self) -> "Connection | None":
        """The connection that was used last, if one is open."""
        return self.idle.pop() if self.idle else None

    async def connect(self, timeout_seconds: float) -> "Connection":
        """A new connection; raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_seconds):
            _, protocol = await loop.create_connection(lambda: Connection(self), self.host, self.port)
        return protocol

    def failed(self, now: float) -> None:
        """It could not be reached, or died: another engine may have its address next."""
        self.texts.clear()
        self.health = failed(self.health, now)

    def refused(self, now: float) -> None:
        """It answered that it has no room."""
        self.health = refused(self.health, now)

    def succeeded(self) -> None:
        """It answers."""
        if self.health.failures:
            self.health = WELL

    def close_idle(self, before: float) -> None:
        """Closes connections that were last used before that time."""
        while self.idle and self.idle[0].idle_since < before:
            self.idle.popleft().close()

    def leave(self) -> None:
        """The pool has lost the replica; what is in flight ends by itself."""
        self.gone = True
        self.close_idle(float("inf"))


class Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time."""

    __slots__ = ("endpoint", "idle_since", "receiver", "reused", "transport")

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.receiver: Receiver | None = None
        self.idle_since = 0.0
        self.reused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's callback."""
        self.transport = cast("asyncio.Transport", transport)

    def post(self, receiver: Receiver, path: bytes, body: bytes, headers: bytes, *, minor: int = 1) -> None:
        """Posts JSON in HTTP/1.`minor`, with further header lines; `receiver` gets the answer."""
        self.receiver = receiver
        head = b"POST %b HTTP/1.%d\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d%b\r\n\r\n" % (
            *(path, minor, self.endpoint.host_header, len(body), headers),
        )
        self.transport.writelines((head, body))

    @property
    def was_stale(self) -> bool:
        """The engine had closed it while it was idle, so that what was sent never arrived."""
        return self.reused and self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Asyncio's callback."""
        if self.receiver is None:
            self.transport.abort()
        else:
            self.receiver.received(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Asyncio's callback."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.lost()
        elif self in self.endpoint.idle:
            self.endpoint.idle.remove(self)

    def release(self, now: float) -> None:
        """The answer is complete: the connection may carry the next one."""
        self.receiver = None
        self.reused = True
        self.idle_since = now
        if self.endpoint.gone or self.transport.is_closing() or len(self.endpoint.idle) >= MAX_IDLE:
            self.transport.close()
        else:
            self.endpoint.idle.append(self)

    def close(self) -> None:
        """Ends it, without a word to the receiver."""
        self.receiver = None
        self.transport.close()

    def abort(self) -> None:
        """Ends it at once, so that the engine stops working for nobody."""
        self.receiver = None
        self.transport.abort()
