"""Votes stop when they may, never draw more than they need, and the most frequent answer wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_router.core.voting import AllSamples, Posterior, Verdict, Voting, Window, lead_probability

ANSWERS = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=30)
RULES = st.one_of(
    st.floats(0.5, 0.999).map(Posterior), st.integers(1, 8).map(Window), st.just(AllSamples())
)  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(0, 0, 0.5), (1, 1, 0.5), (1, 0, 0.75), (4, 0, 0.96875), (3, 1, 0.8125)]
)
def test_lead_probability_is_the_integral_of_the_beta_density(first, second, expected):
    assert lead_probability(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "answers", "decided"),
    [
        (Posterior(0.95), "aaa", False),
        (Posterior(0.95), "aaaa", True),
        (Posterior(0.95), "aaaba", False),
        (Posterior(0.9), "aaa", True),
        (Window(3), "baaa", True),
        (Window(3), "aaba", False),
        (Window(3), "aa", False),
        (AllSamples(), "aaaaaa", False),
    ],
)
def test_rules(rule, answers, decided):
    assert rule.decided(list(answers)) is decided


@pytest.mark.parametrize("rule", [Posterior(0.95), Window(2)])
def test_no_answer_is_no_vote(rule):
    assert not rule.decided([""] * 9)


def test_nothing_can_change_a_lead_above_what_is_left():
    votes = Voting(AllSamples(), 5)
    assert votes.ending(list("aab")) == "Running"
    assert votes.ending(list("aaa")) == "CannotChange"
    assert votes.more(list("aaa")) == 0


def test_a_wave_is_no_larger_than_what_could_end_the_vote():
    votes = Voting(Posterior(0.95), 40, wave=8)
    assert votes.more([]) == 4
    assert votes.more(list("aaab")) == 3
    assert votes.more(list("aaab"), running=2) == 1
    assert Voting(Posterior(0.95), 40, wave=2).more([]) == 2
    assert Voting(Posterior(0.95), 3, wave=8).more([]) == 2


def test_a_wave_hopes_for_the_last_answer_too():
    assert Voting(Window(2), 40, wave=8).more(list("abab")) == 1
    assert Voting(Window(3), 40, wave=8).more(["a", ""]) == 3


def test_verdict():
    votes = Voting(Posterior(0.9), 5)
    assert votes.verdict(["", "b", "a", "a", "a"]) == Verdict(2, "a", 3, 5, "AllSamples")
    assert votes.verdict([]).winner == -1
    assert votes.verdict([]).agreement == 0
    assert votes.verdict(["b", "a"]).key == "b"
    assert votes.verdict(["b", "a"]).agreement == 0.5


@given(ANSWERS, RULES, st.integers(1, 30), st.integers(1, 8))
def test_waves_cost_no_sample(answers, rule, limit, wave):
    one, many = Voting(rule, limit, 1), Voting(rule, limit, wave)
    assert one.replay(answers) == many.replay(answers)
    assert one.replay(answers).samples <= min(limit, len(answers))


@given(ANSWERS, RULES, st.integers(1, 30))
def test_a_vote_that_cannot_change_names_the_winner_of_all(answers, rule, limit):
    votes = Voting(rule, limit)
    verdict = votes.replay(answers[:limit])
    if verdict.ending == "CannotChange":
        assert Voting(AllSamples(), limit).verdict(answers[:limit]).key == verdict.key


@given(st.integers(0, 40), st.integers(0, 40))
def test_probability_is_symmetric_and_rises_with_the_lead(first, second):
    assert lead_probability(first, second) + lead_probability(second, first) == pytest.approx(1)
    assert lead_probability(first + 1, second) > lead_probability(first, second)
