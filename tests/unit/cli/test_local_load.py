"""The built-in load: its shape, its determinism and its counting."""

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from trimtab_cli.local.load import CYCLE_SECONDS, Load, Tally, choose_prompt, hard_share, prompts


@pytest.mark.parametrize(
    ("elapsed", "for_seconds", "share"),
    [
        (0, 100, 0.0),
        (20, 100, 0.0),
        (32, 100, 0.5),
        (42, 100, 1.0),
        (100, 100, 1.0),
        (1_000, 100, 1.0),
        (0, None, 0.0),
        (CYCLE_SECONDS / 2, None, 1.0),
        (CYCLE_SECONDS, None, 0.0),
        (1.5 * CYCLE_SECONDS, None, 1.0),
    ],
)
def test_the_mix_turns_hard(elapsed: float, for_seconds: float | None, share: float) -> None:
    assert hard_share(elapsed, for_seconds) == pytest.approx(share)


@pytest.mark.parametrize(("hard", "mostly"), [(0.0, "easy"), (1.0, "hard")])
def test_prompts_follow_the_mix(hard: float, mostly: str) -> None:
    draw = random.Random(1)
    chosen = [choose_prompt(draw, hard) for _ in range(400)]
    shares = {level: sum(prompt in texts for prompt in chosen) / 400 for level, texts in prompts().items()}
    assert max(shares, key=lambda level: shares[level]) == mostly
    assert min(shares.values()) > 0


def test_the_seed_decides_the_prompts() -> None:
    first, second = random.Random(3), random.Random(3)
    assert [choose_prompt(first, 0.5) for _ in range(20)] == [choose_prompt(second, 0.5) for _ in range(20)]


def test_prompts_are_many_and_different() -> None:
    everything = [text for texts in prompts().values() for text in texts]
    assert set(prompts()) == {"easy", "medium", "hard"}
    assert len(everything) >= 60
    assert len(set(everything)) == len(everything)


USAGE = {"prompt_tokens": 10, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 20}}
HEADERS = {"x-trimtab-tier": "high", "x-trimtab-class": "math"}
Handler = Callable[[httpx.Request], httpx.Response]


def answer(request: httpx.Request) -> httpx.Response:
    if json.loads(request.content).get("stream"):
        chunks = [{"choices": [{"delta": {"content": "hi"}}]}, {"choices": [], "usage": USAGE}]
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return httpx.Response(200, headers=HEADERS, text=text)
    return httpx.Response(200, headers=HEADERS, json={"choices": [], "usage": USAGE})


def fast_load(handler: Any) -> Load:
    transport = httpx.MockTransport(handler)
    return Load("http://router/v1", "auto", requests_per_second=1e6, seed=1, for_seconds=None, transport=transport)


async def until(happened: Callable[[], bool]) -> None:
    while True:
        if happened():
            return
        await asyncio.sleep(0)


def sent(handler: Handler, *, requests: int = 20) -> Tally:
    """The tally after some requests to a router that answers with `handler`."""

    async def run() -> Tally:
        load = fast_load(handler)
        running = asyncio.create_task(load.run())
        await until(lambda: load.tally.requests >= requests)
        running.cancel()
        await load.finish(5)
        return load.tally

    return asyncio.run(run())


def test_answers_are_counted_by_tier_class_and_token() -> None:
    tally = sent(answer)
    assert tally.failed == 0
    assert tally.answered == tally.requests
    assert tally.by_tier == {"high": tally.requests}
    assert tally.by_class == {"math": tally.requests}
    assert tally.output_tokens == 30 * tally.requests
    assert tally.thinking_tokens == 20 * tally.requests
    assert tally.prompt_tokens == 10 * tally.requests


def test_some_answers_are_streamed() -> None:
    asked: list[bool] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(bool(json.loads(request.content).get("stream")))
        return answer(request)

    sent(handler, requests=60)
    assert 0 < sum(asked) < len(asked) / 2


def broken_stream(request: httpx.Request) -> httpx.Response:
    if not json.loads(request.content).get("stream"):
        return answer(request)
    return httpx.Response(200, headers=HEADERS, text='data: {"choices": []}\n\n')


def error_in_stream(request: httpx.Request) -> httpx.Response:
    if not json.loads(request.content).get("stream"):
        return answer(request)
    return httpx.Response(200, headers=HEADERS, text='data: {"error": {"message": "gone"}}\n\ndata: [DONE]\n\n')


def no_usage(request: httpx.Request) -> httpx.Response:
    return answer(request) if json.loads(request.content).get("stream") else httpx.Response(200, json={"choices": []})


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (lambda _: httpx.Response(503), "Server error '503 Service Unavailable'"),
        (refused, "ConnectError: refused"),
        (no_usage, "KeyError: 'usage'"),
        (broken_stream, "the stream ended without [DONE]"),
        (error_in_stream, "error in the stream: {'message': 'gone'}"),
    ],
    ids=["status", "refused", "no-usage", "cut-stream", "error-in-stream"],
)
def test_failures_are_counted_with_their_cause(handler: Handler, why: str) -> None:
    tally = sent(handler, requests=60)
    assert tally.failed > 0
    assert tally.failed + tally.answered == tally.requests
    assert any(why in cause for cause in tally.errors)


def test_what_is_still_open_at_the_end_is_unfinished_and_not_failed() -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> Tally:
        load = fast_load(never)
        running = asyncio.create_task(load.run())
        await until(lambda: load.tally.skipped > 0)
        running.cancel()
        await load.finish(0)
        return load.tally

    tally = asyncio.run(run())
    assert tally.failed == 0
    assert tally.unfinished == tally.requests == 256
