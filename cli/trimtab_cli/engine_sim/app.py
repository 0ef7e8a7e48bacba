"""The HTTP side of the simulated engine: vLLM's routes on Starlette."""

import asyncio
import hashlib
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from prometheus_client import Counter, Histogram
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from trimtab_cli.engine_sim import protocol
from trimtab_cli.engine_sim.jobs import Job, chat_job, completion_job
from trimtab_cli.engine_sim.metrics import CONTENT_TYPE, Metrics
from trimtab_cli.engine_sim.protocol import ApiError
from trimtab_cli.engine_sim.responses import DONE, compact, error_event, event, model_card
from trimtab_cli.engine_sim.runner import Runner, Ticket
from trimtab_cli.engine_sim.settings import Settings
from trimtab_cli.engine_sim.transfers import LINK_BYTES_PER_SECOND, TransferFailed, Transfers
from trimtab_cli.engine_sim.vocabulary import ids_of

Handler = Callable[[Request], Awaitable[Response]]
Parse = Callable[[object, str], Job]


def json_response(document: object, status: int = 200) -> Response:
    """A JSON response in vLLM's spelling."""
    return Response(compact(document), status, media_type="application/json")


class Api:
    """The routes. `draining` refuses new work; the server sets it on SIGTERM."""

    def __init__(
        self, settings: Settings, runner: Runner, metrics: Metrics, transfers: Transfers | None = None
    ) -> None:
        self._settings = settings
        self.runner = runner
        self._metrics = metrics
        self._transfers = transfers
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self.draining = False
        registry, labels = metrics.registry, ("handler", "method", "status")
        self._requests = Counter("http_requests", "Total number of requests.", labels, registry=registry)
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Duration of requests.",
            ("handler", "method"),
            buckets=(0.1, 0.5, 1),
            registry=registry,
        )

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/health", self._health),
            Route("/ping", self._health, methods=["GET", "POST"]),
            Route("/version", self._version),
            Route("/load", self._load),
            Route("/metrics", self._scrape),
            Route("/tokenize", self._counted("/tokenize", self._tokenize, guarded=False), methods=["POST"]),
            Route("/v1/models", self._counted("/v1/models", self._models)),
            Route("/v1/chat/completions", self._counted("/v1/chat/completions", self._chat), methods=["POST"]),
            Route("/v1/completions", self._counted("/v1/completions", self._completion), methods=["POST"]),
        ]

    def _counted(self, path: str, handler: Handler, *, guarded: bool = True) -> Handler:
        """The handler with the checks and counts that all of /v1 has; `guarded` by the API key."""

        async def handle(request: Request) -> Response:
            started = time.monotonic()
            response = await self._answered(request, handler, guarded=guarded)
            status = f"{response.status_code // 100}xx"
            self._requests.labels(path, request.method, status).inc()
            self._durations.labels(path, request.method).observe(time.monotonic() - started)
            if self._settings.request_id_headers:
                response.headers["x-request-id"] = request.headers.get("x-request-id") or uuid.uuid4().hex
            return response

        return handle

    async def _answered(self, request: Request, handler: Handler, *, guarded: bool) -> Response:
        if guarded and not self._authorized(request):
            return json_response({"error": "Unauthorized"}, 401)
        try:
            return await handler(request)
        except ApiError as error:
            return json_response(error.body, error.status)
        except ClientDisconnect:
            return Response(status_code=499)

    def _authorized(self, request: Request) -> bool:
        if not self._keys:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(token.encode()).digest()
        return scheme.lower() == "bearer" and any(secrets.compare_digest(digest, key) for key in self._keys)

    async def _health(self, _: Request) -> Response:
        # 200 while draining too: vLLM's health speaks of the engine, not of admission.
        return Response()

    async def _version(self, _: Request) -> Response:
        return json_response({"version": self._settings.version})

    async def _load(self, _: Request) -> Response:
        return json_response({"server_load": self.runner.open_answers})

    async def _scrape(self, _: Request) -> Response:
        return Response(self._metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def _models(self, _: Request) -> Response:
        settings, now = self._settings, int(time.time())
        cards = [
            model_card(name, root=settings.model, created=now, max_model_len=settings.max_model_len)
            for name in settings.served_names
        ]
        return json_response({"object": "list", "data": cards})

    async def _tokenize(self, request: Request) -> Response:
        asked = protocol.parse_tokenize(await _json_body(request))
        protocol.check_model(asked, self._settings)
        tokens = ids_of(asked.prompt)
        window = self._settings.max_model_len
        return json_response({"count": len(tokens), "max_model_len": window, "tokens": tokens, "token_strs": None})

    async def _chat(self, request: Request) -> Response:
        def parse(body: object, request_id: str) -> Job:
            return chat_job(protocol.parse_chat(body), self._settings, request_id=request_id)

        return await self._generate(request, parse)

    async def _completion(self, request: Request) -> Response:
        def parse(body: object, request_id: str) -> Job:
            return completion_job(protocol.parse_completion(body), self._settings, request_id=request_id)

        return await self._generate(request, parse)

    async def _generate(self, request: Request, parse: Parse) -> Response:
        body = await _json_body(request)
        try:
            job = parse(body, request.headers.get("x-request-id") or uuid.uuid4().hex[:16])
            tickets = self._submit(job, await self._fetched(job))
        except ApiError as error:
            if not (error.late and isinstance(body, dict) and body.get("stream")):
                raise
            return StreamingResponse(_once(error_event(error.body)), media_type="text/event-stream")
        if job.request.stream:
            return StreamingResponse(self._stream(job, tickets), media_type="text/event-stream")
        await self._finish(request, tickets)
        choices = [
            job.choice(planned, ticket.finish_reason or "abort", ticket.written_tokens)
            for planned, ticket in zip(job.planned, tickets, strict=True)
        ]
        document = job.envelope.whole(choices, job.usage(tickets))
        if job.envelope.chat:
            document["prompt_token_ids"] = job.planned[0].shown.prompt_ids
        return json_response(document | {"kv_transfer_params": self._kept(job, tickets[0])})

    async def _fetched(self, job: Job) -> int:
        """Tokens of the first prompt that another engine has computed."""
        transfers, params = self._transfers, job.request.kv_transfer_params
        if transfers is None or not params or not params.get("do_remote_prefill"):
            return 0
        try:
            tokens = await transfers.fetch(params, job.prompts[0].digest)
        except TransferFailed as failed:
            print(f"simulated vLLM: a cache could not be fetched: {failed}", flush=True)
            if self._settings.transfer is not None and self._settings.transfer.recompute:
                return 0
            raise ApiError(500, "Internal server error", "InternalServerError", late=True) from failed
        engine = self._settings.engine
        seconds = tokens * engine.replica.shape.kv_bytes_per_token / LINK_BYTES_PER_SECOND
        await asyncio.sleep(seconds / engine.time_scale)
        return tokens

    def _kept(self, job: Job, ticket: Ticket) -> dict[str, Any] | None:
        """What the client must tell another engine, which answers the prompt that was read here."""
        params = job.request.kv_transfer_params
        if self._transfers is None or not params or not params.get("do_remote_decode"):
            return None
        if ticket.finish_reason not in ("stop", "length"):
            return None
        request_id = f"{job.envelope.id}-{uuid.uuid4().hex[:8]}"
        prompt = job.prompts[0]
        return self._transfers.keep(request_id, prompt.digest, prompt.tokens, cached=ticket.cached_tokens)

    def _submit(self, job: Job, external_tokens: int) -> list[Ticket]:
        """Queue all answers of a request, or none."""
        if self.draining:
            raise protocol.engine_busy("max_num_queued_reqs")
        prompts = [planned.prompt for planned in job.planned]
        reason = self.runner.rejection(len(prompts), sum(prompt.tokens for prompt in prompts))
        if reason is not None:
            raise protocol.engine_busy(reason.value)
        longest = max(planned.answer.output_tokens for planned in job.planned)
        self._metrics.request(samples=job.request.samples, longest_tokens=longest)
        return [
            self.runner.submit(
                planned.answer,
                prompt_tokens=planned.prompt.tokens,
                blocks=planned.prompt.blocks,
                max_tokens=planned.prompt.max_tokens,
                external_tokens=external_tokens if planned.index == 0 else 0,
            )
            for planned in job.planned
        ]

    async def _finish(self, request: Request, tickets: list[Ticket]) -> None:
        """Wait for all answers; when the client leaves first, abort them and raise ClientDisconnect."""
        gone = asyncio.create_task(_disconnected(request))
        ended = asyncio.create_task(_all_ended(tickets))
        try:
            await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise ClientDisconnect
        finally:
            self._abort(tickets)
            for task in (gone, ended):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _abort(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self.runner.abort(ticket)

    async def _stream(self, job: Job, tickets: list[Ticket]) -> AsyncIterator[bytes]:
        """The events of a streamed answer; leaving it early aborts what is under way."""
        every_chunk, shown = job.request.wants_usage_in_every_chunk, [0] * len(tickets)
        try:
            if job.envelope.chat:
                for planned in job.planned:
                    usage = job.usage(tickets, streamed=True, shown=shown) if every_chunk else None
                    yield event(job.envelope.opening(planned.index, usage, planned.shown.prompt_ids))
            async for position, start, stop in _progress(tickets):
                reason, planned = tickets[position].finish_reason, job.planned[position]
                for number, choice in enumerate(choices := job.deltas(planned, start, stop, reason)):
                    last_event = number == len(choices) - 1
                    shown[position] = stop if last_event else min(stop, planned.answer.reasoning_tokens)
                    usage = job.usage(tickets, streamed=True, shown=shown) if every_chunk else None
                    last = reason is not None and last_event and not job.request.wants_usage
                    yield event(job.envelope.chunk([choice], usage=usage, last=last))
            if job.request.wants_usage:
                yield event(job.envelope.chunk([], usage=job.usage(tickets, streamed=True), last=True))
            yield DONE
        finally:
            self._abort(tickets)


async def _progress(tickets: list[Ticket]) -> AsyncIterator[tuple[int, int, int]]:
    """Runs of new tokens of several answers as they appear: which answer, from, to. The last run of each is final."""
    waiting = {asyncio.ensure_future(ticket.next_run(0)): position for position, ticket in enumerate(tickets)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                position = waiting.pop(task)
                start, stop = task.result()
                ended = tickets[position].finish_reason is not None
                yield position, start, stop
                if not ended:
                    waiting[asyncio.ensure_future(tickets[position].next_run(stop))] = position
    finally:
        for task in waiting:
            task.cancel()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _all_ended(tickets: list[Ticket]) -> None:
    for ticket in tickets:
        await ticket.ended()


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _json_body(request: Request) -> object:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise ApiError(400, message, "Bad Request")
    try:
        return json.loads(await request.body())
    except json.JSONDecodeError as error:
        detail = {"type": "json_invalid", "loc": (error.pos,), "msg": "JSON decode error", "input": {}}
        raise protocol.validation_error([detail | {"ctx": {"error": error.msg}}]) from error
    except UnicodeDecodeError as error:
        raise ApiError(400, "There was an error parsing the body", "Bad Request") from error


def build_app(api: Api) -> Starlette:
    """The ASGI application. Unknown paths answer as FastAPI does."""

    async def plain(_: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 500))
        response = json_response({"detail": getattr(error, "detail", "Internal Server Error")}, status)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    return Starlette(routes=api.routes(), exception_handlers={404: plain, 405: plain})
