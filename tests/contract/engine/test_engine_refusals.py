"""What an engine refuses, in vLLM's words."""

import re
from typing import Any

import pytest

from support.engineserver import WINDOW, Server, error_of

# The first test of an engine waits for its start, which is no fault of the test.
pytestmark = pytest.mark.timeout(1800, func_only=True)


LIMIT = "cannot be greater than max_model_len=8192. Please request fewer output tokens."
REFUSED = {
    "n-zero": ({"n": 0}, "n must be at least 1, got 0.", None),
    "greedy-n": ({"n": 2}, "n must be 1 when using greedy sampling, got 2.", None),
    "temperature": (
        {"temperature": -1},
        "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)",
        "temperature",
    ),
    "temperature-high": (
        {"temperature": 3},
        "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)",
        "temperature",
    ),
    "top-p": ({"top_p": 2}, "top_p must be in (0, 1], got 2.0. (parameter=top_p, value=2.0)", "top_p"),
    "top-k": ({"top_k": -5}, "top_k must be 0 (disable), or at least 1, got -5.", None),
    "penalty": ({"frequency_penalty": 9}, "frequency_penalty must be in [-2, 2], got 9.0.", None),
    "stop": ({"stop": ""}, "stop cannot contain an empty string.", None),
    "max-zero": (
        {"max_tokens": 0},
        "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
        "max_tokens",
    ),
    "max-above": (
        {"max_tokens": 9000},
        f"max_tokens=9000 {LIMIT} (parameter=max_tokens, value=9000)",
        "max_tokens",
    ),
    "max-completion-above": (
        {"max_completion_tokens": 9000},
        f"max_completion_tokens=9000 {LIMIT} (parameter=max_completion_tokens, value=9000)",
        "max_completion_tokens",
    ),
    "min-above-max": ({"min_tokens": 65}, "min_tokens must be less than or equal to max_tokens=64, got 65.", None),
    "min-negative": ({"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1.", None),
    "stream-options": (
        {"stream_options": {"include_usage": True}},
        "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
        "stream_options",
    ),
    "top-logprobs-alone": (
        {"top_logprobs": 2},
        "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)",
        "top_logprobs",
    ),
    "top-logprobs-many": (
        {"logprobs": True, "top_logprobs": 99},
        "Requested sample logprobs of 99, which is greater than max allowed: 20 (parameter=logprobs, value=99)",
        "logprobs",
    ),
    "no-messages": (
        {"messages": []},
        "Cannot apply chat template to an empty conversation. Provide at least one message.",
        None,
    ),
}


@pytest.mark.parametrize(("fields", "message", "param"), REFUSED.values(), ids=REFUSED)
def test_refused_in_vllms_words(engine: Server, fields: dict[str, Any], message: str, param: str | None):
    answer = engine.chat(**fields)
    assert answer.status_code == 400
    assert error_of(answer) == {"message": message, "type": "BadRequestError", "param": param, "code": 400}


INVALID = {
    "effort": (
        {"reasoning_effort": "huge"},
        "body.reasoning_effort",
        "Input should be 'none', 'minimal', 'low', 'medium', 'high', 'xhigh' or 'max'",
    ),
    "max-text": ({"max_tokens": "a"}, "body.max_tokens", "unable to parse string as an integer"),
    "stops": ({"stop": list("abcde")}, "body.stop", "List should have at most 4 items"),
    "seed-text": ({"seed": "a"}, "body.seed", "unable to parse string as an integer"),
    "stream-text": ({"stream": "maybe"}, "body.stream", "unable to interpret input"),
    "model-number": ({"model": 5}, "body.model", "Input should be a valid string"),
    "transfer-text": ({"kv_transfer_params": "x"}, "body.kv_transfer_params", "Input should be a valid dictionary"),
    "messages-text": ({"messages": "hi"}, "body.messages", "Input should be a valid list"),
    "messages-missing": ({"messages": ...}, "body.messages", "Field required"),
}


@pytest.mark.parametrize(("fields", "param", "part"), INVALID.values(), ids=INVALID)
def test_fields_of_a_wrong_type(engine: Server, fields: dict[str, Any], param: str, part: str):
    answer = engine.chat(**fields)
    error = error_of(answer)
    assert (answer.status_code, error["type"], error["param"]) == (400, "Bad Request", param)
    assert re.match(r"[12] validation errors?:\n  \{'type': ", error["message"])
    assert part in error["message"]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        pytest.param(b"{bad", "application/json", "JSON decode error", id="no-json"),
        pytest.param(b"[1]", "application/json", "Input should be a valid dictionary or object", id="a-list"),
        pytest.param(b"{}", "text/plain", "Only 'application/json' is allowed", id="media-type"),
    ],
)
def test_bodies_that_are_no_request(engine: Server, content: bytes, kind: str, message: str):
    answer = engine.client.post("/v1/chat/completions", content=content, headers={"content-type": kind})
    assert answer.status_code == 400
    assert message in error_of(answer)["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_model_that_is_not_served_is_404(engine: Server, stream: bool):
    answer = engine.chat(model="nope", stream=stream)
    assert answer.status_code == 404
    assert error_of(answer) == {
        "message": "The model `nope` does not exist. Valid aliases: tiny.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


def test_a_prompt_beyond_the_window_is_refused(engine: Server):
    answer = engine.chat(messages=[{"role": "user", "content": "hello world " * 9000}], max_tokens=...)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, "input_tokens")
    assert error["message"].startswith(f"This model's maximum context length is {WINDOW} tokens.")


def test_a_completion_needs_a_prompt(engine: Server):
    for prompt in (..., ""):
        error = error_of(engine.complete(prompt=prompt))
        assert error["message"] == "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
