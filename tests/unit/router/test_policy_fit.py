"""A class table from the decision log: uncertainty, shrinkage, and worlds where the right answer is known."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.decisions import decision_line, logged, told
from trimtab_router.core.fit import MIN_JUDGED, Estimate, propose, worth
from trimtab_router.core.journal import Observation, read
from trimtab_router.core.outcomes import PRIOR_WEIGHT, Arm, Beta, posterior, prior, wilson

LOW, HIGH = Arm("low", 0), Arm("high", 4096)


def seen(lines):
    return read(lines).observations


def by_name(proposal):
    return {line.name: line for line in proposal.lines}


WILSON = {
    "nothing": (0, 0, (0.0, 1.0)),
    "none of ten": (0, 10, (0.0, 0.2775)),
    "half of ten": (5, 10, (0.2366, 0.7634)),
    "all of ten": (10, 10, (0.7225, 1.0)),
    "nine of ten thousandfold": (9000, 10000, (0.8940, 0.9057)),
}


@pytest.mark.parametrize(("right", "judged", "wanted"), WILSON.values(), ids=WILSON)
def test_wilson_is_the_published_interval(right, judged, wanted):
    assert wilson(right, judged) == pytest.approx(wanted, abs=1e-4)


@given(judged=st.integers(0, 500), share=st.floats(0, 1), mean=st.floats(0.01, 0.99))
def test_a_posterior_lies_between_its_prior_and_what_was_seen(judged, share, mean):
    right = share * judged
    found = posterior(right, judged, mean)
    low, high = sorted((mean, share if judged else mean))
    assert low - 1e-9 <= found.mean <= high + 1e-9
    bottom, top = found.interval()
    assert 0 <= bottom <= found.mean <= top <= 1


def test_little_evidence_stays_near_the_prior_and_much_does_not():
    assert posterior(0, 0, 0.8).mean == pytest.approx(0.8)
    assert posterior(0, 2, 0.8).mean == pytest.approx(0.8 * PRIOR_WEIGHT / (PRIOR_WEIGHT + 2))
    assert posterior(0, 1000, 0.8).mean < 0.01
    assert posterior(3, 4, 0.5).variance > posterior(300, 400, 0.5).variance


def test_the_prior_of_nothing_is_one_half():
    assert prior(0, 0) == 0.5
    assert prior(98, 98) == pytest.approx(0.99)


def test_a_class_for_which_both_tiers_are_as_good_goes_to_the_cheap_one():
    flat = lambda name, tier, _: {"chat": 0.9, "math": 0.4 if tier == "low" else 0.8}[name]  # noqa: E731
    found = by_name(propose(seen(logged(4000, flat)), may_lose=0.01))
    assert found["chat"].proposed.arm == LOW
    assert found["chat"].proposed.cost.mean < found["chat"].now.cost.mean
    assert found["math"].proposed.arm != LOW


def test_the_expected_change_is_what_happens_in_that_world():
    flat = lambda name, tier, _: {"chat": 0.9, "math": 0.4 if tier == "low" else 0.8}[name]  # noqa: E731
    proposal = propose(seen(logged(6000, flat)), may_lose=0.01)
    low, high = proposal.quality.interval()
    assert low <= 0.0 <= high
    assert proposal.quality.mean >= -0.0101
    cheap, dear = proposal.cost.interval()
    # half of the requests are chats, half of those went to the tier that costs ten times as much
    assert cheap <= 0.5 * 0.5 * (1e-6 - 1e-5) <= dear < 0


def test_easy_queries_on_the_cheap_tier_do_not_make_it_look_good():
    """Simpson's trap: the cheap tier got the easy half and is right more often, yet would fail on the hard half."""
    world = lambda _, tier, hardness: 0.95 if hardness < 0.5 else (0.85 if tier == "high" else 0.2)  # noqa: E731
    observations = seen(logged(4000, world, classes=("math",), explored=0.2))

    def plain_share(arm):
        scores = [o.score for o in observations if o.arm == arm]
        return sum(scores) / len(scores)

    assert plain_share(LOW) > 0.8
    (line,) = propose(observations).lines
    assert line.proposed.arm != LOW
    (forced,) = propose(observations, may_lose=0.3).lines
    assert forced.proposed.arm == LOW
    assert forced.proposed.quality.mean == pytest.approx(0.5 * 0.95 + 0.5 * 0.2, abs=0.08)


def test_without_a_try_on_both_kinds_of_queries_nothing_is_proposed():
    world = lambda _, tier, hardness: 0.9  # noqa: E731
    (line,) = propose(seen(logged(3000, world, classes=("math",), explored=0.0)), may_lose=0.5).lines
    assert not line.changes
    assert set(line.untried) == {LOW, HIGH}


def test_few_judged_answers_propose_nothing():
    world = lambda _, tier, hardness: 0.9  # noqa: E731
    observations = seen(logged(60, world, classes=("math",), judged=0.2))
    assert sum(o.score is not None for o in observations) < MIN_JUDGED
    (line,) = propose(observations, may_lose=0.5).lines
    assert not line.changes


def test_noise_alone_is_said_to_be_noise():
    world = lambda _, tier, hardness: 0.5  # noqa: E731
    proposal = propose(seen(logged(400, world)), may_lose=0.02)
    low, high = proposal.quality.interval()
    assert low < 0 < high


def test_asking_for_better_answers_costs_more():
    world = lambda _, tier, hardness: 0.3 if tier == "low" else 0.9  # noqa: E731
    observations = seen(logged(4000, world))
    proposal = propose(observations, may_lose=-0.2)
    assert proposal.quality.mean >= 0.1999
    assert proposal.cost.mean > 0
    assert all(line.proposed.arm == HIGH for line in proposal.lines)
    assert not any(line.changes for line in propose(observations).lines)


def test_the_same_log_gives_the_same_proposal():
    lines = list(logged(800, lambda name, tier, _: 0.8 if tier == "high" or name == "chat" else 0.5))
    assert propose(seen(lines)) == propose(seen(lines))


@pytest.mark.parametrize(("right", "wrong"), [(1, 1), (30, 10), (0, 5), (800, 3)])
def test_a_share_is_worth_the_counts_it_came_from(right, wrong):
    beta = Beta(right + 0.001, wrong + 0.001)
    assert worth(Estimate(beta.mean, beta.variance)) == (right, wrong)


def test_a_share_that_nothing_is_known_of_is_worth_nothing():
    assert worth(Estimate(0.5, 0.25)) == (0, 0)
    assert worth(Estimate(0.5, 0.0)) == (0, 0)


def test_nothing_seen_is_nothing_proposed():
    proposal = propose([])
    assert (proposal.lines, proposal.quality.mean, proposal.cost_now) == ((), 0.0, 0.0)


@given(
    st.lists(
        st.builds(
            Observation,
            st.sampled_from(["math", "chat", "code"]),
            st.sampled_from([LOW, HIGH, Arm("medium", 100)]),
            st.floats(-1, 1),
            st.floats(0, 1e-3),
            st.one_of(st.none(), st.floats(0, 1)),
        ),
        max_size=150,
    ),
    st.floats(0, 0.3),
)
def test_whatever_was_seen_the_proposal_keeps_its_promise(observations, may_lose):
    proposal = propose(observations, may_lose=may_lose, min_judged=5)
    assert proposal.quality.mean >= -may_lose - 1.01e-4
    assert proposal.cost.mean <= 1e-12
    assert proposal.price >= 0
    assert sum(line.share for line in proposal.lines) == pytest.approx(1.0 if observations else 0.0)
    for line in proposal.lines:
        assert 0 <= line.proposed.quality.mean <= 1
        assert sum(line.arms.values()) == pytest.approx(1.0)


SKIPPED = {
    "half a line": ('{"kind": "decision", "requ', "1 broken lines"),
    "no object": ("[]", "1 broken lines"),
    "another kind": ('{"kind": "note", "request_id": "a"}', "1 broken lines"),
    "a score above 1": (json.dumps(told("a", 2.0)), "1 broken lines"),
    "no class": (json.dumps({k: v for k, v in decision_line("a").items() if k != "class"}), "1 broken lines"),
    "an error": (json.dumps(decision_line("a", outcome="upstream_error")), "1 not answered"),
    "by hand": (
        json.dumps(decision_line("a", **{"class": "unscored", "gain": None})),
        "1 not scored by the classifier",
    ),
    "a pool by name": (json.dumps(decision_line("a", thinking_tokens=None)), "1 not scored by the classifier"),
    "another policy": (json.dumps(decision_line("a", policy="other/one")), "1 of other policies"),
    "feedback alone": (json.dumps(told("zzz", 1.0)), "1 feedback without a decision"),
    "an empty line": ("", ""),
}


@pytest.mark.parametrize(("line", "words"), SKIPPED.values(), ids=SKIPPED)
def test_lines_that_teach_nothing_are_counted(line, words):
    journal = read([line, json.dumps(decision_line("good")), json.dumps(told("good", 1.0))], "default/chat")
    assert journal.skipped.words() == words
    assert [(o.class_name, o.arm, o.score) for o in journal.observations] == [("math", LOW, 1.0)]


def test_the_last_word_of_a_client_counts():
    lines = [told("a", 1.0), decision_line("a"), told("a", 0.0)]
    assert [o.score for o in seen(map(json.dumps, lines))] == [0.0]
