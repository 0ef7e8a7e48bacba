"""One router worker inside the test's own event loop, and a client that sees every byte."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvloop

from support.routing import FixedScorer, document
from support.upstream import FakeEngine
from trimtab_router.shell.batch import Scorer
from trimtab_router.shell.decisionlog import DecisionLog
from trimtab_router.shell.options import Options
from trimtab_router.shell.worker import Worker

BOUND_SECONDS = 20
CHAT = "/v1/chat/completions"


def on_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs an async test on the event loop that the router uses, with a bound."""

    async def bounded() -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            await test()

    def run() -> None:
        uvloop.run(bounded())

    run.__name__ = test.__name__
    return run


@dataclass
class Response:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    complete: bool = True

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error."""
        return str(self.json()["error"]["message"])


def request(
    body: object = None, *, path: str = CHAT, method: str = "POST", version: str = "1.1", **headers: str
) -> bytes:
    """A request with Content-Length; header names with `_` for `-`."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    length = f"content-length: {len(raw)}\r\n" if raw or method == "POST" else ""
    return f"{method} {path} HTTP/{version}\r\nhost: x\r\n{length}{lines}\r\n".encode() + raw


@dataclass
class Client:
    """A connection to the router."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head_only: bool = False

    async def send(self, raw: bytes) -> Self:
        self.writer.write(raw)
        await self.writer.drain()
        return self

    async def ask(self, body: object = None, **how: Any) -> Response:
        """Sends a request and reads its answer."""
        await self.send(request(body, **how))
        return await self.response(head_only=how.get("method") == "HEAD")

    async def head(self) -> Response:
        """The head of the next answer."""
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = raw.split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (entry.partition(":") for entry in lines if entry)}
        return Response(int(line.split(" ")[1]), headers)

    async def response(self, *, head_only: bool = False) -> Response:
        """The whole next answer."""
        found = await self.head()
        if head_only:
            return found
        if "chunked" in found.headers.get("transfer-encoding", ""):
            while chunk := await self.chunk():
                found.body += chunk
            found.complete = chunk is not None
        elif "content-length" in found.headers:
            wanted = int(found.headers["content-length"])
            try:
                found.body = await self.reader.readexactly(wanted)
            except asyncio.IncompleteReadError as short:
                found.body = short.partial
            found.complete = len(found.body) == wanted
        else:
            found.body = await self.reader.read(-1)
        return found

    async def chunk(self) -> bytes | None:
        """The next chunk's payload; empty at the end of the body, None when the connection ends before it."""
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]
        except asyncio.IncompleteReadError:
            return None

    async def closed(self) -> bool:
        """The router ended the connection, and sent nothing more."""
        with suppress(ConnectionError):
            return await self.reader.read(-1) == b""
        return True


@dataclass
class Running:
    """A worker and its address."""

    worker: Worker
    port: int
    path: Path
    server: asyncio.Server
    clients: list[Client] = field(default_factory=list)

    async def open(self, limit: int = 1 << 16) -> Client:
        """A new connection that takes in about `limit` bytes before they are read."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit))
        self.clients.append(client)
        return client

    async def ask(self, body: object = None, **how: Any) -> Response:
        """One request on a connection of its own."""
        client = await self.open()
        response = await client.ask(body, **how)
        client.writer.close()
        return response

    def tick(self, seconds: int) -> None:
        """Lets that many seconds pass for every time limit."""
        for _ in range(seconds):
            self.worker.tick()

    def write(self, content: Mapping[str, Any] | str) -> None:
        """Replaces the configuration file."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(content if isinstance(content, str) else json.dumps(content))
        fresh.replace(self.path)

    async def ask_or_leave(self, body: Mapping[str, Any], engines: Sequence[FakeEngine], *, leaves: bool) -> None:
        """Ask to the end; or leave as soon as an engine was asked, and wait until nothing of it is open."""
        if not leaves:
            await self.ask(body)
            return
        client = await (await self.open()).send(request(body))
        await self.until(lambda: any(engine.got for engine in engines))
        client.writer.close()
        await self.until(lambda: not self.worker.exchanges)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Waits for something that the event loop is about to do."""
        while not happened():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.001)

    def outcomes(self) -> dict[tuple[str, str, str], int]:
        """Ended requests by tier, reason and outcome."""
        return {(tier, reason, how): n for (tier, _, reason, how), n in self.worker.tally.requests.items()}


def with_engines(**engines: Sequence[FakeEngine]) -> dict[str, dict[str, Any]]:
    """Pools whose replicas are these engines."""
    return {tier: {"addresses": [e.address for e in replicas]} for tier, replicas in engines.items()}


@asynccontextmanager
async def running(
    content: Mapping[str, Any] | str | None = None,
    *,
    scorer: Scorer | None = None,
    log: DecisionLog | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """A worker that runs `content`; when the test ends nothing may be left in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "router.json"
        worker = Worker(Options(config=str(path), **options), scorer or FixedScorer(), log=log)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(worker.connection, "127.0.0.1", 0)
        found = Running(worker, server.sockets[0].getsockname()[1], path, server)
        if content != "":
            found.write(content or document())
            worker.config.poll()
        try:
            yield found
            for client in found.clients:
                client.writer.close()
            await found.until(lambda: not worker.clients)
            assert not worker.exchanges
            assert all(tier.inflight == 0 for tier in worker.tally.tiers.values())
            endpoints = [e for pool in worker.directory.pools.values() for e in pool.endpoints]
            await found.until(lambda: all(e.inflight == 0 for e in endpoints))  # what was cut takes a moment to let go
        finally:
            for client in found.clients:
                client.writer.transport.abort()
            server.close()
            worker.directory.close()
            await asyncio.sleep(0)
