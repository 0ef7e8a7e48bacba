"""One tick over fake ports."""

import asyncio
from dataclasses import replace

import pytest

from support.rebalancing import KEY, FakeFleet, FakeMetrics, observation, observed_pool
from trimtab_crds.routingpolicy import Move, RoutingPolicyStatus
from trimtab_operator.core.fleet import Demand
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.rebalancer import Rebalancer

NOW = 1_700_000_000.0
QUIET = Demand(0, 0, 0)
BUSY = Demand(2, 2_000, 1_000)


def tick(fleet: FakeFleet, metrics: FakeMetrics, *, now: float = NOW) -> TickReport | None:
    return asyncio.run(Rebalancer(fleet, lambda _: metrics, lambda: now).tick(KEY))


def reported(fleet: FakeFleet, metrics: FakeMetrics) -> TickReport:
    report = tick(fleet, metrics)
    assert report is not None
    return report


def test_a_shift_of_demand_takes_one_step_and_says_so() -> None:
    fleet = FakeFleet(observation(observed_pool("low", running=7), observed_pool("high", running=1)))
    report = reported(fleet, FakeMetrics({"low": QUIET, "high": BUSY}))

    assert fleet.written == [("default/low", 6)]
    assert fleet.reports == [report]
    assert report.last_move is not None
    assert report.last_move.time == "2023-11-14T22:13:20Z"
    assert (report.last_move.pool, report.last_move.from_replicas, report.last_move.to_replicas) == ("low", 7, 6)
    assert report.again is False


def test_status_has_demand_replicas_and_gpus() -> None:
    fleet = FakeFleet(observation(observed_pool("low", running=3), observed_pool("high", running=1)))
    report = reported(fleet, FakeMetrics({"low": Demand(1.234, 567.8, 91.2), "high": None}))

    low, high = report.tiers
    assert low.demand is not None
    assert low.demand.model_dump() == {
        "requests_per_minute": 72,
        "prompt_tokens_per_minute": 34_000,
        "output_tokens_per_minute": 5_500,
    }
    assert (low.pool, low.replicas.ready, low.coverage_percent) == ("low", 3, 100)
    assert (high.demand, high.coverage_percent, high.limited_by) == (None, None, "MissingData")
    assert [use.model_dump() for use in report.gpus] == [{"accelerator": "nvidia-l4-24gb", "budget": 8, "held": 4}]


def test_the_report_is_stable_at_rest() -> None:
    fleet = FakeFleet(observation(observed_pool("low"), observed_pool("high")))
    metrics = FakeMetrics({"low": QUIET, "high": QUIET})
    assert reported(fleet, metrics) == tick(fleet, metrics, now=NOW + 3600)
    assert fleet.written == []


def test_noise_in_the_third_digit_changes_nothing() -> None:
    seen = observation(observed_pool("low"), observed_pool("high"))
    first = reported(FakeFleet(seen), FakeMetrics({"low": Demand(1.01, 101, 10.1), "high": QUIET}))
    second = reported(FakeFleet(seen), FakeMetrics({"low": Demand(1.02, 102, 10.2), "high": QUIET}))
    assert first == second


def test_a_source_that_is_down_holds_everything_and_is_named() -> None:
    fleet = FakeFleet(observation(observed_pool("low", running=7), observed_pool("high")))
    report = reported(fleet, FakeMetrics(problem="Prometheus at http://p:9090: refused"))

    assert fleet.written == []
    assert report.metrics_problem == (
        "no demand data for low, high: Prometheus at http://p:9090: refused; their replicas are held"
    )


def test_a_young_router_is_named_too() -> None:
    fleet = FakeFleet(observation(observed_pool("low"), observed_pool("high")))
    report = reported(fleet, FakeMetrics({"low": QUIET}))
    assert report.metrics_problem == (
        "no demand data for high: no router reported for the whole window of 300 s yet; their replicas are held"
    )


@pytest.mark.parametrize("reading", [Demand(float("nan"), 1, 1), Demand(1, -1, 1), Demand(1, 1, float("inf"))])
def test_insane_demand_is_missing(reading: Demand) -> None:
    fleet = FakeFleet(observation(observed_pool("low", running=7), observed_pool("high")))
    report = reported(fleet, FakeMetrics({"low": reading, "high": QUIET}))
    assert report.tiers[0].limited_by == "MissingData"
    assert fleet.written == []


def test_growth_into_free_gpus_asks_for_another_tick_at_once() -> None:
    empty = observation(observed_pool("low", running=0), observed_pool("high", running=0))
    fleet = FakeFleet(empty)
    metrics = FakeMetrics()
    assert reported(fleet, metrics).again is True
    assert reported(fleet, metrics).again is True
    assert reported(fleet, metrics).again is False
    assert fleet.written == [("default/low", 1), ("default/high", 1)]


def test_starting_is_not_a_move() -> None:
    report = reported(FakeFleet(observation(observed_pool("low", running=0))), FakeMetrics())
    assert report.step is not None
    assert report.last_move is None


def test_a_step_that_is_no_longer_right_is_not_taken() -> None:
    seen = observation(observed_pool("low", running=7), observed_pool("high", running=1))
    changed = observation(observed_pool("low", running=2), observed_pool("high", running=1))
    fleet = FakeFleet(seen, meanwhile=changed)
    report = reported(fleet, FakeMetrics({"low": QUIET, "high": BUSY}))
    assert fleet.written == []
    assert report.step is None


def test_the_cooldown_counts_from_the_move_in_status() -> None:
    seen = observation(observed_pool("low", running=7), observed_pool("high", running=1))
    move = Move(time="2023-11-14T22:13:00Z", pool="low", from_replicas=8, to_replicas=7, reason="-")
    status = RoutingPolicyStatus(last_move=move)
    fleet = FakeFleet(replace(seen, policy=seen.policy.model_copy(update={"status": status})))
    metrics = FakeMetrics({"low": QUIET, "high": BUSY})

    tick(fleet, metrics, now=NOW)
    assert fleet.written == []
    tick(fleet, metrics, now=NOW + 41)
    assert fleet.written == [("default/low", 6)]


def test_a_policy_that_is_gone_is_left_alone() -> None:
    fleet = FakeFleet(None)
    assert tick(fleet, FakeMetrics()) is None
    assert fleet.reports == []


def test_mode_off_asks_no_metrics() -> None:
    seen = observation(observed_pool("low", running=3, spec__replicas=3), spec__rebalance={"mode": "Off"})
    metrics = FakeMetrics({"low": QUIET})
    report = reported(FakeFleet(seen), metrics)
    assert metrics.asked == []
    assert report.metrics_problem == ""
    assert report.tiers[0].limited_by == "Off"


@pytest.mark.parametrize(("cold_start_seconds", "window_seconds"), [(0, 300), (299, 300), (301, 360), (600, 600)])
def test_the_window_is_never_shorter_than_a_cold_start(cold_start_seconds: float, window_seconds: int) -> None:
    metrics = FakeMetrics()
    tick(FakeFleet(observation(observed_pool("low"), cold_start_seconds=cold_start_seconds)), metrics)
    assert metrics.asked == [(KEY, ("low",), window_seconds)]


def test_a_pool_that_is_not_there_is_left_out() -> None:
    report = reported(FakeFleet(observation(observed_pool("high"))), FakeMetrics({"high": QUIET}))
    assert [tier.name for tier in report.tiers] == ["high"]


def test_errors_of_the_port_pass_through() -> None:
    class Refusing(FakeFleet):
        async def set_replicas(self, pool: str, replicas: int) -> None:
            raise ConnectionError(pool)

    fleet = Refusing(observation(observed_pool("low", running=0)))
    with pytest.raises(ConnectionError):
        tick(fleet, FakeMetrics())
    assert fleet.reports == []
