"""A tiny engine for the router's tests: answers, refuses, dies and hangs on demand, and remembers what it got."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

Behaviour = Callable[["Got", asyncio.StreamWriter], Awaitable[None]]
USAGE = {"prompt_tokens": 9, "total_tokens": 16, "completion_tokens": 7}


@dataclass
class Got:
    """One request as the engine got it."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]
    client_gone: asyncio.Event = field(default_factory=asyncio.Event)


def json_answer(status: int = 200, body: object = None, headers: str = "") -> Behaviour:
    """A whole answer with Content-Length."""
    shown = {"id": "x", "choices": [{"message": {"content": "hi"}}], "usage": USAGE} if body is None else body
    raw = json.dumps(shown).encode()

    async def behave(_: Got, out: asyncio.StreamWriter) -> None:
        out.write(
            f"HTTP/1.1 {status} Whatever\r\nserver: fake\r\nconnection: keep-alive\r\n{headers}"
            f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
            + raw
        )

    return behave


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(data: object) -> bytes:
    """One chunk with one event."""
    raw = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def token(text: str) -> bytes:
    """A chunk of a chat answer."""
    return event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})


def raw_answer(*parts: bytes, gate: asyncio.Event | None = None, die: bool = False) -> Behaviour:
    """Writes `parts`, waiting for `gate` before the last one; `die` closes the connection after them."""

    async def behave(_: Got, out: asyncio.StreamWriter) -> None:
        for i, part in enumerate(parts):
            if gate is not None and i == len(parts) - 1:
                await gate.wait()
            out.write(part)
            await out.drain()
        if die:
            out.close()

    return behave


def stream_answer(*texts: str, gate: asyncio.Event | None = None) -> Behaviour:
    """A complete stream."""
    tokens = [token(t) for t in texts or ("a", "b", "c")]
    return raw_answer(STREAM_HEAD, token(""), *tokens[:-1], tokens[-1] + event("[DONE]") + END, gate=gate)


async def hang(got: Got, _: asyncio.StreamWriter) -> None:
    """Never answers; ends when the client is gone."""
    await got.client_gone.wait()


async def die(_: Got, out: asyncio.StreamWriter) -> None:
    """Closes the connection instead of an answer."""
    out.close()


class FakeEngine:
    """An engine on a free port of the loopback. `plan` holds the behaviours of the next requests, then `default`."""

    def __init__(self, default: Behaviour | None = None) -> None:
        self.default = default or json_answer()
        self.plan: list[Behaviour] = []
        self.got: list[Got] = []
        self.connections = 0
        self.texts: dict[str, list[int]] | None = None
        """What `/tokenize` says; it is not there where this is None. Such requests are in `tokenized`."""
        self.tokenized: list[Got] = []
        self.tokenizer: list[Behaviour] = []
        """What the next of them get instead."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Closes every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while (got := await self._read(reader)) is not None:
                if got.line.startswith("POST /tokenize "):
                    self.tokenized.append(got)
                    if self.tokenizer:
                        watching = asyncio.create_task(self._watch(reader, got))
                        await self.tokenizer.pop(0)(got, writer)
                        watching.cancel()
                        await asyncio.gather(watching, return_exceptions=True)
                        continue
                    known = None if self.texts is None else {"tokens": self.texts[got.body["prompt"]]}
                    await json_answer(404 if known is None else 200, known or {"detail": "Not Found"})(got, writer)
                    continue
                self.got.append(got)
                watching = asyncio.create_task(self._watch(reader, got))
                await (self.plan.pop(0) if self.plan else self.default)(got, writer)
                await writer.drain()
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader, got: Got) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        got.client_gone.set()

    async def _read(self, reader: asyncio.StreamReader) -> Got | None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (entry.partition(":") for entry in lines if entry)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        return Got(line, headers, json.loads(raw or b"{}"))
