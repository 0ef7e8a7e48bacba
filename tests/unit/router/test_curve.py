"""Accuracy against compute: which form the points support, and that no more is said than they say."""

import random
from itertools import pairwise
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import facts, ladder, scores
from trimtab_router.core.curve import Curve, Point, fit
from trimtab_router.core.planner import plan_as_dict, plan_on

BUDGETS = (0, 128, 256, 512, 1024, 2048, 4096)


def measured(accuracy, *, judged=2000, budgets=BUDGETS, seed=None) -> list[Point]:
    """Points of a world whose accuracy is known, with the noise of `judged` answers where there is a seed."""
    draw = random.Random(seed)
    return [
        Point(
            x, judged * accuracy(x) if seed is None else sum(draw.random() < accuracy(x) for _ in range(judged)), judged
        )
        for x in budgets
    ]


def test_a_line_in_the_logarithm_is_found_again():
    curve = fit(measured(lambda x: 0.3 + 0.05 * log2(1 + x / 64), seed=1))
    assert curve.form == "log-linear"
    worth = curve.doubling(1024)
    assert worth.low < 0.05 * log2(33 / 17) < worth.high
    assert curve.at(512).low < 0.3 + 0.05 * log2(9) < curve.at(512).high


def test_saturation_is_found_and_doubling_loses_worth():
    curve = fit(measured(lambda x: 0.9 - 0.6 / (1 + x / 64), seed=2))
    assert (curve.form, curve.power) == ("power", 1.0)
    worths = [curve.doubling(x).mean for x in (128, 256, 512, 1024, 2048)]
    assert worths == sorted(worths, reverse=True)
    assert worths[-1] < 0.02


@pytest.mark.parametrize("seed", range(20))
def test_flat_worlds_are_constant_up_to_chance(seed):
    curve = fit(measured(lambda _: 0.49, judged=388, budgets=range(11), seed=seed), little=1.0)
    assert curve.form == "constant"
    worth = curve.doubling(5)
    assert worth.low <= worth.mean < 0.03


def test_a_constant_says_how_much_a_rise_could_have_been_missed():
    few, many = (fit(measured(lambda _: 0.5, judged=n)).doubling(1024) for n in (50, 5000))
    assert few.mean == many.mean == 0
    assert few.low < many.low < 0 < many.high < few.high


def test_forced_continuations_as_published_are_flat():
    shares = (0.490, 0.497, 0.492, 0.534, 0.485, 0.487, 0.497, 0.508, 0.487, 0.503, 0.500)
    curve = fit([Point(k, share * 388, 388) for k, share in enumerate(shares)], little=1.0)
    assert curve.form == "constant"


def test_more_compute_is_never_predicted_to_hurt():
    curve = fit(measured(lambda x: 0.8 - 0.00001 * x, judged=300))
    assert curve.form == "constant"
    assert curve.doubling(2048).low < 0


def test_nothing_is_said_beyond_what_was_measured():
    curve = fit(measured(lambda x: 0.3 + 0.05 * log2(1 + x / 64)))
    assert curve.at(4096) is not None
    assert (curve.at(4097), curve.doubling(2049), curve.worth(0, 5000), curve.doubling(0)) == (None,) * 4


def test_points_that_no_form_follows_shorten_the_range_from_below():
    shares = {64: 0.0, 128: 0.0, 256: 0.01, 512: 0.3, 1024: 0.5, 2048: 0.6, 4096: 0.65}
    curve = fit([Point(x, share * 3000, 3000) for x, share in shares.items()])
    assert curve.low >= 256
    assert curve.at(128) is None


@pytest.mark.parametrize(
    "points",
    [[], [Point(0, 5, 10), Point(512, 9, 10)], [Point(512, 5, 10)] * 4, [Point(x, 0, 0) for x in BUDGETS]],
    ids=["none", "two", "one budget four times", "nothing judged"],
)
def test_too_few_budgets_have_no_curve(points):
    assert fit(points) is None


POINTS = st.lists(
    st.tuples(st.integers(0, 16384), st.integers(1, 400), st.floats(0, 1)),
    min_size=3,
    max_size=9,
    unique_by=lambda p: p[0],
)


@given(POINTS)
def test_every_curve_rises_within_its_range_and_its_intervals_hold_it(found):
    curve = fit([Point(x, share * judged, judged) for x, judged, share in found])
    if curve is None:
        return
    steps = [curve.low + (curve.high - curve.low) * k / 20 for k in range(20)]
    values = [curve.at(x) for x in steps]
    assert all(0 <= v.low <= v.mean <= v.high <= 1 for v in values)
    assert all(b.mean >= a.mean - 1e-9 for a, b in pairwise(values))
    worth = curve.worth(steps[3], steps[12])
    assert -1 <= worth.low <= worth.mean <= worth.high <= 1


def test_the_same_points_in_any_order_are_the_same_curve():
    points = measured(lambda x: 0.3 + 0.05 * log2(1 + x / 64), seed=4)
    assert fit(points) == fit(points[::-1])


def outcomes(accuracy, budgets=(1000, 2000, 4000)):
    return [
        {
            "className": "math",
            "tier": "high",
            "thinkingTokens": x,
            "right": round(1000 * accuracy(x)),
            "wrong": 1000 - round(1000 * accuracy(x)),
        }
        for x in budgets
    ]


def packaged() -> dict[str, Curve]:
    return {"math": fit(measured(lambda x: 0.3 + 0.05 * log2(1 + x / 64)))}


def doublings(found, curves=None):
    return {
        (c["tier"], c["budget"]["thinking_tokens"]): c["doubling"] for c in plan_as_dict(found, curves)["candidates"]
    }


def test_explain_says_what_doubling_is_worth_by_the_policys_own_outcomes_first():
    learned = ladder(outcomes=outcomes(lambda x: 0.1 + 0.08 * log2(1 + x / 64)))
    shown = doublings(plan_on(facts(), scores(class_name="math"), learned), packaged())
    assert (shown["high", 2000]["source"], shown["high", 2000]["form"]) == ("outcomes", "log-linear")
    assert shown["high", 2000]["low"] < 0.08 < shown["high", 2000]["high"]
    assert shown["high", 4000] is None
    assert shown["medium", 1000]["source"] == "packaged"
    assert shown["low", 0] is None


def test_explain_says_nothing_where_nothing_was_measured():
    assert set(doublings(plan_on(facts(), scores(class_name="math"), ladder())).values()) == {None}
    assert set(doublings(plan_on(facts(), scores(class_name="chat"), ladder()), packaged()).values()) == {None}
