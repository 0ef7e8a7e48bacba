"""Counts of workers, their sum, and the series that Prometheus reads."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trimtab_router.core.tally import Histogram, Tally, add, retired
from trimtab_router.shell.exposition import Sum
from trimtab_router.shell.fleet import HUNG_TICKS, SILENT_TICKS, START_TICKS, Fleet


def tally(admitted=1, seconds=0.3):
    found = Tally()
    found.know(["low", "high"])
    low = found.tiers["low"]
    low.admitted, low.prompt_tokens, low.output_expected, low.output_tokens, low.inflight = admitted, 10, 20, 15, 1
    low.ttft.observe(seconds)
    low.seconds.observe(seconds)
    found.decisions.observe(0.0002)
    found.ended("low", "chat", "Gain", "ok")
    return found


def report(**changes):
    return {
        "policy": "ns/p",
        "configured": True,
        "valid": True,
        "problem": "",
        "hash": "abc",
        "draining": False,
        "pools": {"pool-low": 2},
        "keys": {"counts": {}, "problems": []},
        "tally": tally().dump(),
        **changes,
    }


def series(fleet, total=None):
    total, registry = total or Sum(), CollectorRegistry(auto_describe=False)
    registry.register(total)
    fleet.summed(total)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}


LOW = (("policy", "ns/p"), ("tier", "low"))
HIGH = (("policy", "ns/p"), ("tier", "high"))


def fleet_of(*reports):
    fleet = Fleet()
    for pid, shown in enumerate(reports):
        fleet.started(pid)
        fleet.heard(pid, shown)
    return fleet


def test_a_histogram_puts_a_value_on_its_bound_into_the_bucket_below():
    found = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        found.observe(value)
    assert found.dump() == {"counts": [2, 1, 1], "total": 12.0}


def test_the_series_of_all_workers_are_one():
    found = series(fleet_of(report(), report()))
    assert found["trimtab_router_admitted_total", *LOW] == 2
    assert found["trimtab_router_admitted_prompt_tokens_total", *LOW] == 20
    assert found["trimtab_router_admitted_output_tokens_total", *LOW] == 40
    assert found["trimtab_router_output_tokens_total", *LOW] == 30
    assert found["trimtab_router_inflight_requests", *LOW] == 2
    assert found["trimtab_router_ttft_seconds_count", *LOW] == 2
    assert found["trimtab_router_request_seconds_sum", *LOW] == 0.6
    assert found["trimtab_router_decision_seconds_count", ("policy", "ns/p")] == 2
    ended = (("class", "chat"), ("outcome", "ok"), ("policy", "ns/p"), ("reason", "Gain"), ("tier", "low"))
    assert found["trimtab_router_requests_total", *ended] == 2
    assert found["trimtab_router_workers",] == 2
    assert found["trimtab_router_pool_replicas", ("policy", "ns/p"), ("pool", "pool-low")] == 2


def test_a_tier_without_traffic_is_a_zero_and_not_a_gap():
    found = series(fleet_of(report()))
    for name in ("admitted_total", "admitted_prompt_tokens_total", "admitted_output_tokens_total", "inflight_requests"):
        assert found[f"trimtab_router_{name}", *HIGH] == 0
    assert found["trimtab_router_ttft_seconds_count", *HIGH] == 0


def test_counters_do_not_fall_when_a_worker_dies():
    fleet, total = fleet_of(report(), report()), Sum()
    fleet.ended(0)
    found = series(fleet, total)
    assert found["trimtab_router_admitted_total", *LOW] == 2
    assert found["trimtab_router_inflight_requests", *LOW] == 1
    fleet.ended(1)
    assert series(fleet, total)["trimtab_router_admitted_total", *LOW] == 2


def test_workers_that_know_different_tiers_add_up():
    other = Tally()
    other.know(["new"])
    total = add(tally().dump(), other.dump())
    assert total["tiers"].keys() == {"low", "high", "new"}
    assert total["requests"] == [["low", "chat", "Gain", "ok", 1]]


def test_equal_rows_add_and_others_stay():
    one, two = tally(), tally()
    two.ended("low", "chat", "Gain", "timeout")
    assert add(one.dump(), two.dump())["requests"] == [
        ["low", "chat", "Gain", "ok", 2],
        ["low", "chat", "Gain", "timeout", 1],
    ]


def test_a_dead_worker_has_nothing_in_flight():
    gone = retired(tally().dump())
    assert (gone["tiers"]["low"]["inflight"], gone["tiers"]["low"]["admitted"]) == (0, 1)


def ticks(fleet, count):
    return [pid for _ in range(count) for pid in fleet.tick()]


def test_readiness_says_why_not():
    fleet = Fleet()
    assert fleet.why_not_ready() == "no worker reports"
    fleet.started(7)
    fleet.heard(7, report(configured=False, problem="no such file"))
    assert fleet.why_not_ready() == "no valid configuration: no such file"
    fleet.heard(7, report())
    assert fleet.why_not_ready() == ""
    ticks(fleet, SILENT_TICKS)
    assert fleet.why_not_ready() == "no worker reports"
    fleet.heard(7, report())
    fleet.draining = True
    assert fleet.why_not_ready() == "draining"


def test_health_needs_one_worker_that_reports():
    fleet = fleet_of(report())
    ticks(fleet, SILENT_TICKS - 1)
    assert fleet.healthy()
    ticks(fleet, 1)
    assert not fleet.healthy()


def test_who_is_silent_hangs_and_who_loads_its_model_has_longer():
    fleet = fleet_of(report())
    fleet.started(8)
    assert ticks(fleet, HUNG_TICKS) == []
    assert fleet.tick() == [0]
    fleet.heard(0, report())
    assert ticks(fleet, START_TICKS - HUNG_TICKS - 1) == []
    assert 8 in fleet.tick()


def test_reports_of_unknown_workers_are_ignored():
    fleet = fleet_of(report())
    fleet.heard(99, report())
    assert fleet.ended(99) is None
    assert series(fleet)["trimtab_router_workers",] == 1


def test_an_invalid_file_shows_in_the_metrics():
    found = series(fleet_of(report(), report(valid=False)))
    assert found["trimtab_router_config_valid", ("policy", "ns/p")] == 0
    assert found["trimtab_router_config_info", ("hash", "abc"), ("policy", "ns/p")] == 1
