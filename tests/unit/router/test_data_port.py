"""The client's side: HTTP/1.1 with its limits, and the paths that need no engine."""

import asyncio
import json

import pytest

from support.routing import chat, document
from support.running import on_loop, request, running, with_engines
from support.upstream import FakeEngine, hang, json_answer, raw_answer

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def engine_document(engine, **changes):
    return document(with_engines(low=[engine], medium=[engine], high=[engine]), **changes)


@on_loop
async def test_a_connection_serves_many_requests():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        client = await router.open()
        for _ in range(3):
            assert (await client.ask(chat())).status == 200
        assert (await client.send(HEALTH)) is client
        assert (await client.response()).body == b"ok\n"
        assert engine.connections == 1


@on_loop
async def test_a_pipeline_is_answered_in_order():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        engine.plan = [json_answer(body={"n": n}) for n in range(3)]
        client = await router.open()
        await client.send(request(chat()) + HEALTH + request(chat()) + request(chat()) + HEALTH)
        bodies = [(await client.response()).body for _ in range(5)]
        assert bodies == [b'{"n": 0}', b"ok\n", b'{"n": 1}', b'{"n": 2}', b"ok\n"]


@on_loop
async def test_a_client_that_sends_ahead_is_not_read_until_it_is_served():
    gate = asyncio.Event()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    async with FakeEngine(raw_answer(answer, b"ok", gate=gate)) as engine, running(engine_document(engine)) as router:
        client = await router.open()
        await client.send(request(chat()) + HEALTH * 3)
        await router.until(lambda: bool(engine.got))
        (connection,) = router.worker.clients
        assert not connection.transport.is_reading()
        gate.set()
        assert [(await client.response()).body for _ in range(4)] == [b"ok", b"ok\n", b"ok\n", b"ok\n"]
        assert connection.transport.is_reading()


@on_loop
async def test_many_pipelined_requests_do_not_nest():
    async with running() as router:
        client = await router.open()
        await client.send(HEALTH * 3000)
        for _ in range(3000):
            assert (await client.response()).status == 200


@on_loop
async def test_a_chunked_body_is_read():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        raw = json.dumps(chat("hello there")).encode()
        client = await router.open()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + b"%x\r\n%b\r\n" % (20, raw[:20]))
        await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw) - 20, raw[20:]))
        assert (await client.response()).status == 200
        assert engine.got[0].body["messages"][0]["content"] == "hello there"
        assert engine.got[0].headers["content-length"] != str(len(raw))
        assert "transfer-encoding" not in engine.got[0].headers


@on_loop
async def test_a_client_may_ask_before_it_sends_the_body():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        client = await router.open()
        head, _, body = request(chat(), expect="100-continue").partition(b"\r\n\r\n")
        await client.send(head + b"\r\n\r\n")
        assert (await client.head()).status == 100
        await client.send(body)
        assert (await client.response()).status == 200
        assert "expect" not in engine.got[0].headers


@on_loop
async def test_continue_is_not_said_in_the_middle_of_another_answer():
    gate = asyncio.Event()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        engine.plan = [raw_answer(answer, b"ok", gate=gate)]
        client = await router.open()
        head, _, body = request(chat(), expect="100-continue").partition(b"\r\n\r\n")
        await client.send(request(chat()) + head + b"\r\n\r\n")
        await router.until(lambda: bool(engine.got))
        gate.set()
        assert (await client.response()).body == b"ok"
        assert (await client.head()).status == 100
        await client.send(body)
        assert (await client.response()).status == 200


@on_loop
async def test_a_body_that_is_announced_too_long_is_not_asked_for():
    async with running(max_body_bytes=1000) as router:
        client = await router.open()
        await client.send(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n")
        response = await client.response()
        assert (response.status, response.message) == (413, "body: longer than 1000 bytes; send a shorter body")
        assert response.headers["connection"] == "close"
        assert await client.closed()


@on_loop
async def test_a_chunked_body_that_grows_too_long_is_cut():
    async with running(max_body_bytes=1000) as router:
        client = await router.open()
        await client.send(b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        await client.send(b"3e9\r\n" + b"x" * 1001)
        assert (await client.response()).status == 413
        await client.send(b"x" * 100_000)
        assert await client.closed()


@pytest.mark.parametrize("complete", [True, False])
def test_headers_have_a_limit(complete):
    @on_loop
    async def test():
        async with running(max_header_bytes=2000) as router:
            client = await router.open()
            await client.send(b"GET /healthz HTTP/1.1\r\na: " + b"x" * 2001 + (b"\r\n\r\n" if complete else b""))
            response = await client.response()
            assert response.status == 431
            assert response.message == "headers: longer than 2000 bytes; send fewer or shorter headers"

    test()


MALFORMED = {
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "length twice": b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "length and chunks": b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\na: b\n\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\na: b\r\n c\r\n\r\n",
    "a version of tomorrow": b"GET /healthz HTTP/3.7\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_refused_and_ends_the_connection(raw):
    @on_loop
    async def test():
        async with running() as router:
            client = await (await router.open()).send(raw + HEALTH)
            response = await client.response()
            assert response.status == 400
            assert response.message.startswith("request: not valid HTTP/1.1 (")
            assert response.json()["error"]["code"] == "invalid_http"
            assert await client.closed()

    test()


@on_loop
async def test_what_came_before_malformed_http_is_still_answered():
    async with running() as router:
        client = await (await router.open()).send(HEALTH + b"nonsense\r\n\r\n")
        assert [(await client.response()).status for _ in range(2)] == [200, 400]


@pytest.mark.parametrize(
    ("method", "path", "status", "message", "allow"),
    [
        ("GET", "/v2", 404, None, None),
        (
            "GET",
            "/v1/chat/completions",
            405,
            "method: GET is not allowed here; use POST",
            "POST",
        ),
        ("DELETE", "/v1/models", 405, "method: DELETE is not allowed here; use GET", "GET, HEAD"),
        ("HEAD", "/v1/explain", 405, None, "POST"),
        (
            "GET",
            "/v1/models/nope",
            404,
            "model: 'nope' does not exist; use one of auto, model-low, model-medium, model-high",
            None,
        ),
    ],
)
def test_wrong_paths_and_methods_say_what_is_right(method, path, status, message, allow):
    @on_loop
    async def test():
        async with running() as router:
            response = await router.ask(method=method, path=path)
            assert (response.status, response.headers.get("allow")) == (status, allow)
            assert response.headers["x-trimtab-reason"] == "Rejected"
            if message:
                assert response.message == message

    test()


@on_loop
async def test_head_has_the_headers_without_the_body():
    async with running() as router:
        client = await router.open()
        full = await client.ask(method="GET", path="/v1/models")
        short = await client.ask(method="HEAD", path="/v1/models")
        assert short.headers == full.headers
        assert (await client.ask(method="GET", path="/healthz")).body == b"ok\n"


@on_loop
async def test_models_are_the_policys_and_the_pools():
    async with running() as router:
        listed = (await router.ask(method="GET", path="/v1/models?x=1")).json()
        assert [m["id"] for m in listed["data"]] == ["auto", "model-low", "model-medium", "model-high"]
        one = (await router.ask(method="GET", path="/v1/models/model-low")).json()
        assert one == {"id": "model-low", "object": "model", "created": 0, "owned_by": "trimtab"}


@on_loop
async def test_explain_plans_without_running():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        shown = (await router.ask(chat(), path="/v1/explain")).json()
        assert (shown["tier"], shown["reason"], len(shown["candidates"])) == ("low", "Gain", 3)
        shown = (await router.ask(chat(), path="/v1/explain", x_trimtab_tier="high")).json()
        assert (shown["tier"], shown["reason"]) == ("high", "TierHeader")
        shown = (await router.ask({"model": "auto", "prompt": "x"}, path="/v1/explain")).json()
        assert shown["facts"]["prompt_tokens"] == 0
        assert engine.got == []
        assert router.worker.tally.tiers["low"].admitted == 0


@on_loop
async def test_a_compressed_body_is_refused():
    async with running() as router:
        response = await router.ask(chat(), content_encoding="gzip")
        assert (response.status, response.message) == (
            415,
            "content-encoding: gzip is not supported; send the body as it is",
        )


@on_loop
async def test_a_refused_request_leaves_the_connection_usable():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        client = await router.open()
        assert (await client.ask({"model": "nope"})).status == 404
        assert (await client.ask(b"{")).status == 400
        assert (await client.ask(chat())).status == 200
        assert router.outcomes() == {("", "Rejected", "rejected"): 2, ("low", "Gain", "ok"): 1}


@on_loop
async def test_an_offer_to_upgrade_is_ignored():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        client = await router.open()
        await client.send(request(chat(), connection="upgrade, http2-settings", upgrade="h2c") + HEALTH)
        assert [(await client.response()).status for _ in range(2)] == [200, 200]
        assert "upgrade" not in engine.got[0].headers


@on_loop
async def test_http_1_0_is_served_and_closed():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        client = await router.open()
        response = await client.ask(chat(), version="1.0")
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert engine.got[0].line == "POST /v1/chat/completions HTTP/1.0"
        assert await client.closed()


@on_loop
async def test_a_client_that_wants_to_close_is_closed():
    async with FakeEngine() as engine, running(engine_document(engine)) as router:
        client = await router.open()
        response = await client.ask(chat(), connection="close")
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert await client.closed()


@pytest.mark.parametrize(
    ("raw", "part", "limit"),
    [
        (b"POST /v1/completions HTTP/1.1\r\nhost: x", "headers", 10),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: 5\r\n\r\nab", "body", 120),
    ],
)
def test_a_slow_request_is_ended(raw, part, limit):
    @on_loop
    async def test():
        async with running() as router:
            client = await (await router.open()).send(raw)
            (connection,) = await connected(router)
            await router.until(lambda: connection._reader.request is not None)
            router.tick(limit)
            assert connection._reader.request is not None
            router.tick(1)
            response = await client.response()
            assert response.status == 408
            assert response.message == f"{part}: not complete after {limit} seconds; send faster"
            router.tick(3)
            assert await client.closed()

    test()


async def connected(router):
    await router.until(lambda: bool(router.worker.clients))
    return list(router.worker.clients)


@on_loop
async def test_an_idle_connection_is_closed_after_a_while():
    async with running() as router:
        client = await router.open()
        assert (await client.ask(method="GET", path="/healthz")).status == 200
        router.tick(75)
        assert router.worker.clients
        router.tick(1)
        assert await client.closed()


@on_loop
async def test_without_a_configuration_only_health_is_served():
    async with running("") as router:
        assert (await router.ask(method="GET", path="/healthz")).status == 200
        response = await router.ask(chat())
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert response.message == "router: no valid configuration yet"
        router.write(document())
        router.tick(1)
        assert (await router.ask(method="GET", path="/v1/models")).status == 200


@on_loop
async def test_draining_lets_open_answers_end_and_closes_the_rest():
    gate = asyncio.Event()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    engine = FakeEngine(raw_answer(answer, b"ok", gate=gate))
    async with engine, running(engine_document(engine)) as router:
        idle, busy = await router.open(), await router.open()
        assert (await idle.ask(method="GET", path="/healthz")).status == 200
        await busy.send(request(chat()))
        await router.until(lambda: bool(engine.got))
        draining = asyncio.create_task(router.worker.drain(router.server, asyncio.Event()))
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await router.open()
        gate.set()
        response = await busy.response()
        assert response.body == b"ok"
        await draining


@on_loop
async def test_draining_ends_what_does_not_end_itself():
    async with FakeEngine(hang) as engine, running(engine_document(engine), drain_seconds=0.01) as router:
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: bool(engine.got))
        draining = asyncio.create_task(router.worker.drain(router.server, asyncio.Event()))
        response = await client.response()
        assert (response.status, response.message) == (503, "model: the router is shutting down")
        client.writer.close()
        await draining
        await engine.got[0].client_gone.wait()


@on_loop
async def test_a_tunnel_is_refused():
    async with running() as router:
        client = await (await router.open()).send(b"CONNECT other:443 HTTP/1.1\r\nhost: other\r\n\r\n\x16\x03\x01")
        response = await client.response()
        assert (response.status, response.message) == (405, "method: CONNECT is not allowed here; use POST")
        assert await client.closed()
