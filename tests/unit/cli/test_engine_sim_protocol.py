"""Requests of the simulated engine: what is refused before the engine sees it, and how prompts are read.

The refusals that real vLLM shares are in the contract suite; here is what needs other settings.
"""

from typing import Any

import pytest

from trimtab_cli.engine_sim import protocol
from trimtab_cli.engine_sim.answers import count_tokens
from trimtab_cli.engine_sim.jobs import Job, chat_job, completion_job
from trimtab_cli.engine_sim.protocol import ApiError
from trimtab_cli.engine_sim.settings import Settings, settings_from
from trimtab_cli.engine_sim.vocabulary import ids_of

USER = [{"role": "user", "content": "Hello, what is 2 + 2?"}]


def settings(line: str = "--reasoning-parser qwen3") -> Settings:
    return settings_from(["Qwen/Qwen3-8B", "--served-model-name", "tiny", "--max-model-len", "2048", *line.split()], {})


def chat(line: str = "--reasoning-parser qwen3", **fields: Any) -> Job:
    request = protocol.parse_chat({"messages": USER} | fields)
    return chat_job(request, settings(line), request_id="r1")


def complete(line: str = "--reasoning-parser qwen3", **fields: Any) -> Job:
    request = protocol.parse_completion({"prompt": "Once"} | fields)
    return completion_job(request, settings(line), request_id="r1")


def refusal(call: Any, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        call(**fields)
    return refused.value


def test_a_chat_prompt_is_chatml_and_opens_the_thought():
    (prompt,) = chat().prompts
    assert prompt.text == "<|im_start|>user\nHello, what is 2 + 2?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert prompt.tokens == count_tokens(prompt.text)


def test_a_chat_prompt_without_thinking_closes_it():
    assert chat(reasoning_effort="none").prompts[0].text.endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("line", "fields", "thinks"),
    [
        pytest.param("--reasoning-parser qwen3", {}, True, id="default"),
        pytest.param("", {"reasoning_effort": "high"}, False, id="no-parser"),
        pytest.param("--reasoning-parser qwen3", {"reasoning_effort": "none"}, False, id="effort-none"),
        pytest.param(
            "--reasoning-parser qwen3",
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            True,
            id="template-beats-effort",
        ),
        pytest.param(
            '--reasoning-parser qwen3 --default-chat-template-kwargs {"enable_thinking":false}', {}, False, id="server"
        ),
        pytest.param(
            '--reasoning-parser qwen3 --default-chat-template-kwargs {"enable_thinking":false}',
            {"reasoning_effort": "low"},
            True,
            id="effort-beats-server",
        ),
    ],
)
def test_who_decides_about_thinking(line: str, fields: dict[str, Any], thinks: bool):
    (planned,) = chat(line, **fields).planned
    assert (planned.answer.marker_tokens == 1) == thinks


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param("plain", "plain", id="text"),
        pytest.param(None, "", id="none"),
        pytest.param([{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}], "a\n\nb", id="parts"),
        pytest.param(["odd"], "", id="odd-parts"),
    ],
)
def test_the_text_of_a_message(content: Any, text: str):
    assert protocol.Message(role="user", content=content).text == text


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        pytest.param("a", ["a"], id="text"),
        pytest.param(["a", "b"], ["a", "b"], id="texts"),
        pytest.param(ids_of("Hello"), ["Hello"], id="ids"),
        pytest.param([ids_of("a"), ids_of("bc")], ["a", "bc"], id="lists-of-ids"),
    ],
)
def test_the_prompts_of_a_completion(prompt: Any, texts: list[str]):
    assert [raw.text for raw in protocol.parse_completion({"prompt": prompt}).prompts] == texts


def test_every_id_of_a_prompt_counts():
    assert complete(prompt=[*ids_of("a"), *ids_of("b"), 0]).prompts[0].tokens == 3


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("Solve <think>12345678", 2),
        ("<think>no</think> Solve", 0),
        ([*ids_of("Solve <think>\n"), *ids_of("ba "), *ids_of("con ")], 3),
        ([*ids_of("<think>"), *ids_of("ba "), *ids_of("</think>")], 0),
    ],
    ids=["text", "closed", "ids", "closed ids"],
)
def test_the_thought_in_a_prompt_is_counted(prompt: Any, tokens: int):
    (raw,) = protocol.parse_completion({"prompt": prompt}).prompts
    assert raw.thought_tokens == tokens


def test_a_thought_goes_on_within_what_is_left_of_its_budget():
    prompt = [*ids_of("Prove it <think>\n"), *(token for _ in range(20) for token in ids_of("ba "))]
    (planned,) = complete(prompt=prompt, thinking_token_budget=24, max_tokens=100).planned
    assert planned.answer.reasoning_tokens == 24 - 21


@pytest.mark.parametrize("prompt", [None, "", [], ["a", ""]])
def test_a_completion_without_a_prompt(prompt: Any):
    assert refusal(complete, prompt=prompt).body["error"]["param"] == "prompt"


@pytest.mark.parametrize(
    ("prompt", "reasoning"),
    [("Solve 12 + 9", 0), ("Solve 12 + 9 <think>", 5), ("<think>no</think> Solve 12 + 9", 0)],
)
def test_a_completion_thinks_only_in_an_open_thought(prompt: str, reasoning: int):
    (planned,) = complete(prompt=prompt, thinking_token_budget=5, max_tokens=100).planned
    assert planned.answer.reasoning_tokens == reasoning


def test_the_answer_has_the_rest_of_the_window():
    (prompt,) = chat().prompts
    assert prompt.max_tokens == 2048 - prompt.tokens
    assert complete().prompts[0].max_tokens == 16


def test_the_servers_cap_holds():
    line = '--override-generation-config {"max_new_tokens":9}'
    assert chat(line).prompts[0].max_tokens == 9
    assert chat(line, max_tokens=5).prompts[0].max_tokens == 5


def test_a_prompt_that_fills_the_window_is_refused():
    error = refusal(complete, prompt="x" * 2048 * 4)
    assert (error.status, error.body["error"]["param"]) == (400, "input_tokens")
    assert "contains at least 2048 input tokens" in str(error)
    assert complete(prompt="x" * 2047 * 4).prompts[0].max_tokens == 1


def test_every_sample_of_every_prompt_is_a_choice_of_its_own():
    job = complete(prompt=["a", "b"], n=2, temperature=1)
    assert [planned.index for planned in job.planned] == [0, 1, 2, 3]
    assert [prompt.text for prompt in job.prompts] == ["a", "b"]
    assert len({planned.answer.key for planned in job.planned}) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"n": 99_999}, "n must be at most 16384, got 99999."),
        ({"n": None, "stop": ["a", ""]}, "stop cannot contain an empty string."),
        ({"presence_penalty": -3}, "presence_penalty must be in [-2, 2], got -3.0."),
    ],
)
def test_sampling_refusals(fields: dict[str, Any], message: str):
    assert str(refusal(chat, **fields)) == message


def test_a_budget_without_a_parser_is_refused_late():
    error = refusal(chat, line="", thinking_token_budget=3)
    assert (error.status, error.late) == (400, True)
    assert chat("", thinking_token_budget=-1).planned


def test_a_busy_engine_is_refused_late_and_says_why():
    requests, tokens = (protocol.engine_busy(reason) for reason in protocol.BUSY)
    assert (requests.status, requests.late) == (503, True)
    assert str(requests).startswith("The engine is currently busy")
    assert str(tokens).startswith("The engine has reached its prefill token backlog limit.")


def test_all_errors_of_a_body_are_told_at_once():
    error = refusal(chat, n="b", seed="a")
    assert str(error) == (
        "2 validation errors:\n"
        "  {'type': 'int_parsing', 'loc': 'body.n', 'msg': 'Input should be a valid integer, unable to parse string "
        "as an integer', 'input': 'b'}\n"
        "  {'type': 'int_parsing', 'loc': 'body.seed', 'msg': 'Input should be a valid integer, unable to parse "
        "string as an integer', 'input': 'a'}"
    )
    assert error.body["error"]["param"] == "body.n"


def test_errors_are_bounded():
    error = refusal(chat, messages=[{}] * 30, n="x" * 500)
    lines = str(error).splitlines()
    assert lines[0] == "31 validation errors:"
    assert lines[-1] == "  ...and 21 more errors"
    assert len(lines) == 12
    assert f"'input': '{'x' * 200}...[truncated]'" in lines[1]
    assert "'loc': 'body.messages.0.role'" in lines[2]


@pytest.mark.parametrize(("logprobs", "top", "shown"), [(None, None, None), (True, None, 0), (True, 3, 3)])
def test_how_many_logprobs_are_shown(logprobs: bool | None, top: int | None, shown: int | None):
    (planned,) = chat(logprobs=logprobs, top_logprobs=top).planned
    assert planned.shown.top_logprobs == shown
