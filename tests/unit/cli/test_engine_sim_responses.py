"""The JSON of the simulated engine: deltas, logprobs, usage, events."""

import json

import pytest

from trimtab_cli.engine_sim.answers import Wish, plan_answer
from trimtab_cli.engine_sim.responses import (
    Shown,
    Spent,
    chat_choice,
    chat_delta,
    completion_choice,
    completion_delta,
    error_event,
    event,
)

ANSWER = plan_answer("Hello", 5, Wish(max_tokens=12, thinks=True, thinking_budget=4, ignore_eos=True))
PLAIN = Shown()


def test_events_are_framed():
    assert event({"a": "é"}) == 'data: {"a":"é"}\n\n'.encode()
    assert error_event({"error": {"code": 503}}) == b'data: {"error": {"code": 503}}\n\ndata: [DONE]\n\n'


def test_lone_surrogates_do_not_break_an_event():
    assert json.loads(event({"a": "\ud800"})[6:])["a"] == "?"


def test_a_choice_splits_reasoning_from_content():
    message = chat_choice(0, ANSWER, "length", PLAIN, 12)["message"]
    assert len(message["reasoning"].split()) == 4
    assert len(message["content"].split()) == 7
    assert "</think>" not in message["reasoning"] + message["content"]


def test_a_choice_shows_only_what_was_written():
    choice = chat_choice(0, ANSWER, "abort", PLAIN, 2)
    assert choice["finish_reason"] == "abort"
    assert len(choice["message"]["reasoning"].split()) == 2
    assert choice["message"]["content"] is None


def test_a_run_over_the_end_of_the_thought_makes_two_deltas():
    first, second = chat_delta(0, ANSWER, 2, 8, finish_reason=None, shown=PLAIN)
    assert set(first["delta"]) == {"reasoning"}
    assert set(second["delta"]) == {"content"}
    assert (first["finish_reason"], second["finish_reason"]) == (None, None)


def test_the_marker_alone_makes_no_delta():
    assert chat_delta(0, ANSWER, 4, 5, finish_reason=None, shown=PLAIN) == []


def test_the_finish_reason_is_on_the_last_delta_even_when_it_is_empty():
    (choice,) = chat_delta(0, ANSWER, 12, 12, finish_reason="abort", shown=PLAIN)
    assert (choice["delta"], choice["finish_reason"]) == ({}, "abort")


def test_hidden_reasoning_makes_no_deltas():
    assert chat_delta(0, ANSWER, 0, 3, finish_reason=None, shown=Shown(include_reasoning=False)) == []


def test_deltas_of_single_tokens_add_up_to_the_choice():
    whole = chat_choice(0, ANSWER, "length", PLAIN, 12)["message"]
    deltas = [d["delta"] for i in range(12) for d in chat_delta(0, ANSWER, i, i + 1, finish_reason=None, shown=PLAIN)]
    for field in ("reasoning", "content"):
        assert "".join(delta.get(field, "") for delta in deltas) == whole[field]


def test_completions_show_the_marker_and_the_echo():
    shown = Shown(echo="Hello")
    text = completion_choice(0, ANSWER, "length", shown, 12)["text"]
    assert text.startswith("Hello")
    assert "</think>" in text
    runs = [completion_delta(0, ANSWER, i, i + 4, finish_reason=None, shown=shown) for i in (0, 4, 8)]
    assert "".join(choice["text"] for run in runs for choice in run) == text


def test_offsets_of_streamed_logprobs_go_on():
    shown = Shown(top_logprobs=2, echo="Hello")
    whole = completion_choice(0, ANSWER, "length", shown, 12)["logprobs"]
    runs = [completion_delta(0, ANSWER, i, i + 4, finish_reason=None, shown=shown)[0]["logprobs"] for i in (0, 4, 8)]
    for field, values in whole.items():
        assert [value for run in runs for value in run[field]] == values
    assert whole["text_offset"][0] == 5


@pytest.mark.parametrize(("top", "entries"), [(0, 0), (1, 1), (5, 5)])
def test_chat_logprobs_list_the_token_first(top: int, entries: int):
    content = chat_choice(0, ANSWER, "length", Shown(top_logprobs=top), 12)["logprobs"]["content"]
    assert len(content) == 12
    for entry in content:
        rows = entry["top_logprobs"]
        assert len(rows) == entries
        assert len({row["token"] for row in rows}) == entries
        assert not rows or rows[0]["token"] == entry["token"]


@pytest.mark.parametrize(
    ("spent", "details"),
    [
        pytest.param(Spent(40, 5, None, None, 16), (None, None), id="plain"),
        pytest.param(Spent(40, 5, 3, None, 16), (None, {"reasoning_tokens": 3}), id="reasoning"),
        pytest.param(
            Spent(40, 5, None, 16, 16),
            ({"cached_tokens": 16, "created_cache_tokens": 16, "multimodal_tokens": None}, None),
            id="cached",
        ),
    ],
)
def test_usage_details(spent: Spent, details: tuple[object, object]):
    usage = spent.usage()
    assert (usage["prompt_tokens_details"], usage["completion_tokens_details"]) == details
    assert usage["total_tokens"] == 45
    assert None not in spent.usage(streamed=True).values()
