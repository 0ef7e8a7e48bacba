"""What the simulated model answers: lengths, budgets, limits, stop strings, repeatability."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_cli.engine_sim.answers import (
    EFFORTS,
    WORDS,
    Answer,
    Wish,
    answer_key,
    count_tokens,
    difficulty,
    logprob,
    natural_lengths,
    plan_answer,
)

EASY = "Hi there, how are you?"
HARD = "Prove the theorem: solve the equation x^2 + 17x + 60 = 0 step by step and derive its integral from 3 to 9."
THINKING = Wish(max_tokens=10_000, thinks=True)


def text_of(answer: Answer) -> str:
    return "".join(token.text for token in answer.tokens(0, answer.output_tokens))


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("x" * 400, 100)])
def test_four_characters_are_a_token(text: str, tokens: int):
    assert count_tokens(text) == tokens


@pytest.mark.parametrize(
    ("easier", "harder"),
    [
        pytest.param(EASY, HARD, id="proof"),
        pytest.param("Tell me a story", "Implement the algorithm and analyze its complexity", id="code"),
        pytest.param("short", "long " * 500, id="length"),
    ],
)
def test_harder_looking_prompts_think_longer(easier: str, harder: str):
    assert difficulty(easier) < difficulty(harder) <= 1
    assert natural_lengths(easier, 7)[0] < natural_lengths(harder, 7)[0]


def test_the_same_request_gets_the_same_answer():
    key = answer_key(prompt=HARD, engine_seed=0, seed=None, index=0)
    assert plan_answer(HARD, key, THINKING) == plan_answer(HARD, key, THINKING)
    assert key == answer_key(prompt=HARD, engine_seed=0, seed=None, index=0)


@pytest.mark.parametrize("field", [{"prompt": EASY}, {"engine_seed": 1}, {"seed": 1}, {"index": 1}])
def test_everything_that_an_answer_is_drawn_from_changes_it(field: dict[str, object]):
    base = {"prompt": HARD, "engine_seed": 0, "seed": None, "index": 0}
    assert answer_key(**base) != answer_key(**(base | field))


@pytest.mark.parametrize("budget", [0, 1, 50])
def test_a_spent_budget_ends_the_reasoning_by_the_marker(budget: int):
    answer = plan_answer(HARD, 3, replace(THINKING, thinking_budget=budget))
    assert (answer.reasoning_tokens, answer.marker_tokens) == (budget, 1)
    assert answer.content_tokens >= 1
    tokens = list(answer.tokens(0, answer.output_tokens))
    assert [token.reasoning for token in tokens[: budget + 1]] == [True] * budget + [False]
    assert (tokens[budget].text, tokens[budget].marker) == ("</think>", True)


@pytest.mark.parametrize("budget", [None, -1, 10**9])
def test_no_budget_no_bound(budget: int | None):
    answer = plan_answer(HARD, 3, replace(THINKING, thinking_budget=budget))
    assert answer.reasoning_tokens == natural_lengths(HARD, 3)[0]


def test_a_thought_that_is_made_to_go_on_does():
    natural = plan_answer(HARD, 3, THINKING).reasoning_tokens
    halfway = plan_answer(HARD, 3, replace(THINKING, thought_tokens=natural // 2))
    assert halfway.reasoning_tokens == natural - natural // 2
    assert plan_answer(HARD, 3, replace(THINKING, thought_tokens=10 * natural)).reasoning_tokens == natural // 4


def test_effort_stretches_the_reasoning():
    lengths = [plan_answer(HARD, 3, replace(THINKING, effort=effort)).reasoning_tokens for effort in EFFORTS]
    assert lengths == sorted(lengths)
    assert lengths[0] == 0


def test_without_thinking_there_is_no_reasoning_and_no_marker():
    answer = plan_answer(HARD, 3, Wish(max_tokens=10_000))
    assert (answer.reasoning_tokens, answer.marker_tokens, answer.finish_reason) == (0, 0, "stop")


@pytest.mark.parametrize(
    ("limit", "reasoning", "marker", "content"),
    [pytest.param(5, 5, 0, 0, id="in-thought"), (10, 10, 0, 0), (11, 10, 1, 0), (12, 10, 1, 1)],
)
def test_max_tokens_cuts_wherever_it_falls(limit: int, reasoning: int, marker: int, content: int):
    answer = plan_answer(HARD, 3, replace(THINKING, max_tokens=limit, thinking_budget=10))
    assert (answer.reasoning_tokens, answer.marker_tokens, answer.content_tokens) == (reasoning, marker, content)
    assert answer.finish_reason == "length"


def test_ignore_eos_goes_on_to_the_limit():
    answer = plan_answer(EASY, 3, Wish(max_tokens=3000, ignore_eos=True))
    assert (answer.output_tokens, answer.finish_reason) == (3000, "length")


def test_min_tokens_are_written():
    answer = plan_answer(EASY, 3, Wish(max_tokens=3000, min_tokens=900))
    assert (answer.output_tokens, answer.finish_reason) == (900, "stop")


WISHES = st.builds(
    Wish,
    max_tokens=st.integers(1, 3000),
    thinks=st.booleans(),
    effort=st.sampled_from(list(EFFORTS)),
    thinking_budget=st.one_of(st.none(), st.integers(-1, 500)),
    ignore_eos=st.booleans(),
    stop=st.lists(st.sampled_from([*WORDS[:40], "a b", "n f", "</think>"]), max_size=3),
    keep_stop=st.booleans(),
)


@given(st.text(max_size=300), st.integers(0, 2**63), WISHES)
def test_limits_hold_for_every_wish(prompt: str, key: int, wish: Wish):
    answer = plan_answer(prompt, key, wish)
    assert 1 <= answer.output_tokens <= wish.max_tokens
    if wish.thinking_budget is not None and wish.thinking_budget >= 0:
        assert answer.reasoning_tokens <= wish.thinking_budget
    if not wish.thinks:
        assert answer.reasoning_tokens == answer.marker_tokens == 0
    if not wish.stop:
        assert answer.finish_reason == ("length" if wish.ignore_eos else answer.finish_reason)
    elif answer.stop_reason is None or not wish.keep_stop:
        assert not any(stop in text_of(answer) for stop in wish.stop)
    assert [t.text for t in answer.tokens(0, 9)] == [t.text for i in range(9) for t in answer.tokens(i, i + 1)]


def test_a_stop_string_over_two_tokens_is_cut_out_of_both():
    whole = text_of(plan_answer(EASY, 3, Wish(max_tokens=30)))
    stop = whole[10:14]
    cut = plan_answer(EASY, 3, Wish(max_tokens=30, stop=(stop,)))
    kept = plan_answer(EASY, 3, Wish(max_tokens=30, stop=(stop,), keep_stop=True))
    at = whole.index(stop)
    assert text_of(cut) == whole[:at]
    assert text_of(kept) == whole[: at + len(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert cut.output_tokens == kept.output_tokens


def test_stop_strings_before_min_tokens_do_not_stop():
    whole = text_of(plan_answer(EASY, 3, Wish(max_tokens=30, ignore_eos=True)))
    answer = plan_answer(EASY, 3, Wish(max_tokens=30, ignore_eos=True, min_tokens=20, stop=(whole[:3],)))
    assert answer.output_tokens >= 20


def test_logprobs_are_negative_and_fall_with_the_rank():
    answer = plan_answer(EASY, 3, THINKING)
    values = [logprob(answer, 5, rank) for rank in range(4)]
    assert values == sorted(values, reverse=True)
    assert values[0] < 0
