"""Prompts that one pool reads and another answers: bodies, headers, counts, and what happens when reading fails."""

import asyncio

import pytest

from support.attempts import chat_stream
from support.routing import chat, document, planned, pool
from support.running import Running, on_loop, request, running
from support.upstream import FakeEngine, die, hang, json_answer, stream_answer
from trimtab_crds.wire import RouterConfig
from trimtab_router.core.ceiling import Ledger, Limits, Price
from trimtab_router.core.disaggregated import READS, prefill_body, transfer_of, undivided
from trimtab_router.core.explain import plan_as_dict
from trimtab_router.core.ladder import compile_ladder
from trimtab_router.core.read import encode
from trimtab_router.shell.prefill import Prefill
from trimtab_router.shell.request import Request

TRANSFER = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_block_ids": [[1, 2]], "remote_host": "h"}
READ = json_answer(body={"choices": [], "kv_transfer_params": TRANSFER})
NOWHERE = "127.0.0.1:1"


def divided(readers, answerers, **changes):
    """The tier low answers on `answerers` what `readers` have read."""
    content = document({"low": {"addresses": [getattr(a, "address", a) for a in answerers]}})
    content["pools"].append(pool("reader", addresses=[getattr(r, "address", r) for r in readers]))
    content["tiers"][0] |= {"prefillPool": "pool-reader", **changes.pop("tier", {})}
    return content | changes


def prefills(router: Running):
    return {outcome: n for (_, outcome), n in router.worker.tally.prefills.items()}


@on_loop
async def test_one_engine_reads_and_the_other_answers():
    async with (
        FakeEngine(READ) as reader,
        FakeEngine() as answerer,
        running(divided([reader], [answerer])) as router,
    ):
        response = await router.ask(chat(max_completion_tokens=50, min_tokens=5, x=1), x_request_id="one")
        assert response.json()["choices"][0]["message"]["content"] == "hi"
        assert response.headers["x-trimtab-prefill"] == "pool-reader"
        read, answered = reader.got[0], answerer.got[0]
        assert read.line == answered.line == "POST /v1/chat/completions HTTP/1.1"
        assert read.headers["x-request-id"] == answered.headers["x-request-id"] == "one"
        assert (read.body["model"], read.body["stream"], read.body["max_tokens"]) == ("model-reader", False, 1)
        assert (read.body["max_completion_tokens"], "min_tokens" in read.body) == (1, False)
        assert read.body["kv_transfer_params"]["do_remote_decode"] is True
        assert answered.body["kv_transfer_params"] == TRANSFER
        assert (answered.body["max_completion_tokens"], answered.body["min_tokens"]) == (50, 5)
        same = ("messages", "x", "chat_template_kwargs")
        assert [read.body[name] for name in same] == [answered.body[name] for name in same]
        assert prefills(router) == {"Read": 1}
        assert router.worker.tally.tiers["low"].output_tokens == 7 + 1, "the reader writes a token, too"


@on_loop
async def test_a_stream_stays_a_stream():
    gate = asyncio.Event()
    async with (
        FakeEngine(READ) as reader,
        FakeEngine(stream_answer("a", "b", gate=gate)) as answerer,
        running(divided([reader], [answerer])) as router,
    ):
        client = await (await router.open()).send(request(chat(stream=True, stream_options={"include_usage": True})))
        assert (await client.head()).headers["x-trimtab-prefill"] == "pool-reader"
        assert b'"content": ""' in await client.chunk()
        assert b'"content": "a"' in await client.chunk()
        gate.set()
        assert b'"content": "b"' in await client.chunk()
        assert (reader.got[0].body["stream"], "stream_options" in reader.got[0].body) == (False, False)
        assert answerer.got[0].body["stream"] is True


FAILURES = {
    "it dies": ([die], "Failed", 1),
    "it is broken": ([json_answer(500)], "Failed", 1),
    "it has no room": ([json_answer(503)], "Refused", 0),
    "it refuses the request": ([json_answer(400, body={"error": {}})], "Rejected", 0),
    "it has no connector": ([json_answer(body={"kv_transfer_params": None})], "NoTransfer", 1),
    "it does not speak JSON": ([json_answer(body=None, headers="x: y\r\n")], "NoTransfer", 1),
}


@pytest.mark.parametrize(("plan", "why", "reads"), FAILURES.values(), ids=list(FAILURES))
def test_where_reading_fails_the_answering_engine_reads(plan, why: str, reads: int):
    @on_loop
    async def test():
        async with FakeEngine() as reader, FakeEngine() as answerer:
            reader.plan = list(plan)
            async with running(divided([reader], [answerer])) as router:
                response = await router.ask(chat())
                assert response.status == 200
                assert response.headers["x-trimtab-prefill"] == f"none; because={why}"
                assert "kv_transfer_params" not in answerer.got[0].body
                assert prefills(router) == {why: 1}
                assert router.worker.tally.tiers["low"].output_tokens == 7 + reads

    test()


@pytest.mark.parametrize(("readers", "why"), [([], "NoReplica"), ([NOWHERE], "Unreachable")], ids=["none", "gone"])
def test_where_nobody_reads_the_answering_engine_does(readers, why: str):
    @on_loop
    async def test():
        async with FakeEngine() as answerer, running(divided(readers, [answerer])) as router:
            assert (await router.ask(chat())).headers["x-trimtab-prefill"] == f"none; because={why}"

    test()


@on_loop
async def test_another_replica_reads_when_one_dies_but_no_third():
    async with (
        FakeEngine(die) as one,
        FakeEngine(die) as two,
        FakeEngine(die) as three,
        FakeEngine() as answerer,
        running(divided([one, two, three], [answerer])) as router,
    ):
        assert (await router.ask(chat())).status == 200
        assert len(one.got) + len(two.got) + len(three.got) == READS


@on_loop
async def test_a_connection_that_was_closed_while_idle_costs_no_read():
    async with FakeEngine(READ) as reader, FakeEngine() as answerer, running(divided([reader], [answerer])) as router:
        await router.ask(chat())
        endpoint = router.worker.directory.pools["pool-reader"].endpoints[0]
        reader.plan = [die]
        assert (await router.ask(chat())).headers["x-trimtab-prefill"] == "pool-reader"
        assert endpoint.inflight == 0


@on_loop
async def test_the_reader_stops_when_the_client_leaves():
    async with FakeEngine(hang) as reader, FakeEngine() as answerer, running(divided([reader], [answerer])) as router:
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: bool(reader.got))
        client.writer.close()
        await reader.got[0].client_gone.wait()
        assert answerer.got == []
        pools = router.worker.directory.pools
        await router.until(lambda: not any(e.inflight for p in pools.values() for e in p.endpoints))


@on_loop
async def test_the_answerer_stops_when_the_client_leaves():
    async with (
        FakeEngine(READ) as reader,
        FakeEngine(hang) as answerer,
        running(divided([reader], [answerer])) as router,
    ):
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: bool(answerer.got))
        client.writer.close()
        await answerer.got[0].client_gone.wait()


@on_loop
async def test_reading_has_a_bound():
    async with FakeEngine(hang) as reader, FakeEngine() as answerer:
        content = divided([reader], [answerer])
        async with running(content) as router:
            asked = Request()
            asked.headers[b"x-request-id"] = b"x"
            config = router.worker.directory.pools["pool-reader"].config
            prefill = Prefill(router.worker, asked, config, key=1)
            found = await prefill.read(b"/v1/chat/completions", encode(chat()), seconds=0.01)
            assert (found.transfer, found.why) == (None, "Timeout")


@on_loop
async def test_the_cache_is_read_anew_for_another_replica():
    async with FakeEngine(READ) as reader, FakeEngine() as one, FakeEngine() as two:
        one.plan, two.plan = [json_answer(503)], [json_answer(503)]
        async with running(divided([reader], [one, two], ceiling={})) as router:
            await router.ask(chat(), x_trimtab_tier="low")
            assert len(reader.got) == READS == len(one.got) + len(two.got)


@on_loop
async def test_a_tier_that_serves_instead_reads_its_own_prompts():
    async with FakeEngine(READ) as reader, FakeEngine() as medium:
        content = divided([reader], [])
        content["pools"][1]["addresses"] = [medium.address]
        async with running(content) as router:
            response = await router.ask(chat())
            assert response.headers["x-trimtab-tier"] == "medium"
            assert "x-trimtab-prefill" not in response.headers
            assert reader.got == []


@on_loop
async def test_clients_cannot_name_hosts():
    async with FakeEngine(READ) as reader, FakeEngine() as answerer, running(divided([reader], [answerer])) as router:
        response = await router.ask(chat(kv_transfer_params={"remote_host": "evil", "do_remote_prefill": True}))
        assert response.headers["x-trimtab-dropped"] == "kv_transfer_params"
        assert answerer.got[0].body["kv_transfer_params"] == TRANSFER


UNDIVIDED = {
    "several answers": ({"n": 2}, "n"),
    "one answer": ({"n": 1}, ""),
    "the prompt's own probabilities": ({"prompt_logprobs": 1}, "prompt_logprobs"),
    "an echo": ({"echo": True}, "echo"),
    "one text": ({"prompt": "a"}, ""),
    "token ids": ({"prompt": [1, 2]}, ""),
    "two texts": ({"prompt": ["a", "b"]}, "prompt"),
    "two lists of ids": ({"prompt": [[1], [2]]}, "prompt"),
}


@pytest.mark.parametrize(("fields", "field"), UNDIVIDED.values(), ids=list(UNDIVIDED))
def test_what_cannot_be_divided(fields, field: str):
    assert undivided(encode(fields)) == field


@on_loop
async def test_what_cannot_be_divided_is_answered_alone_and_says_why():
    async with FakeEngine(READ) as reader, FakeEngine() as answerer, running(divided([reader], [answerer])) as router:
        assert (await router.ask(chat(n=2))).headers["x-trimtab-prefill"] == "none; because=n"
        assert (reader.got, prefills(router)) == ([], {"Undivided": 1})


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b"{}", b'{"kv_transfer_params": {"remote_block_ids": []}}', b'{"kv_transfer_params": 1}'],
)
def test_an_answer_without_a_transfer(answer: bytes):
    assert transfer_of(answer) is None


def test_the_reader_gets_no_cap_that_the_request_has_not():
    assert b"max_completion_tokens" not in prefill_body(encode({"prompt": "a"}), "m")


@on_loop
async def test_every_sample_of_a_strategy_is_divided_and_accounted():
    vote = {"type": "SelfConsistency", "samples": 3, "wave": 3, "stopRule": "AllSamples"}
    async with (
        FakeEngine(READ) as reader,
        FakeEngine(chat_stream("4")) as answerer,
        running(divided([reader], [answerer], tier={"strategy": vote})) as router,
    ):
        used = (await router.ask(chat())).json()["usage"]["trimtab"]
        complete = [a for a in used["attempts"] if a["ended"] == "Complete"]
        assert len(complete) >= 2, "the third cannot change the vote"
        assert all(got.body["kv_transfer_params"] == TRANSFER for got in answerer.got)
        assert {(a["prefill"], a["prefill_tokens"]) for a in complete} == {("pool-reader", 1)}
        assert prefills(router)["Read"] == len(answerer.got)


@on_loop
async def test_the_ceiling_holds_over_both_engines():
    async with (
        FakeEngine(READ) as reader,
        FakeEngine() as answerer,
        running(divided([reader], [answerer], ceiling={"tokens": 100})) as router,
    ):
        await router.ask(chat())
        assert answerer.got[0].body["max_completion_tokens"] == 100 - READS


@on_loop
async def test_a_tier_that_serves_instead_has_what_the_readers_left():
    async with FakeEngine(READ) as reader, FakeEngine(json_answer(503)) as low, FakeEngine() as medium:
        content = divided([reader], [low], ceiling={"tokens": 100})
        content["pools"][1]["addresses"] = [medium.address]
        async with running(content) as router:
            assert (await router.ask(chat())).headers["x-trimtab-tier"] == "medium"
            assert medium.got[0].body["max_completion_tokens"] == 100 - READS


def price() -> Price:
    return Price(2_000, 50_000, Price(1_000, 40_000))


def test_what_is_granted_leaves_room_for_the_readers_tokens():
    ledger = Ledger(Limits(tokens=100), 0.0)
    assert ledger.reserve(1, price(), prompt_tokens=10, wanted=1000, now=0.0) == 100 - READS
    assert ledger.room(price(), 10, 1000, 0.0) == 0
    ledger.settle(1, prompt_tokens=10, tokens=40, complete=True, reads=1, fetched=True)
    assert ledger.spent_tokens == 41
    assert (
        ledger.spent_nanos
        == price().nanos(10, 40, reads=1, fetched=True)
        == -(-(40 * 50_000 + 10_000 + 40_000) // 10**6)
    )


def test_what_is_lost_counts_with_all_that_readers_could_have_written():
    ledger = Ledger(Limits(tokens=100), 0.0)
    ledger.reserve(1, price(), prompt_tokens=10, wanted=50, now=0.0)
    ledger.settle(1, prompt_tokens=0, tokens=0, complete=False)
    assert ledger.spent_tokens == 50 + READS
    assert ledger.spent_nanos == price().nanos(10, 50)


def test_an_answer_is_priced_by_who_reads():
    content = divided([], [])
    content["pools"][-1] |= {"promptTokenSeconds": 0.00005, "outputTokenSeconds": 0.0}
    found = planned(chat(max_tokens=100), compile_ladder(RouterConfig.model_validate(content)))
    alone = planned(chat(max_tokens=100))
    assert found.rung.name == alone.rung.name == "low"
    prompt = found.facts.prompt_tokens
    assert alone.budget.cost - found.budget.cost == pytest.approx(prompt * 0.00005 / 3600)
    assert alone.budget.seconds - found.budget.seconds == pytest.approx(prompt * 0.00005)
    said, told = plan_as_dict(found), plan_as_dict(alone)
    assert (said["prefill_pool"], "prefill_pool" in told) == ("pool-reader", False)
    assert said["candidates"][0]["expected_cost"] < told["candidates"][0]["expected_cost"]
