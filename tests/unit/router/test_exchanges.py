"""From the plan to the last byte: passing through, trying again, breaking off."""

import asyncio
import json

import pytest

from support.routing import BrokenScorer, FixedScorer, chat, document, scores
from support.running import on_loop, request, running, with_engines
from support.upstream import (
    END,
    STREAM_HEAD,
    FakeEngine,
    die,
    event,
    hang,
    json_answer,
    raw_answer,
    stream_answer,
    token,
)
from trimtab_router.shell.answer import HELD_BYTES
from trimtab_router.shell.upstream import MAX_DEATHS

OVERLOADED = event({"error": {"message": "queue is full", "type": "x", "code": 503}}) + event("[DONE]") + END
NOWHERE = "127.0.0.1:1"


def on(*low, medium=(), high=(), **changes):
    return document(with_engines(low=low, medium=medium, high=high), **changes)


@on_loop
async def test_an_answer_passes_through_with_the_plan_in_its_headers():
    async with FakeEngine(json_answer(headers="x-engine: 7\r\n")) as engine, running(on(engine)) as router:
        response = await router.ask(chat(), authorization="Bearer key", x_request_id="abc-1", X_Vllm_Priority="3")
        assert response.json()["choices"][0]["message"]["content"] == "hi"
        assert response.headers == {
            "server": "fake",
            "x-engine": "7",
            "content-type": "application/json",
            "content-length": "131",
            "x-trimtab-tier": "low",
            "x-trimtab-class": "chat",
            "x-trimtab-budget": "0",
            "x-trimtab-reason": "Gain",
            "x-trimtab-pool": "pool-low",
            "x-request-id": "abc-1",
        }
        (got,) = engine.got
        assert got.line == "POST /v1/chat/completions HTTP/1.1"
        assert got.headers == {
            "host": engine.address,
            "content-type": "application/json",
            "content-length": got.headers["content-length"],
            "x-request-id": "abc-1",
            "authorization": "Bearer key",
            "x-vllm-priority": "3",
        }
        assert (got.body["model"], got.body["thinking_token_budget"]) == ("model-low", 0)


@on_loop
async def test_headers_of_this_hop_stay_here():
    async with FakeEngine() as engine, running(on(engine)) as router:
        hop = {"connection": "keep-alive, x-hop", "x_hop": "1", "te": "trailers", "proxy_authorization": "secret"}
        await router.ask(chat(), accept_encoding="gzip", x_trimtab_tier="low", **hop)
        kept = {"host", "content-type", "content-length", "x-request-id"}
        assert engine.got[0].headers.keys() == kept


@pytest.mark.parametrize("given", [None, "x" * 200, "a b"])
def test_a_request_without_a_usable_id_gets_one(given):
    @on_loop
    async def test():
        async with FakeEngine() as engine, running(on(engine)) as router:
            response = await router.ask(chat(), **({"x_request_id": given} if given else {}))
            assert len(response.headers["x-request-id"]) == 32
            assert engine.got[0].headers["x-request-id"] == response.headers["x-request-id"]

    test()


@on_loop
async def test_completions_have_their_own_path():
    async with FakeEngine() as engine, running(on(engine)) as router:
        await router.ask({"model": "auto", "prompt": "once"}, path="/v1/completions")
        assert engine.got[0].line == "POST /v1/completions HTTP/1.1"


@on_loop
async def test_dropped_fields_are_named():
    content = on()
    async with FakeEngine() as engine:
        content["pools"][0] |= {"addresses": [engine.address], "dropsSampling": ["min_p", "logit_bias"]}
        async with running(content) as router:
            response = await router.ask(chat(min_p=0.1, logit_bias={"1": 2}))
            assert response.headers["x-trimtab-dropped"] == "min_p, logit_bias"


@on_loop
async def test_a_stream_is_not_held_back():
    gate = asyncio.Event()
    async with FakeEngine(stream_answer("a", "b", gate=gate)) as engine, running(on(engine)) as router:
        client = await (await router.open()).send(request(chat(stream=True)))
        head = await client.head()
        assert head.headers["transfer-encoding"] == "chunked"
        assert [b'"content": ""' in await client.chunk(), b'"content": "a"' in await client.chunk()] == [True, True]
        gate.set()
        assert b'"content": "b"' in await client.chunk()
        assert await client.chunk() == b"data: [DONE]\n\n"
        assert await client.chunk() == b""
        assert (await client.ask(chat())).status == 200
        assert router.worker.tally.tiers["low"].output_tokens == 2 + 2


@on_loop
async def test_tokens_are_counted_by_usage_where_the_engine_says_it():
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "total_tokens": 45, "completion_tokens": 42}})
    streamed = raw_answer(STREAM_HEAD, token("a"), token("b") + usage + event("[DONE]") + END)
    async with FakeEngine(streamed) as engine, running(on(engine)) as router:
        await router.ask(chat(stream=True))
        engine.default = json_answer()
        await router.ask(chat())
        assert router.worker.tally.tiers["low"].output_tokens == 42 + 7


@on_loop
async def test_demand_is_counted_at_admission():
    async with FakeEngine(hang) as engine, running(on(engine)) as router:
        client = await (await router.open()).send(request(chat("x" * 400)))
        await router.until(lambda: bool(engine.got))
        low = router.worker.tally.tiers["low"]
        assert (low.admitted, low.prompt_tokens, low.output_expected, low.inflight) == (1, 104, 200, 1)
        assert router.outcomes() == {}
        client.writer.close()
        await router.until(lambda: low.inflight == 0)
        assert router.outcomes() == {("low", "Gain", "client_gone"): 1}


@on_loop
async def test_an_engine_stops_when_the_client_leaves_before_the_answer():
    async with FakeEngine(hang) as engine, running(on(engine)) as router:
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: bool(engine.got))
        client.writer.close()
        await engine.got[0].client_gone.wait()


@on_loop
async def test_an_engine_stops_when_the_client_leaves_a_stream():
    async def endless(got, out):
        out.write(STREAM_HEAD + token("a"))
        await got.client_gone.wait()

    async with FakeEngine(endless) as engine, running(on(engine)) as router:
        client = await (await router.open()).send(request(chat(stream=True)))
        await client.head()
        client.writer.transport.abort()
        await engine.got[0].client_gone.wait()
        await router.until(lambda: not router.worker.exchanges)
        assert router.outcomes() == {("low", "Gain", "client_gone"): 1}


@on_loop
async def test_a_slow_client_holds_the_engine_back():
    piece, sent = token("x" * 60_000), []

    async def flood(got, out):
        out.write(STREAM_HEAD)
        while not got.client_gone.is_set():
            out.write(piece)
            sent.append(len(piece))
            await asyncio.wait({asyncio.ensure_future(out.drain()), waiter(got)}, return_when="FIRST_COMPLETED")

    def waiter(got):
        return asyncio.ensure_future(got.client_gone.wait())

    async with FakeEngine(flood) as engine, running(on(engine), stall_seconds=5) as router:
        client = await (await router.open()).send(request(chat(stream=True)))
        (connection,) = router.worker.clients
        await router.until(lambda: connection.stalled_seconds is not None)
        assert connection.transport.get_write_buffer_size() < 4 * HELD_BYTES
        before = -1
        while before != len(sent):
            before = len(sent)
            await asyncio.sleep(0.01)
        held_back = len(sent)
        for _ in range(200):
            assert await client.reader.readexactly(50_000)
        await router.until(lambda: len(sent) > held_back)
        client.reader._transport.pause_reading()
        await router.until(lambda: connection.stalled_seconds is not None)
        router.tick(5)
        assert router.worker.clients
        router.tick(1)
        await engine.got[0].client_gone.wait()
        await router.until(lambda: not router.worker.clients)


REFUSALS = {
    "503": json_answer(503, {"error": {"message": "busy"}}),
    "503 in the stream": raw_answer(STREAM_HEAD, OVERLOADED),
    "503 in the stream, cut small": raw_answer(*[bytes([b]) for b in STREAM_HEAD + OVERLOADED]),
    "death": die,
    "death after half a head": raw_answer(b"HTTP/1.1 200 OK\r\nconte", die=True),
    "death in the first event": raw_answer(STREAM_HEAD, token("x")[:20], die=True),
    "no HTTP": raw_answer(b"220 mail ready\r\n\r\n"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_another_replica_serves_when_one_refuses(refusal):
    @on_loop
    async def test():
        async with (
            FakeEngine(refusal) as bad,
            FakeEngine(stream_answer("fine")) as good,
            running(on(bad, good)) as router,
        ):
            (busy,) = [e for e in router.worker.directory.pools["pool-low"].endpoints if e.address == good.address]
            busy.inflight = 50
            response = await router.ask(chat(stream=True))
            busy.inflight -= 50
            assert (response.status, response.headers["x-trimtab-reason"]) == (200, "Gain")
            assert b"fine" in response.body
            assert (len(bad.got), len(good.got)) == (1, 1)
            assert bad.got[0].body == good.got[0].body
            assert router.outcomes() == {("low", "Gain", "ok"): 1}

    test()


@on_loop
async def test_the_next_tier_serves_when_a_pool_cannot_be_reached():
    content = on()
    async with FakeEngine() as high:
        content["pools"][0]["addresses"] = [NOWHERE]
        content["pools"][2]["addresses"] = [high.address]
        async with running(content) as router:
            response = await router.ask(chat())
            assert response.status == 200
            assert response.headers["x-trimtab-tier"] == "high"
            assert response.headers["x-trimtab-reason"] == "Fallback"
            assert high.got[0].body["model"] == "model-high"
            assert high.got[0].body["thinking_token_budget"] == 4000
            tiers = router.worker.tally.tiers
            assert (tiers["low"].admitted, tiers["high"].admitted) == (1, 0)


@on_loop
async def test_without_replicas_the_answer_says_so_at_once():
    async with running() as router:
        response = await router.ask(chat())
        assert (response.status, response.headers["retry-after"]) == (503, "2")
        assert response.message == "model: pool pool-low has no ready replica; try again in a moment"
        assert response.json()["error"]["code"] == "pool_unavailable"
        assert router.outcomes() == {("high", "Fallback", "upstream_error"): 1}


@on_loop
async def test_a_tier_by_hand_is_not_replaced():
    async with FakeEngine() as low, running(on(low)) as router:
        response = await router.ask(chat(), x_trimtab_tier="high")
        assert response.status == 503
        assert response.message == "model: pool pool-high has no ready replica; try again in a moment"
        assert response.headers["x-trimtab-tier"] == "high"
        assert low.got == []


@on_loop
async def test_when_all_refuse_the_last_reason_is_given():
    async with FakeEngine(REFUSALS["503"]) as engine, running(on(engine)) as router:
        response = await router.ask(chat())
        assert response.status == 503
        assert response.message.startswith(f"model: {engine.address} refused: HTTP 503 ")


@on_loop
async def test_what_kills_engines_is_not_tried_on_all_of_them():
    engines = [FakeEngine(die) for _ in range(4)]
    async with engines[0], engines[1], engines[2], engines[3], running(on(*engines)) as router:
        response = await router.ask(chat())
        assert response.status == 502
        assert response.json()["error"]["code"] == "engine_died"
        assert sum(len(e.got) for e in engines) == MAX_DEATHS


@on_loop
async def test_an_engines_own_error_passes_through():
    refusal = {"error": {"message": "max_tokens is too large", "code": 400}}
    async with FakeEngine(json_answer(400, refusal)) as engine, running(on(engine)) as router:
        response = await router.ask(chat())
        assert (response.status, response.json()) == (400, refusal)
        assert router.outcomes() == {("low", "Gain", "rejected"): 1}


@on_loop
async def test_a_connection_that_the_engine_closed_while_idle_is_replaced():
    async with FakeEngine() as engine, running(on(engine)) as router:
        assert (await router.ask(chat())).status == 200
        engine.plan = [die]
        assert (await router.ask(chat())).status == 200
        assert engine.connections == 2
        assert router.worker.directory.pools["pool-low"].endpoints[0].health.failures == 0


@on_loop
async def test_idle_connections_are_closed_before_the_engine_does():
    async with FakeEngine() as engine, running(on(engine)) as router:
        await router.ask(chat())
        (endpoint,) = router.worker.directory.pools["pool-low"].endpoints
        router.worker.directory.close_idle(router.worker.now() - 4)
        assert len(endpoint.idle) == 1
        router.worker.directory.close_idle(router.worker.now() + 1)
        assert len(endpoint.idle) == 0


@on_loop
async def test_an_answer_without_length_ends_with_the_connection():
    answer = raw_answer(b"HTTP/1.1 200 OK\r\n\r\n", b"some", b"thing", die=True)
    async with FakeEngine(answer) as engine, running(on(engine)) as router:
        client = await router.open()
        response = await client.ask(chat())
        assert (response.body, response.headers["connection"]) == (b"something", "close")
        assert router.outcomes() == {("low", "Gain", "ok"): 1}


@on_loop
async def test_interim_answers_are_swallowed():
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with FakeEngine(raw_answer(answer)) as engine, running(on(engine)) as router:
        assert (await router.ask(chat())).body == b"ok"


BREAKS = {
    "between chunks": [token("a"), token("b")],
    "inside a chunk": [token("a"), token("b") + token("c")[:30]],
    "inside the size of a chunk": [token("a"), token("b") + b"1"],
    "inside an event": [token("a"), token("b"), b"8\r\ndata: {x\r\n"],
    "with nonsense": [token("a"), token("b") + b"nonsense\r\n"],
}


@pytest.mark.parametrize("parts", BREAKS.values(), ids=BREAKS)
def test_a_stream_that_breaks_says_so(parts):
    @on_loop
    async def test():
        async with FakeEngine(raw_answer(STREAM_HEAD, *parts, die=True)) as engine, running(on(engine)) as router:
            client = await router.open()
            response = await client.ask(chat(stream=True))
            assert response.complete
            *_, last = response.body.decode().strip().split("\n\n")
            error = json.loads(last.removeprefix("data: "))["error"]
            assert (error["code"], error["type"]) == (502, "server_error")
            assert error["message"].startswith(f"{engine.address}: ")
            assert response.body.count(b'"content": "b"') == 1
            assert b"[DONE]" not in response.body
            assert await client.closed()
            assert router.outcomes() == {("low", "Gain", "upstream_error"): 1}

    test()


@on_loop
async def test_an_answer_that_breaks_is_cut_short():
    answer = raw_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", die=True)
    async with FakeEngine(answer) as engine, running(on(engine)) as router:
        client = await router.open()
        response = await client.ask(chat())
        assert (response.body, response.complete) == (b"{", False)


@on_loop
async def test_a_chunk_longer_than_the_bound_is_not_held_whole():
    gate, size = asyncio.Event(), 2 * HELD_BYTES
    parts = [STREAM_HEAD, token("a"), b"%x\r\n" % size, b"x" * (size - 10), b"y" * 10 + b"\r\n" + END]
    async with FakeEngine(raw_answer(*parts, gate=gate)) as engine, running(on(engine)) as router:
        client = await (await router.open(4 * HELD_BYTES)).send(request(chat(stream=True)))
        await client.head()
        assert await client.chunk()
        assert await client.reader.readexactly(HELD_BYTES)
        gate.set()
        rest = await client.reader.readuntil(END)
        assert rest.endswith(b"y" * 10 + b"\r\n" + END)


@on_loop
async def test_an_engine_that_never_answers_is_given_up():
    async with FakeEngine(hang) as engine, running(on(engine), first_byte_seconds=60) as router:
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: bool(engine.got))
        router.tick(60)
        assert router.worker.exchanges
        router.tick(1)
        response = await client.response()
        assert (response.status, response.message) == (504, "model: no answer for 60 seconds")
        await engine.got[0].client_gone.wait()
        assert router.outcomes() == {("low", "Gain", "timeout"): 1}


@on_loop
async def test_a_stream_that_falls_silent_is_given_up():
    async def silent(got, out):
        out.write(STREAM_HEAD + token("a"))
        await got.client_gone.wait()

    async with FakeEngine(silent) as engine, running(on(engine), idle_seconds=30) as router:
        client = await (await router.open()).send(request(chat(stream=True)))
        await client.head()
        await client.chunk()
        router.tick(31)
        last = (await client.chunk()).decode().strip().removeprefix("data: ")
        assert json.loads(last)["error"]["message"] == "no token for 30 seconds"
        assert router.outcomes() == {("low", "Gain", "timeout"): 1}


@on_loop
async def test_a_broken_classifier_costs_no_request():
    async with FakeEngine() as engine, running(on(high=[engine]), scorer=BrokenScorer()) as router:
        response = await router.ask(chat())
        assert (response.status, response.headers["x-trimtab-reason"]) == (200, "ClassifierMiss")
        assert response.headers["x-trimtab-class"] == "unscored"


@on_loop
async def test_what_is_chosen_by_hand_is_not_scored():
    scorer = FixedScorer(scores(class_name="math"))
    async with FakeEngine() as engine, running(on(engine), scorer=scorer) as router:
        response = await router.ask(chat(), x_trimtab_tier="low")
        assert response.headers["x-trimtab-class"] == "unscored"
        response = await router.ask(chat(model="model-low"))
        assert response.headers["x-trimtab-budget"] == "unset"
        assert scorer.batches == []


@on_loop
async def test_requests_of_one_tick_share_a_classifier_run():
    scorer = FixedScorer()
    async with FakeEngine() as engine, running(on(engine), scorer=scorer) as router:
        clients = [await router.open() for _ in range(8)]
        for client in clients:
            client.writer.write(request(chat()))
        assert {(await client.response()).status for client in clients} == {200}
        assert sum(scorer.batches) == 8
        assert len(scorer.batches) < 8


@on_loop
async def test_a_new_configuration_leaves_open_answers_alone():
    gate = asyncio.Event()
    async with FakeEngine(stream_answer("a", "b", gate=gate)) as old, FakeEngine() as new, running(on(old)) as router:
        client = await (await router.open()).send(request(chat(stream=True)))
        await client.head()
        router.write(on(new, models=["other"], policy="default/next"))
        router.tick(1)
        assert (await router.ask(chat())).status == 404
        assert (await router.ask(chat(model="other"))).status == 200
        gate.set()
        chunks = [await client.chunk() for _ in range(5)]
        assert chunks[-2:] == [b"data: [DONE]\n\n", b""]
        router.write("{")
        router.tick(1)
        assert (await router.ask(chat(model="other"))).status == 200
        assert (router.worker.report()["valid"], router.worker.report()["policy"]) == (False, "default/next")


@on_loop
async def test_a_pool_that_leaves_the_configuration_keeps_its_open_answers():
    gate = asyncio.Event()
    async with FakeEngine(stream_answer("a", "b", gate=gate)) as engine, running(on(engine)) as router:
        client = await (await router.open()).send(request(chat(stream=True)))
        await client.head()
        content = on()
        content["tiers"], content["pools"] = content["tiers"][1:], content["pools"][1:]
        router.write(content)
        router.tick(1)
        gate.set()
        assert [await client.chunk() for _ in range(5)][-1] == b""


@on_loop
async def test_a_client_that_leaves_while_connecting_leaves_nothing_behind():
    async with FakeEngine() as engine, running(on(engine)) as router:
        client = await router.open()
        client.writer.write(request(chat()))
        client.writer.transport.abort()
        await router.until(lambda: not router.worker.clients)
        await router.until(lambda: not router.worker._tasks)


@on_loop
async def test_pools_are_found_by_name_again_and_again():
    async with FakeEngine() as engine:
        host, port = engine.address.rsplit(":", 1)
        answers = [[], [(host, int(port))], None, []]

        async def resolver(name, _port):
            assert name == "pool.default.svc"
            return answers.pop(0)

        content = on()
        content["pools"][0] |= {"host": "pool.default.svc", "port": int(port)}
        content["pools"][0].pop("addresses")
        async with running("") as router:
            directory = router.worker.directory
            directory._resolver = resolver
            router.write(content)
            router.tick(1)
            replicas = directory.pools["pool-low"]
            await router.until(lambda: len(answers) == 3)
            assert (await router.ask(chat(), x_trimtab_tier="low")).status == 503
            await directory.refresh(replicas, "pool.default.svc", int(port))
            assert (await router.ask(chat(), x_trimtab_tier="low")).status == 200
            await directory.refresh(replicas, "pool.default.svc", int(port))
            assert (await router.ask(chat(), x_trimtab_tier="low")).status == 200
            await directory.refresh(replicas, "pool.default.svc", int(port))
            assert (await router.ask(chat(), x_trimtab_tier="low")).status == 503


@on_loop
async def test_a_body_that_is_nested_too_deeply_is_refused():
    nested: list[object] = []
    for _ in range(400):
        nested = [nested]
    async with FakeEngine() as engine, running(on(engine)) as router:
        for field in ("tools", "metadata"):
            response = await router.ask(chat(**{field: nested}))
            assert (response.status, response.message) == (
                400,
                "body: nested more deeply than 254 levels; nest it less deeply",
            )
        assert engine.got == []


class NonsenseScorer:
    """Gives what no plan can be made of."""

    def score(self, queries):
        return ["nonsense"] * len(queries)


@on_loop
async def test_a_fault_of_the_router_is_an_answer_and_touches_no_other_request():
    async with FakeEngine() as engine, running(on(engine), scorer=NonsenseScorer()) as router:
        clients = [await (await router.open()).send(request(chat())) for _ in range(3)]
        answers = [await client.response() for client in clients]
        assert {(a.status, a.message) for a in answers} == {(500, "router: internal error; see its log")}
        assert (await router.ask(chat(), x_trimtab_tier="low")).status == 200


@on_loop
async def test_a_full_pool_passes_queries_up_but_the_demand_stays_its_own():
    async with FakeEngine(hang) as slow, FakeEngine() as free:
        content = on(slow, medium=[free], planning={"spillPercent": 100})
        content["pools"][0]["batch"] = 1
        async with running(content) as router:
            waiting = await (await router.open()).send(request(chat()))
            await router.until(lambda: bool(slow.got))
            answer = await router.ask(chat())
            assert (answer.headers["x-trimtab-tier"], answer.headers["x-trimtab-reason"]) == ("medium", "Busy")
            tiers = router.worker.tally.tiers
            assert [tiers[t].admitted for t in ("low", "medium")] == [2, 0]
            assert router.outcomes() == {("medium", "Busy", "ok"): 1}
            waiting.writer.close()
