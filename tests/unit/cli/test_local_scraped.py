"""Demand from the router's own metrics, on a clock of the test's."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from support.exporter import POLICY, metrics_page
from trimtab_cli.local.scraped import ScrapedMetrics, counters_in, increase
from trimtab_operator.core.fleet import Demand


@dataclass(slots=True)
class Scrapes:
    """One scrape a second."""

    now: float = 0.0
    metrics: ScrapedMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = ScrapedMetrics("http://unused", clock=lambda: self.now)

    def see(self, counts: Sequence[float | None]) -> "Scrapes":
        """Counts of the tier high; None is a scrape that failed."""
        for count in counts:
            self.metrics.add({} if count is None else counters_in(metrics_page({"high": count})))
            self.now += 1
        self.now -= 1
        return self

    def demand(self, window_seconds: int) -> Demand | None:
        return asyncio.run(self.metrics.demand(POLICY, ["high"], window_seconds=window_seconds))["high"]


@pytest.mark.parametrize(
    ("counts", "demand"),
    [
        pytest.param([0, 2, 4, 6, 8], Demand(2, 200, 100), id="steady"),
        pytest.param([5, 5, 5, 5, 5], Demand(0, 0, 0), id="no-traffic"),
        pytest.param([100, 102, 0, 2, 4], Demand(1.5, 150, 75), id="counter-restarted"),
        pytest.param([0, 2, None, 6, 8], Demand(2, 200, 100), id="one-scrape-missed"),
        pytest.param([0, 2, 4, 6], None, id="younger-than-the-window"),
        pytest.param([None, 2, 4, 6, 8], None, id="not-there-when-the-window-began"),
        pytest.param([0, 2, None, None, None, None], None, id="stale"),
        pytest.param([0, None, None, None, None], None, id="gone"),
        pytest.param([], None, id="never-seen"),
    ],
)
def test_demand_over_four_seconds(counts: list[float | None], demand: Demand | None) -> None:
    assert Scrapes().see(counts).demand(4) == demand


def test_another_policy_is_missing() -> None:
    scrapes = Scrapes().see([0, 2, 4])
    found = asyncio.run(scrapes.metrics.demand("default/other", ["high"], window_seconds=2))
    assert found == {"high": None}


@pytest.mark.parametrize(("values", "rise"), [([1, 3, 6], 5), ([5, 0, 2], 2), ([5, 1], 1), ([7], 0), ([], 0)])
def test_increase_survives_restarts(values: list[float], rise: float) -> None:
    assert increase(values) == rise


def test_counters_are_read_by_policy_and_tier() -> None:
    page = metrics_page({"low": 1, "high": 2}) + metrics_page({"low": 3}, policy="other/p")
    assert counters_in(page) == {
        (POLICY, "low"): (1, 100, 50),
        (POLICY, "high"): (2, 200, 100),
        ("other/p", "low"): (3, 300, 150),
    }


def test_a_tier_without_all_counters_is_left_out() -> None:
    page = 'trimtab_router_admitted_total{policy="default/chat",tier="low"} 4\n'
    assert counters_in(page) == {}
