"""Asking a replica for the tokens of a word: once where it answers, never for long, never in vain."""

import asyncio
from dataclasses import dataclass, field

import pytest

from support.running import on_loop
from support.upstream import END, Behaviour, FakeEngine, die, hang, json_answer, raw_answer
from trimtab_router.shell.options import Options
from trimtab_router.shell.request import Request
from trimtab_router.shell.tokens import MAX_TEXTS, token_ids
from trimtab_router.shell.upstream import Endpoint


@dataclass
class Host:
    options: Options = field(default_factory=lambda: Options(config=""))

    def now(self) -> float:
        return asyncio.get_running_loop().time()


def asked(request_id: bytes = b"r") -> Request:
    made = Request()
    made.headers[b"x-request-id"] = request_id
    return made


async def ids(endpoint: Endpoint, text: str = "Wait") -> tuple[int, ...]:
    return await token_ids(Host(), asked(), endpoint, "tiny", text)


def endpoint_of(engine: FakeEngine) -> Endpoint:
    host, _, port = engine.address.rpartition(":")
    return Endpoint(host, int(port))


def said(*found: int) -> Behaviour:
    return json_answer(200, {"tokens": list(found)})


@on_loop
async def test_a_word_is_asked_once_and_again_after_a_failure():
    async with FakeEngine() as engine:
        engine.texts = {"Wait": [4, 5]}
        endpoint = endpoint_of(engine)
        assert [await ids(endpoint) for _ in range(3)] == [(4, 5)] * 3
        assert len(engine.tokenized) == 1
        body = {"model": "tiny", "prompt": "Wait", "add_special_tokens": False}
        assert engine.tokenized[0].body == body
        engine.texts = {"Wait": [6]}
        endpoint.failed(0)
        assert await ids(endpoint) == (6,)
        assert engine.connections == 1
        endpoint.leave()


@on_loop
async def test_an_engine_without_a_tokenizer_is_asked_once():
    async with FakeEngine() as engine:
        endpoint = endpoint_of(engine)
        assert [await ids(endpoint) for _ in range(2)] == [(), ()]
        assert len(engine.tokenized) == 1
        endpoint.leave()


@pytest.mark.parametrize(
    "bad",
    [
        json_answer(500, {"error": {"message": "x"}}),
        json_answer(503, {"error": {"message": "busy"}}),
        json_answer(200, {"tokens": "many"}),
        json_answer(200, {"padding": "x" * 100_000}),
        raw_answer(b"not http\r\n\r\n" + END, die=True),
        die,
    ],
    ids=["error", "busy", "no tokens", "too long", "no http", "dies"],
)
def test_what_goes_wrong_is_no_answer_and_not_remembered(bad: Behaviour):
    @on_loop
    async def test():
        async with FakeEngine() as engine:
            engine.tokenizer = [bad, said(7)]
            endpoint = endpoint_of(engine)
            assert await ids(endpoint) == ()
            assert await ids(endpoint) == (7,)
            endpoint.leave()

    test()


@on_loop
async def test_a_connection_that_was_closed_while_idle_is_replaced():
    async with FakeEngine() as engine:
        engine.texts = {"Wait": [4], "Hmm": [5]}
        endpoint = endpoint_of(engine)
        assert await ids(endpoint) == (4,)
        engine.tokenizer = [die]
        assert await ids(endpoint, "Hmm") == (5,)
        assert engine.connections == 2
        endpoint.leave()


@on_loop
async def test_an_engine_that_is_not_there_says_nothing():
    async with FakeEngine() as engine:
        endpoint = endpoint_of(engine)
    assert await ids(endpoint) == ()


@on_loop
async def test_an_engine_that_hangs_is_not_waited_for():
    async with FakeEngine() as engine:
        engine.tokenizer = [hang]
        assert await token_ids(Host(), asked(), endpoint_of(engine), "tiny", "Wait", seconds=0.01) == ()


@on_loop
async def test_few_texts_are_remembered():
    async with FakeEngine() as engine:
        engine.texts = {str(i): [i] for i in range(MAX_TEXTS + 1)}
        endpoint = endpoint_of(engine)
        for text in engine.texts:
            await ids(endpoint, text)
        assert len(endpoint.texts) == 1
        endpoint.leave()
