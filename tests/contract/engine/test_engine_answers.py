"""What an engine answers: probes, models, chats, completions and streams."""

from typing import Any

import pytest

from support.engineserver import QUESTION, WINDOW, Server
from support.sse import DONE, events, joined

# The first test of an engine waits for its start, which is no fault of the test.
pytestmark = pytest.mark.timeout(1800, func_only=True)


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_probes_answer_200_without_a_body(engine: Server, path: str):
    answer = engine.client.get(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_ping_may_be_posted(engine: Server):
    assert engine.client.post("/ping").status_code == 200


def test_the_version_and_the_load_are_told(engine: Server):
    assert engine.client.get("/version").json()["version"].startswith("0.32.")
    assert engine.client.get("/load").json() == {"server_load": 0}


def test_the_served_model_is_listed(engine: Server):
    listing = engine.client.get("/v1/models").json()
    assert listing["object"] == "list"
    (card,) = listing["data"]
    assert (card["id"], card["object"], card["owned_by"], card["max_model_len"]) == ("tiny", "model", "vllm", WINDOW)
    assert set(card) == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"}


def test_an_unknown_path_is_404_with_a_detail(engine: Server):
    answer = engine.client.get("/nothing-here")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_a_wrong_method_is_405_and_names_the_right_one(engine: Server):
    answer = engine.client.get("/v1/chat/completions")
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
    assert answer.headers["allow"] == "POST"


def test_a_chat_answer_has_vllms_fields(engine: Server):
    answer = engine.chat(max_tokens=8)
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert body["id"].startswith("chatcmpl-")
    assert {"object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage"} <= set(body)
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    (choice,) = body["choices"]
    assert {"index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids"} <= set(choice)
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    assert {"role", "content", "reasoning", "refusal"} <= set(choice["message"])
    assert choice["message"]["role"] == "assistant"


def test_the_usage_adds_up_and_tells_the_reasoning(engine: Server):
    usage = engine.chat(max_tokens=8).json()["usage"]
    assert set(usage) == {
        "prompt_tokens",
        "total_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    }
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (usage["completion_tokens"], usage["prompt_tokens_details"]) == (8, None)
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 8}


def test_a_cut_off_thought_is_reasoning_without_content(engine: Server):
    message = engine.chat(max_tokens=8).json()["choices"][0]["message"]
    assert message["content"] is None
    assert message["reasoning"]


def test_the_request_id_becomes_the_answers_id(engine: Server):
    answer = engine.client.post(
        "/v1/chat/completions",
        json={"model": "tiny", "messages": QUESTION, "max_tokens": 1},
        headers={"x-request-id": "abc-1"},
    )
    assert answer.json()["id"] == "chatcmpl-abc-1"
    assert "x-request-id" not in answer.headers


def test_the_model_may_be_left_out(engine: Server):
    assert engine.chat(model=...).json()["model"] == "tiny"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"no_such_field": {"a": 1}}, id="unknown"),
        pytest.param({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, id="parts"),
        pytest.param({"messages": [{"role": "developer", "content": "be brief"}, *QUESTION]}, id="developer"),
        pytest.param({"messages": [{"role": "user"}]}, id="no-content"),
        pytest.param({"thinking_token_budget": None}, id="null-budget"),
        pytest.param({"kv_transfer_params": None}, id="null-transfer"),
        pytest.param({"max_tokens": WINDOW}, id="room-up-to-the-window"),
        pytest.param({"top_k": -1, "top_p": 0.5, "temperature": 0.7, "seed": 3}, id="sampling"),
    ],
)
def test_bodies_that_are_accepted(engine: Server, fields: dict[str, Any]):
    # The stop strings end the answer early where it may be long.
    assert engine.chat(**{"stop": ["a", "e", "n", " "]} | fields).status_code == 200


@pytest.mark.parametrize("wish", ["do_remote_decode", "do_remote_prefill"])
def test_an_engine_without_a_connector_transfers_nothing(engine: Server, wish: str):
    answer = engine.chat(max_tokens=1, kv_transfer_params={wish: True, "remote_host": None})
    assert (answer.status_code, answer.json()["kv_transfer_params"]) == (200, None)


def test_max_completion_tokens_wins_over_max_tokens(engine: Server):
    assert engine.chat(max_tokens=9, max_completion_tokens=3).json()["usage"]["completion_tokens"] == 3


def test_several_samples_share_one_prompt(engine: Server):
    body = engine.chat(n=3, temperature=1, seed=1, max_tokens=5).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 15
    assert body["usage"]["prompt_tokens"] == engine.chat(max_tokens=1).json()["usage"]["prompt_tokens"]


def test_the_same_request_gets_the_same_answer(engine: Server):
    first, second = (engine.chat(max_tokens=16).json()["choices"][0]["message"] for _ in range(2))
    assert first == second


def test_a_stop_string_ends_the_answer_and_is_left_out(engine: Server):
    text = engine.chat(max_tokens=24).json()["choices"][0]["message"]["reasoning"]
    stop = text[10:12]
    body = engine.chat(max_tokens=24, stop=[stop]).json()
    (choice,) = body["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert stop not in choice["message"]["reasoning"]
    assert text.startswith(choice["message"]["reasoning"])


def test_min_tokens_and_ignore_eos_reach_the_cap(engine: Server):
    choice = engine.chat(min_tokens=40, ignore_eos=True, max_tokens=40).json()
    assert choice["usage"]["completion_tokens"] == 40
    assert choice["choices"][0]["finish_reason"] == "length"


def test_chat_logprobs_have_one_entry_per_token(engine: Server):
    (choice,) = engine.chat(max_tokens=3, logprobs=True, top_logprobs=2).json()["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == 3
    for entry in content:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 2
        assert entry["bytes"] == list(entry["token"].encode())


def test_a_completion_has_vllms_fields(engine: Server):
    body = engine.complete(logprobs=2).json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    (choice,) = body["choices"]
    assert {"index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_logprobs"} <= set(choice)
    assert set(choice["logprobs"]) == {"text_offset", "token_logprobs", "tokens", "top_logprobs"}
    assert len(choice["logprobs"]["tokens"]) == body["usage"]["completion_tokens"] == 4
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert body["usage"]["completion_tokens_details"] is None


def test_a_completion_takes_several_prompts_and_echoes_them(engine: Server):
    body = engine.complete(prompt=["Hello", "World"], echo=True, max_tokens=2).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["text"][:5] for choice in body["choices"]] == ["Hello", "World"]
    assert body["usage"]["completion_tokens"] == 4


def test_a_completion_has_16_tokens_unless_told(engine: Server):
    assert engine.complete(max_tokens=..., ignore_eos=True).json()["usage"]["completion_tokens"] == 16


def test_a_chat_stream_opens_with_the_role_and_ends_with_done(engine: Server):
    answer = engine.chat(stream=True, max_tokens=12)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = events(answer.text)
    assert chunks[-1] == DONE
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {chunk["object"] for chunk in chunks[:-1]} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks[:-1]}) == 1
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_a_stream_and_a_whole_answer_say_the_same(engine: Server):
    fields = {"max_tokens": 48, "thinking_token_budget": 16}
    message = engine.chat(**fields).json()["choices"][0]["message"]
    chunks = events(engine.chat(**fields, stream=True).text)
    assert joined(chunks, "reasoning") == message["reasoning"]
    assert joined(chunks, "content") == message["content"]


def test_the_usage_of_a_stream_is_its_last_chunk(engine: Server):
    chunks = events(engine.chat(stream=True, max_tokens=6, stream_options={"include_usage": True}).text)
    last = chunks[-2]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    # vLLM 0.32 counts too few here when the prompt opened the reasoning, so only the bound is common.
    assert 0 < last["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 6
    assert "prompt_tokens_details" not in last["usage"]


def test_the_usage_may_be_in_every_chunk(engine: Server):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(engine.chat(stream=True, max_tokens=6, stream_options=options).text)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks[:-1]]
    assert (counts[0], counts[-1]) == (0, 6)
    assert counts == sorted(counts)


def test_a_stream_of_several_samples_opens_each(engine: Server):
    chunks = events(engine.chat(stream=True, n=2, temperature=1, seed=1, max_tokens=4).text)[:-1]
    assert [chunk["choices"][0]["index"] for chunk in chunks[:2]] == [0, 1]
    finished = [c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(finished) == [0, 1]


def test_a_completion_stream_carries_text(engine: Server):
    chunks = events(engine.complete(stream=True).text)
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1])
    assert text == engine.complete().json()["choices"][0]["text"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
