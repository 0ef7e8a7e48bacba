import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_classifier.evaluation import curves
from trimtab_classifier.evaluation.result import Result, table

RNG = np.random.default_rng(0)
WEAK = (RNG.random(2_000) < 0.6).astype(float)
STRONG = np.maximum(WEAK, (RNG.random(2_000) < 0.5).astype(float))


def test_random_scores_recover_half_of_the_gap():
    assert curves.apgr(RNG.random(2_000), WEAK, STRONG) == pytest.approx(0.5, abs=0.06)


def test_a_perfect_score_recovers_more_and_its_reverse_less():
    gain = STRONG - WEAK
    assert curves.apgr(gain, WEAK, STRONG) > 0.8
    assert curves.apgr(-gain, WEAK, STRONG) < 0.2


def test_no_gap_has_no_apgr():
    assert math.isnan(curves.apgr(WEAK, WEAK, WEAK))


def test_accuracy_runs_from_the_weak_to_the_strong_model():
    ends = curves.accuracy_by_share(RNG.random(2_000), WEAK, STRONG, np.array([0.0, 1.0]))
    assert ends == pytest.approx([WEAK.mean(), STRONG.mean()])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_ordered_pairs(pairs):
    score = np.array([s for s, _ in pairs], float)
    positive = np.array([p for _, p in pairs])
    compared = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in score[positive].tolist() for b in score[~positive].tolist()
    ]
    found = curves.auc(score, positive)
    if compared:
        assert found == pytest.approx(np.mean(compared))
    else:
        assert math.isnan(found)


def test_the_interval_holds_the_mean_and_narrows_with_rows():
    values = RNG.normal(1, 1, 1_000)
    low, high = curves.interval(lambda rows: float(values[rows].mean()), 1_000)
    wide_low, wide_high = curves.interval(lambda rows: float(values[:50][rows].mean()), 50)
    assert low < values.mean() < high
    assert high - low < wide_high - wide_low


def test_the_interval_of_nothing_finite_is_nan():
    assert all(math.isnan(end) for end in curves.interval(lambda _: float("nan"), 5))


def test_ranks_keep_the_order_between_zero_and_one():
    assert curves.ranks(np.array([30.0, -1.0, 2.0])) == pytest.approx([5 / 6, 1 / 6, 3 / 6])


@pytest.mark.parametrize(
    ("value", "bar", "higher", "met"),
    [
        (0.8, 0.7, True, True),
        (0.6, 0.7, True, False),
        (0.6, 0.7, False, True),
        (0.8, 0.7, False, False),
        (0.8, None, True, None),
    ],
    ids=["above", "below", "cheap", "dear", "no-bar"],
)
def test_a_bar_has_a_direction(value, bar, higher, met):
    result = Result("x", value, 0, 1, 10, {"random": 0.5}, bar, higher)
    assert result.met is met
    assert result.as_json()["met"] is met
    assert "x" in table([result])


def test_json_has_no_nan():
    assert Result("x", float("nan"), 0.123456, 1, 10, {}).as_json() | {"details": 0} == {
        "id": "x", "value": None, "low": 0.1235, "high": 1, "n": 10, "baselines": {}, "bar": None, "higher": True,
        "details": 0, "met": None,
    }  # fmt: skip


def test_points_that_a_cheaper_one_equals_are_left_out():
    points = [(3.0, 0.8), (1.0, 0.5), (2.0, 0.8), (2.0, 0.7), (4.0, 0.9)]
    assert curves.undominated(points) == [(1.0, 0.5), (2.0, 0.8), (4.0, 0.9)]


def test_a_perfect_score_finds_all_positives_first():
    positive = np.arange(50) >= 30
    line = curves.roc(np.arange(50.0), positive)
    assert (0.0, 1.0) in line
    assert (line[0], line[-1]) == ((0.0, 0.0), (1.0, 1.0))
