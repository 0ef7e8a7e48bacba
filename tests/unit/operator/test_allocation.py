"""Marginal value per GPU: what a replica is worth, who gives and who gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_operator.core.allocation import Curve, Seat, fill, fit, gain_points, improve, release


def curve(work: float, *, weight: float = 1, gpus: int = 1, utilization: float = 1.0) -> Curve:
    return Curve(weight=weight, gpus=gpus, work=work, utilization=utilization)


def seat(name: str, now: int, work: float | None, **changes: int) -> Seat:
    gpus, weight = changes.get("gpus", 1), changes.get("weight", 1)
    known = None if work is None else curve(work, weight=weight, gpus=gpus)
    return Seat(name, gpus, changes.get("low", 1), changes.get("high", 9), now, weight, known)


@pytest.mark.parametrize(
    ("work", "replicas", "coverage"),
    [(0, 0, 1.0), (0, 3, 1.0), (2, 0, 0.0), (2, 1, 0.5), (2, 2, 1.0), (2, 5, 1.0)],
)
def test_coverage_is_the_share_of_mean_demand_served(work: float, replicas: int, coverage: float) -> None:
    assert curve(work).coverage(replicas) == coverage


@pytest.mark.parametrize(
    ("work", "utilization", "need", "peak_need"),
    [(0, 1.0, 0, 0), (2, 1.0, 2, 3), (2, 0.5, 4, 5), (0.1, 0.85, 1, 1), (8, 1.0, 8, 10)],
)
def test_need_counts_whole_replicas_at_the_planned_utilization(
    work: float, utilization: float, need: int, peak_need: int
) -> None:
    known = curve(work, utilization=utilization)
    assert (known.need, known.peak_need) == (need, peak_need)


@given(st.floats(0, 20), st.integers(0, 30), st.integers(1, 8), st.floats(0.1, 1))
def test_value_is_concave(work: float, replicas: int, gpus: int, utilization: float) -> None:
    known = curve(work, gpus=gpus, utilization=utilization)
    assert known.gain(replicas) >= known.gain(replicas + 1) - 1e-9
    assert known.loss(replicas + 1) == known.gain(replicas)


@pytest.mark.parametrize(
    ("seats", "budget", "counts"),
    [
        pytest.param([seat("a", 3, 2), seat("b", 2, 2)], 8, {"a": 3, "b": 2}, id="fits"),
        pytest.param([seat("a", 3, 1), seat("b", 3, 3)], 4, {"a": 1, "b": 3}, id="idle-replicas-go-first"),
        pytest.param([seat("a", 3, 3), seat("b", 3, 3, weight=2)], 4, {"a": 1, "b": 3}, id="light-tier-goes-first"),
        pytest.param([seat("a", 3, None), seat("b", 3, 3)], 5, {"a": 3, "b": 2}, id="unknown-demand-goes-last"),
        pytest.param([seat("a", 3, None), seat("b", 1, 3)], 3, {"a": 2, "b": 1}, id="unknown-demand-goes-in-need"),
        pytest.param([seat("a", 2, 2, low=2), seat("b", 2, 2, low=2)], 3, {"a": 2, "b": 2}, id="never-below-minimum"),
        pytest.param([seat("a", 12, 2)], 20, {"a": 9}, id="never-above-maximum"),
        pytest.param([seat("a", 0, 2, low=2)], 20, {"a": 2}, id="raised-to-minimum"),
    ],
)
def test_fit_cuts_where_it_hurts_least(seats: list[Seat], budget: int, counts: dict[str, int]) -> None:
    assert fit(seats, budget) == counts


@pytest.mark.parametrize(
    ("seats", "budget", "counts"),
    [
        pytest.param([seat("a", 1, 4), seat("b", 1, 0)], 8, {"a": 5, "b": 1}, id="grows-into-free-gpus-up-to-its-peak"),
        pytest.param([seat("a", 4, 0), seat("b", 1, 4)], 5, {"a": 1, "b": 4}, id="takes-idle-replicas"),
        pytest.param([seat("a", 4, 3), seat("b", 1, 2)], 5, {"a": 3, "b": 2}, id="takes-spare-replicas"),
        pytest.param([seat("a", 2, 2), seat("b", 2, 2)], 4, {"a": 2, "b": 2}, id="equals-are-left-alone"),
        pytest.param([seat("a", 3, 3), seat("b", 1, 3, weight=5)], 4, {"a": 1, "b": 3}, id="heavy-tier-wins"),
        pytest.param([seat("a", 4, None), seat("b", 1, 8)], 5, {"a": 4, "b": 1}, id="unknown-demand-gives-nothing"),
        pytest.param(
            [seat("a", 4, 0), seat("b", 1, 4, gpus=2)], 6, {"a": 2, "b": 2}, id="two-donors-for-a-two-gpu-replica"
        ),
        pytest.param([seat("a", 2, 2), seat("b", 1, 4, gpus=4)], 6, {"a": 2, "b": 1}, id="not-for-more-than-it-gains"),
        pytest.param([seat("a", 1, 9, high=3), seat("b", 1, 1)], 9, {"a": 3, "b": 2}, id="maximum-holds"),
    ],
)
def test_improve_moves_only_where_it_pays(seats: list[Seat], budget: int, counts: dict[str, int]) -> None:
    assert improve(seats, fit(seats, budget), budget) == counts


def test_fill_takes_from_nobody() -> None:
    seats = [seat("a", 4, 0), seat("b", 1, 4)]
    assert fill(seats, fit(seats, 6), 6) == {"a": 4, "b": 2}


@pytest.mark.parametrize(
    ("work", "now", "kept"),
    [(0.0, 5, 1), (2.0, 5, 3), (2.0, 3, 3), (2.0, 2, 2), (None, 5, 5)],
    ids=["no-demand-to-minimum", "keeps-a-margin", "within-the-margin", "needed", "unknown-is-held"],
)
def test_release_keeps_a_margin_above_the_peak(work: float | None, now: int, kept: int) -> None:
    assert release([seat("a", now, work)], {"a": now}) == {"a": kept}


@pytest.mark.parametrize(
    ("before", "after", "points"),
    [
        pytest.param({"a": 1, "b": 3}, {"a": 2, "b": 2}, 18, id="evened-out"),
        pytest.param({"a": 4, "b": 0}, {"a": 2, "b": 2}, 43, id="from-idle-to-needed"),
        pytest.param({"a": 2, "b": 2}, {"a": 4, "b": 0}, -43, id="a-loss"),
        pytest.param({"a": 3, "b": 3}, {"a": 9, "b": 9}, 0, id="nothing-left-to-serve"),
    ],
)
def test_gain_is_in_points_of_the_weighted_demand(before: dict[str, int], after: dict[str, int], points: float) -> None:
    seats = [seat("a", 1, 2), seat("b", 1, 2)]
    assert gain_points(seats, before, after) == pytest.approx(points)


def test_gain_of_no_demand_is_zero() -> None:
    assert gain_points([seat("a", 1, 0)], {"a": 1}, {"a": 5}) == 0
