"""Thinking budgets, efforts, and the token ids by which a thought goes on."""

from typing import Any

import pytest

from support.engineserver import WINDOW, Server, error_of
from support.sse import events, joined

# The first test of an engine waits for its start, which is no fault of the test.
pytestmark = pytest.mark.timeout(1800, func_only=True)


@pytest.mark.parametrize("budget", [0, 1, 7, 32])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_thinking_budget_is_obeyed(engine: Server, budget: int, stream: bool):
    fields = {"thinking_token_budget": budget, "max_tokens": 80, "ignore_eos": True}
    if stream:
        answer = engine.chat(**fields, stream=True, stream_options={"include_usage": True})
        chunks = events(answer.text)
        usage, content = chunks[-2]["usage"], joined(chunks, "content")
    else:
        body = engine.chat(**fields).json()
        usage, content = body["usage"], body["choices"][0]["message"]["content"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] <= budget
    assert usage["completion_tokens"] == 80
    assert content


def test_without_a_budget_it_thinks_longer(engine: Server):
    details = engine.chat(max_tokens=60).json()["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] > 32


@pytest.mark.parametrize("budget", [-1, 10_000_000])
def test_a_budget_may_be_unlimited(engine: Server, budget: int):
    assert engine.chat(thinking_token_budget=budget).status_code == 200


@pytest.mark.parametrize("budget", [-2, "many", 1.5, True])
def test_a_budget_that_is_no_count_is_refused(engine: Server, budget: object):
    answer = engine.chat(thinking_token_budget=budget)
    error = error_of(answer)
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("BadRequestError", "thinking_token_budget")
    assert error["message"] == (
        "`thinking_token_budget` must be a non-negative integer or -1 for unlimited. "
        f"(parameter=thinking_token_budget, value={budget})"
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"reasoning_effort": "none"}, id="effort-none"),
        pytest.param({"chat_template_kwargs": {"enable_thinking": False}}, id="template"),
        pytest.param(
            {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, id="template-wins"
        ),
    ],
)
def test_thinking_can_be_switched_off(engine: Server, fields: dict[str, Any]):
    body = engine.chat(**fields).json()
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}
    assert body["choices"][0]["message"]["content"]
    assert body["choices"][0]["message"]["reasoning"] is None


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
def test_reasoning_efforts_that_are_known(engine: Server, effort: str):
    assert engine.chat(reasoning_effort=effort, max_tokens=2).status_code == 200


def test_reasoning_may_be_hidden_but_is_counted(engine: Server):
    body = engine.chat(include_reasoning=False, max_tokens=8).json()
    assert body["choices"][0]["message"]["reasoning"] is None
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 8}


def tokens_of(server: Server, text: str) -> list[int]:
    return server.client.post("/tokenize", json={"model": "tiny", "prompt": text, "add_special_tokens": False}).json()[
        "tokens"
    ]


def test_a_text_is_tokenized(engine: Server):
    body = engine.client.post("/tokenize", json={"prompt": "Wait, what?", "add_special_tokens": False}).json()
    assert set(body) == {"count", "max_model_len", "tokens", "token_strs"}
    assert body["count"] == len(body["tokens"]) > 0
    assert (body["max_model_len"], body["token_strs"]) == (WINDOW, None)
    assert len(tokens_of(engine, "</think>")) == 1


def test_an_unknown_model_tokenizes_nothing(engine: Server):
    answer = engine.client.post("/tokenize", json={"model": "other", "prompt": "Wait"})
    assert (answer.status_code, error_of(answer)["type"]) == (404, "NotFoundError")


def test_ids_are_told_when_asked_for(engine: Server):
    fields = {"return_token_ids": True, "thinking_token_budget": 8, "max_tokens": 24}
    body = engine.chat(**fields).json()
    assert len(body["prompt_token_ids"]) == body["usage"]["prompt_tokens"]
    ids = body["choices"][0]["token_ids"]
    assert len(ids) == body["usage"]["completion_tokens"]
    assert tokens_of(engine, "</think>")[0] in ids
    chunks = events(engine.chat(**fields, stream=True).text)[:-1]
    assert chunks[0]["prompt_token_ids"] == body["prompt_token_ids"]
    assert [i for chunk in chunks for c in chunk["choices"] for i in c.get("token_ids") or ()] == ids


def test_a_completion_tells_ids_when_asked_for(engine: Server):
    body = engine.complete(return_token_ids=True).json()
    choice = body["choices"][0]
    assert len(choice["prompt_token_ids"]) == body["usage"]["prompt_tokens"]
    assert len(choice["token_ids"]) == body["usage"]["completion_tokens"]
    chunks = events(engine.complete(return_token_ids=True, stream=True).text)[:-1]
    assert chunks[0]["choices"][0]["prompt_token_ids"] == choice["prompt_token_ids"]
    assert [i for chunk in chunks for c in chunk["choices"] for i in c.get("token_ids") or ()] == choice["token_ids"]


def test_a_thought_goes_on_by_its_ids_within_its_budget(engine: Server):
    first = engine.chat(return_token_ids=True, thinking_token_budget=8, max_tokens=24).json()
    end = tokens_of(engine, "</think>")[0]
    ids = first["choices"][0]["token_ids"]
    prompt = [*first["prompt_token_ids"], *ids[: ids.index(end)], *tokens_of(engine, "Wait")]
    fields = {"thinking_token_budget": 20, "max_tokens": 60, "ignore_eos": True, "skip_special_tokens": False}
    answer = engine.complete(prompt=prompt, return_token_ids=True, **fields).json()
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    goes_on = answer["choices"][0]["token_ids"]
    assert 0 < goes_on.index(end) <= 20
    assert "</think>" in answer["choices"][0]["text"]
