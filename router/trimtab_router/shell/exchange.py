"""One request on its way: replicas are tried until one answers.

Until an answer has begun (for a stream: until its first event has been seen) a failure tries the next replica and then
the plan's next candidate. Then it can only be said: by an error event in a stream, by a cut connection elsewhere.
A generation has no side effect, so trying it again is safe; what kills engines is not tried on all of them.
"""

import asyncio
import logging
from typing import Protocol

from trimtab_router.core.disaggregated import decode_body
from trimtab_router.core.errors import ApiError
from trimtab_router.core.http1 import Head
from trimtab_router.core.parse import Ask
from trimtab_router.core.plan import Plan
from trimtab_router.core.planner import fall_back
from trimtab_router.core.rewrite import rewrite
from trimtab_router.shell import account
from trimtab_router.shell.answer import Answer
from trimtab_router.shell.endpoints import Directory
from trimtab_router.shell.options import Options
from trimtab_router.shell.prefill import Prefill
from trimtab_router.shell.request import Request
from trimtab_router.shell.server import ClientConnection
from trimtab_router.shell.upstream import MAX_ATTEMPTS, MAX_DEATHS, Connection, Endpoint

RETRY_AFTER_SECONDS = 2
_log = logging.getLogger(__name__)


class InFlight(Protocol):
    """What the worker knows of a request on its way."""

    def tick(self) -> None:
        """Once a second."""

    def fail(self, message: str, *, outcome: str = "upstream_error", status: int = 502) -> None:
        """Ends it with an error."""


class Host(account.Host, Protocol):
    """The worker that the exchange belongs to."""

    options: Options
    directory: Directory
    exchanges: set[InFlight]

    def spawn(self, task: "asyncio.Task[None]") -> None:
        """Keeps a reference to a task until it ends."""


class Exchange:
    """From the plan to the last byte."""

    __slots__ = (
        *("_account", "_answer", "_ask", "_attempts", "_client", "_connection", "_deadline", "_deaths", "_dropped"),
        *("_endpoint", "_host", "_key", "_path", "_payload", "_prefill", "_reading", "_request", "_tried", "_why"),
    )

    def __init__(self, host: Host, client: ClientConnection, request: Request, ask: Ask, plan: Plan) -> None:
        self._host = host
        self._client = client
        self._request = request
        self._ask: Ask | None = ask
        self._account = account.Account(host, request, ask, plan)
        self._key = ask.reading.prefix
        self._path = b"/v1/chat/completions" if ask.facts.route == "chat" else b"/v1/completions"
        self._endpoint: Endpoint | None = None
        self._connection: Connection | None = None
        self._answer: Answer | None = None
        self._payload: bytes | None
        self._payload, self._dropped = rewrite(ask, plan)
        self._prefill = self._reader()
        self._reading: asyncio.Task[None] | None = None
        self._tried: set[Endpoint] = set()
        self._attempts = 0
        self._deaths = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._why = ""

    @property
    def _plan(self) -> Plan:
        return self._account.plan

    def start(self) -> None:
        """Counts the demand and sends the request."""
        self._account.open()
        self._host.exchanges.add(self)
        seconds = self._plan.spending.limits.seconds
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._out_of_time)
        self._attempt()

    def _out_of_time(self) -> None:
        seconds = self._plan.spending.limits.seconds
        whose = self._plan.spending.limits.whose("seconds")
        self.fail(f"{whose} ceiling of {seconds:g} seconds is reached", outcome="timeout", status=504)

    # sending

    def _attempt(self) -> None:
        """Sends the request to the next replica, or answers that there is none."""
        endpoint = self._next_endpoint()
        if endpoint is None:
            self._give_up()
            return
        self._attempts += 1
        self._tried.add(endpoint)
        self._endpoint = endpoint
        endpoint.inflight += 1
        if self._prefill is None:
            self._reach(endpoint)
        else:
            self._reading = asyncio.create_task(self._read_elsewhere(self._prefill, endpoint))
            self._host.spawn(self._reading)

    def _reader(self) -> Prefill | None:
        pool = self._plan.rung.prefill
        return None if pool is None else Prefill(self._host, self._request, pool, self._key)

    async def _read_elsewhere(self, prefill: Prefill, endpoint: Endpoint) -> None:
        """Another pool reads the prompt first; then the answer is asked for, of `endpoint`."""
        reading = await prefill.read(self._path, self._body())
        self._reading = None
        self._account.read(prefill.pool.name, reading)
        self._reach(endpoint)

    def _reach(self, endpoint: Endpoint) -> None:
        connection = endpoint.take_idle()
        if connection is None:
            self._host.spawn(asyncio.create_task(self._connect(endpoint)))
        else:
            self._send(connection)

    def _next_endpoint(self) -> Endpoint | None:
        if self._attempts >= MAX_ATTEMPTS or self._deaths >= MAX_DEATHS:
            return None
        while True:
            replicas = self._host.directory.pools.get(self._plan.pool)
            endpoint = replicas.pick(self._tried, self._key, self._host.now()) if replicas is not None else None
            if endpoint is not None:
                return endpoint
            self._why = self._why or f"pool {self._plan.pool} has no ready replica"
            following = fall_back(self._plan)
            if following is None:
                return None
            self._fall_back(following)

    def _fall_back(self, plan: Plan) -> None:
        self._account.fall_back(plan)
        self._payload = None
        self._prefill = self._reader()

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = await endpoint.connect(self._host.options.connect_seconds)
        except (OSError, TimeoutError) as error:
            endpoint.failed(self._host.now())
            if self._endpoint is endpoint:
                self._retry(f"{endpoint.address} could not be reached ({error or 'timeout'})")
            return
        if self._endpoint is endpoint:
            self._send(connection)
        else:
            connection.release(self._host.now())

    def _send(self, connection: Connection) -> None:
        body, reading = self._body(), self._account.reading
        if reading is not None and reading.transfer is not None:
            body = decode_body(body, reading.transfer)
        request, transport = self._request, self._client.transport
        if transport is None:
            raise RuntimeError("an exchange ends with its client")
        self._connection = connection
        self._answer = Answer(self, transport.write)
        connection.post(self._answer, self._path, body, request.onward(), minor=0 if request.v1_0 else 1)

    def _body(self) -> bytes:
        return self._payload if self._payload is not None else self._rewrite()

    def _rewrite(self) -> bytes:
        if self._ask is None:
            raise RuntimeError("the request is kept until an answer begins")
        self._payload, self._dropped = rewrite(self._ask, self._plan)
        return self._payload

    def _leave(self) -> Connection | None:
        """Detaches from the replica, and stops the reading of the prompt."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        connection, self._connection = self._connection, None
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.inflight -= 1
        if connection is not None:
            connection.receiver = None
        return connection

    def _retry(self, why: str) -> None:
        _log.debug("%s; trying the next replica", why)
        self._why = why
        connection = self._leave()
        if connection is not None:
            connection.close()
        self._answer = None
        self._attempt()

    def _give_up(self) -> None:
        message = f"model: {self._why}; try again in a moment"
        if self._deaths >= MAX_DEATHS:
            error = ApiError(502, message, code="engine_died")
        else:
            error = ApiError(503, message, code="pool_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS)
        self._end_with(error, "upstream_error")

    def _end_with(self, error: ApiError, outcome: str) -> None:
        """An answer of the router's own, where none has begun."""
        headers = self._account.headers(self._dropped)
        self._close(outcome)
        self._client.respond_error(error, headers)

    # the answer's side

    def refused(self, why: str) -> None:
        """The engine has no room."""
        endpoint = self._endpoint
        if endpoint is not None:
            endpoint.refused(self._host.now())
            self._retry(f"{endpoint.address} refused: {why}")

    def begins(self, head: Head) -> bytes:
        """The head that the client gets."""
        if self._endpoint is not None:
            self._endpoint.succeeded()
        self._ask = self._payload = None
        self._account.begun()
        ending = b"\r\n\r\n" if self._client.keeps() and not head.until_close else b"\r\nconnection: close\r\n\r\n"
        return head.lines + self._account.headers(self._dropped) + ending

    def ended(self, head: Head) -> None:
        """The answer is complete."""
        connection = self._leave()
        if connection is not None:
            if head.keep and not head.until_close and not self._request.v1_0:
                connection.release(self._host.now())
            else:
                connection.close()
        keep = self._client.keeps() and not head.until_close
        self._close("ok" if head.status < 400 else "rejected" if head.status < 500 else "upstream_error")
        self._client.done(keep=keep)

    def failed(self, why: str) -> None:
        """The engine died or sent what is no HTTP."""
        connection, endpoint = self._connection, self._endpoint
        if connection is None or endpoint is None:
            return
        begun = self._answer is not None and self._answer.begun
        if not begun and connection.was_stale:
            # It was closed while idle, and the others probably too; the request never reached the engine.
            self._tried.discard(endpoint)
            endpoint.close_idle(float("inf"))
            self._retry(f"{endpoint.address} had closed an idle connection")
            return
        endpoint.failed(self._host.now())
        if begun:
            self.fail(f"{endpoint.address}: {why}")
        else:
            # Nobody knows what the dead engine wrote, so under a ceiling nothing is left that is sure to be unspent.
            self._deaths += MAX_DEATHS if self._plan.spending.limits.bounds else 1
            self._retry(f"{endpoint.address}: {why}")

    def fail(self, message: str, *, outcome: str = "upstream_error", status: int = 502) -> None:
        """Ends the answer with an error, in the stream where it has begun."""
        connection, answer = self._leave(), self._answer
        if connection is not None:
            connection.abort()
        if answer is None or not answer.begun:
            self._end_with(ApiError(status, f"model: {message}", code="engine_failed"), outcome)
            return
        answer.break_off(message, status)
        self._close(outcome)
        self._client.done(keep=False)

    # the client's side

    def client_gone(self) -> None:
        """The client closed: the engine must stop at once, which it does when its connection ends."""
        connection = self._leave()
        if connection is not None:
            connection.abort()
        self._close("client_gone")

    def pause(self) -> None:
        """The client reads too slowly: stop reading the engine."""
        if self._connection is not None:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """The client reads again."""
        if self._connection is not None:
            self._connection.transport.resume_reading()

    def tick(self) -> None:
        """Once a second: time limits. Connecting has its own."""
        answer = self._answer
        if answer is None or self._client.stalled_seconds is not None:
            return
        if late := answer.tick(self._host.options):
            self.fail(late, outcome="timeout", status=504)

    def _close(self, outcome: str) -> None:
        answer, tokens = self._answer, 0
        self._host.exchanges.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if answer is not None:
            self._answer = None
            tokens = answer.close()
        if tokens := tokens + self._account.reads:
            self._host.tally.tiers[self._plan.tier].output_tokens += tokens
        self._account.close(outcome, output_tokens=tokens, attempts=self._attempts)
