"""What partial answers say of themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_crds.strategyspec import Signal
from trimtab_crds.wire import EscalationConfig
from trimtab_router.core.signals import TURNS, Watch, confidence, repeats, turns

CONFIG = EscalationConfig(window_tokens=4, patience_tokens=3, confidence_percent=50)


def watch(*signals, thinking=100):
    return Watch(CONFIG, frozenset(signals or Signal), thinking)


def fed(watching, values, *, reasoning=True):
    """Number of the token at which a signal counts, and which."""
    for i, value in enumerate(values):
        signal = watching.feed(f"w{i} ", [value], 1, reasoning=reasoning)
        if signal:
            return i, signal
    return None


def test_low_probabilities_count_after_the_window_and_the_patience():
    assert fed(watch(), [-3.0] * 20) == (3 + 2, Signal.LOW_CONFIDENCE)


def test_one_dip_does_nothing():
    assert fed(watch(), [-0.1] * 5 + [-2.0] + [-0.1] * 20) is None


def test_patience_starts_again_when_the_signal_ends():
    dips = [-1.5, 0.0, -1.5, 0.0, 0.0, 0.0, 0.0] * 4
    assert fed(watch(), [0.0] * 4 + dips) is None


def test_a_signal_that_the_policy_does_not_name_does_not_count():
    assert fed(watch(Signal.REPETITION), [-9.0] * 50) is None


@pytest.mark.parametrize(("thinking", "found"), [(8, (0, Signal.BUDGET_EXHAUSTED)), (30, None), (0, None)])
def test_the_budget_counts_when_the_answer_begins(thinking, found):
    watching = watch(Signal.BUDGET_EXHAUSTED, thinking=thinking)
    assert fed(watching, [0.0] * 7) is None
    assert fed(watching, [0.0], reasoning=False) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the same sentence again. " * 4, True),
        ("prefix, then " + "abcdefghijkl" * 4, True),
        ("abc" * 20, True),
        ("the same sentence again. " * 3, False),
        ("one two three four five six seven eight nine ten eleven twelve", False),
        ("", False),
    ],
)
def test_repetition(text, expected):
    assert repeats(text) is expected


def test_repetition_is_found_while_it_streams():
    watching = watch(Signal.REPETITION)
    found = [watching.feed("I go round in circles. ", [], 6, reasoning=False) for _ in range(5)]
    assert found[:3] == [None] * 3
    assert Signal.REPETITION in found


def test_turning_around_again_and_again():
    assert turns("Wait, no. Alternatively x. Hmm, let me recheck. The waiter waits.") == 4
    watching = watch(Signal.BRANCHING)
    signals = [watching.feed("wait, ", [], 1, reasoning=True) for _ in range(TURNS + 3)]
    assert signals.index(Signal.BRANCHING) == TURNS - 1 + 2
    assert watch(Signal.BRANCHING).feed("wait " * 20, [], 50, reasoning=False) is None


def test_confidence_is_the_mean_token_probability():
    assert confidence([]) == 1
    assert confidence([0.0, -1.3862943611]) == pytest.approx(0.5)


def test_what_was_held_back_may_go_after_the_window():
    watching = watch()
    assert not watching.settled
    assert fed(watching, [0.0] * 7) is None
    assert watching.settled


@given(st.lists(st.floats(-20, 0), max_size=60))
def test_a_sure_answer_never_escalates_and_an_unsure_one_always(values):
    sure = [max(v, -0.6) for v in values]
    assert fed(watch(Signal.LOW_CONFIDENCE), sure) is None
    unsure = [min(v, -0.8) for v in values]
    assert (fed(watch(Signal.LOW_CONFIDENCE), unsure) is not None) == (len(unsure) >= 6)
