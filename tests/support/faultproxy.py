"""A bad day of an API server: a proxy that passes requests on, and hurts some of them by a seeded schedule.

It listens on loopback without TLS and asks the real server as the user of a kubeconfig, so roles and the audit log go
on to hold. Faults are chosen in the order of arrival; `calm` ends them. Leases are hurt too, but never twice in a row:
losing the lease is another story (test_operator_leadership.py).
"""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from testcluster.api import tls_of, write_kubeconfig

HURT_SHARE, HURT_WATCHES_SHARE = 0.25, 0.6
RETRY_AFTER_SECONDS = 1
SLOW_SECONDS = 1.5
READ_FAULTS = ("429", "500", "503", "slow", "reset", "cut", "lost")
WRITE_FAULTS = (*READ_FAULTS, "409", "409-stale")
WATCH_FAULTS = ("410", "error", "cut", "half", "end", "503", "429", "reset")
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "authorization"}
_REASONS = {
    "409": (409, "AlreadyExists", "object is being deleted"),
    "409-stale": (
        409,
        "Conflict",
        "the object has been modified; please apply your changes to the latest version and try again",
    ),
    "429": (429, "TooManyRequests", "the server has received too many requests"),
    "500": (500, "InternalError", "etcdserver: leader changed"),
    "503": (503, "ServiceUnavailable", "the server is currently unable to handle the request"),
}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, and what was done to it."""

    at: float
    method: str
    path: str
    fault: str


@dataclass
class FaultProxy:
    """Serves between `with`; `kubeconfig` leads through it."""

    kubeconfig: Path
    seed: int
    folder: Path
    seen: list[Seen] = field(default_factory=list)
    outage: bool = False
    """Answer everything with 503."""
    around_write: "Callable[[], Callable[[], None]]" = lambda: lambda: None
    """Called before a write (leases aside) is passed on; what it returns, before the writer gets the answer."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._decks: dict[tuple[str, ...], list[str]] = {}
        self._calm = False
        self._lease_was_hurt = False
        self._server, self._tls = tls_of(self.kubeconfig)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=30)
        user = {"token": "not looked at"}
        self.through = write_kubeconfig(
            self.folder / "through-proxy.kubeconfig", server=f"http://127.0.0.1:{port}", authority=b"", user=user
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()

    def calm(self) -> None:
        """No more faults."""
        self._calm, self.outage = True, False

    def faults(self) -> Counter[str]:
        """What was done, by kind; `watch:` and `write:` tell to what."""
        return Counter(seen.fault for seen in self.seen if seen.fault)

    async def _start(self) -> int:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        # Watches have no end, and a slow server is part of the play.
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**22
        )
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        await self._runner.cleanup()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._session.close()
        await asyncio.sleep(0.25)  # for the transports to close

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        watches = request.query.get("watch") in ("1", "true")
        fault = self._choose(request, watches=watches)
        kind = "watch" if watches else "read" if request.method == "GET" else "write"
        self.seen.append(Seen(time.monotonic(), request.method, request.path_qs, f"{kind}:{fault}" if fault else ""))
        if fault in _REASONS and not (watches and fault == "410"):
            return _refusal(fault)
        if fault == "reset":
            return _reset(request)
        if fault == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        answered = self.around_write() if kind == "write" and "/leases" not in request.path else lambda: None
        try:
            return await self._pass_on(request, fault, answered=answered, watches=watches)
        except (aiohttp.ClientError, ConnectionError) as error:
            return web.json_response({"message": str(error)}, status=502)

    def _choose(self, request: web.BaseRequest, *, watches: bool) -> str:
        if self.outage:
            return "503"
        if self._calm or self._random.random() > (HURT_WATCHES_SHARE if watches else HURT_SHARE):
            self._lease_was_hurt = self._lease_was_hurt and "/leases/" not in request.path
            return ""
        if "/leases" in request.path:
            self._lease_was_hurt = not self._lease_was_hurt
            if not self._lease_was_hurt:
                return ""
        faults = WATCH_FAULTS if watches else READ_FAULTS if request.method == "GET" else WRITE_FAULTS
        return self._drawn(faults)

    def _drawn(self, faults: tuple[str, ...]) -> str:
        """Each fault once in a random order, then all of them again: a short run has every kind."""
        deck = self._decks.setdefault(faults, [])
        if not deck:
            deck += self._random.sample(faults, len(faults))
        return deck.pop()

    async def _pass_on(
        self, request: web.BaseRequest, fault: str, *, answered: Callable[[], None], watches: bool
    ) -> web.StreamResponse:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["Accept-Encoding"] = "identity"
        async with self._session.request(
            request.method, self._server + request.path_qs, data=body or None, headers=headers
        ) as answer:
            if watches and answer.status == 200:
                return await self._watch(request, answer, fault)
            data = await answer.read()
            answered()
        if fault == "lost":  # it was done, and nobody learns of it
            return _reset(request)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        if fault != "cut":
            return web.Response(status=answer.status, body=data, headers=kept)
        response = web.StreamResponse(status=answer.status, headers={**kept, "Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        return _reset(request, response)

    async def _watch(self, request: web.BaseRequest, answer: aiohttp.ClientResponse, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        patience = self._random.randint(0, 3)
        async for line in answer.content:
            if fault and patience == 0 and not self._calm:
                return await self._end(request, response, fault, line)
            patience -= 1
            await response.write(line)
        return response

    async def _end(
        self, request: web.BaseRequest, response: web.StreamResponse, fault: str, line: bytes
    ) -> web.StreamResponse:
        """Instead of the event: what a watch ends with. The event is not lost, the client has to look again."""
        if fault == "half":
            await response.write(line[: len(line) // 2])
        if fault in ("410", "error"):
            status = _status(*_GONE if fault == "410" else _REASONS["500"])
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        if fault in ("cut", "half"):
            return _reset(request, response)
        return response


_GONE = (410, "Expired", "too old resource version")


def _status(code: int, reason: str, message: str) -> Mapping[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _refusal(fault: str) -> web.Response:
    code, reason, message = _REASONS[fault]
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if code == 429 else {}
    return web.json_response(_status(code, reason, message), status=code, headers=headers)


def _reset(request: web.BaseRequest, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Drop the connection as it is."""
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=502)
