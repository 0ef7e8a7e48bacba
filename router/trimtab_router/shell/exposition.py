"""The workers' counts as Prometheus series; every series has the label `policy` (`namespace/name`)."""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from trimtab_router.core.tally import DECISION_BOUNDS, LATENCY_BOUNDS

_COUNTERS = (
    ("admitted", "admitted", "Requests admitted to a tier: its demand."),
    ("prompt_tokens", "admitted_prompt_tokens", "Estimated prompt tokens at admission."),
    ("output_expected", "admitted_output_tokens", "Output tokens expected at admission."),
    ("output_tokens", "output_tokens", "Output tokens that engines really produced."),
)


class Sum:
    """A Prometheus collector over the sum of all workers."""

    def __init__(self) -> None:
        self.policy = ""
        self.tally: dict[str, Any] | None = None
        self.digest = ""
        self.valid = False
        self.workers = 0
        self.pools: dict[str, int] = {}
        self.keys: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        """The series of one scrape."""
        yield GaugeMetricFamily("trimtab_router_workers", "Worker processes that report.", value=self.workers)
        valid = GaugeMetricFamily("trimtab_router_config_valid", "1 when the file is what runs.", labels=["policy"])
        valid.add_metric([self.policy], float(self.valid))
        yield valid
        info = GaugeMetricFamily(
            "trimtab_router_config_info", "The configuration that runs.", labels=["policy", "hash"]
        )
        info.add_metric([self.policy, self.digest], 1.0)
        yield info
        yield self._pool_replicas()
        if self.keys:
            yield self._tenant_keys()
        if self.tally is not None:
            yield from _series(self.policy, self.tally)

    def _pool_replicas(self) -> Metric:
        family = GaugeMetricFamily(
            "trimtab_router_pool_replicas", "Replicas that are known.", labels=["policy", "pool"]
        )
        for name, count in self.pools.items():
            family.add_metric([self.policy, name], count)
        return family

    def _tenant_keys(self) -> Metric:
        family = GaugeMetricFamily(
            "trimtab_router_tenant_keys", "Valid API keys; at 0 its requests are refused.", labels=["policy", "tenant"]
        )
        for tenant, count in self.keys.items():
            family.add_metric([self.policy, tenant], count)
        return family


def _series(policy: str, tally: dict[str, Any]) -> Iterator[Metric]:
    tiers = tally["tiers"]
    for field, name, text in _COUNTERS:
        counter = CounterMetricFamily(f"trimtab_router_{name}", text, labels=["policy", "tier"])
        for tier, counts in tiers.items():
            counter.add_metric([policy, tier], counts[field])
        yield counter
    requests = CounterMetricFamily(
        "trimtab_router_requests", "Ended requests.", labels=["policy", "tier", "class", "reason", "outcome"]
    )
    for *labels, count in tally["requests"]:
        requests.add_metric([policy, *labels], count)
    yield requests
    if tally["prefills"]:
        prefills = CounterMetricFamily(
            "trimtab_router_prefills", "Prompts for a prefill pool.", labels=["policy", "pool", "outcome"]
        )
        for *labels, count in tally["prefills"]:
            prefills.add_metric([policy, *labels], count)
        yield prefills
    log = CounterMetricFamily(
        "trimtab_router_decision_log_records", "Records of the decision log.", labels=["policy", "fate"]
    )
    for fate, count in tally["log"].items():
        log.add_metric([policy, fate], count)
    yield log
    inflight = GaugeMetricFamily("trimtab_router_inflight_requests", "Open requests.", labels=["policy", "tier"])
    for tier, counts in tiers.items():
        inflight.add_metric([policy, tier], counts["inflight"])
    yield inflight
    rows = [([policy, tier], counts) for tier, counts in tiers.items()]
    for field, name, text in (
        ("ttft", "ttft", "Time to the first byte."),
        ("seconds", "request", "Time to the last byte."),
    ):
        yield _histogram(name, text, ["policy", "tier"], [(r, c[field]) for r, c in rows], LATENCY_BOUNDS)
    decisions = [([policy], tally["decisions"])]
    yield _histogram("decision", "Time to a plan.", ["policy"], decisions, DECISION_BOUNDS)


def _histogram(
    name: str, text: str, labels: list[str], rows: Iterable[tuple[list[str], dict[str, Any]]], bounds: tuple[float, ...]
) -> Metric:
    family = HistogramMetricFamily(f"trimtab_router_{name}_seconds", text, labels=labels)
    for values, histogram in rows:
        total, buckets = 0, []
        for bound, count in zip([*map(str, bounds), "+Inf"], histogram["counts"], strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(values, buckets, histogram["total"])
    return family
