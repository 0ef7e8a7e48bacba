"""Prometheus metrics of the operator, served by a thread of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_PREFIX = "trimtab_operator"


class Telemetry:
    """All metrics, in a registry of their own so that tests can have many."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.reconciles = Counter(
            f"{_PREFIX}_reconciles_total", "Passes over one object, by result", ["kind", "result"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            f"{_PREFIX}_reconcile_seconds", "Time of a pass", ["kind"], registry=registry
        )
        self.applies = Counter(f"{_PREFIX}_applies_total", "Children applied", ["kind"], registry=registry)
        self.wakeups = Counter(f"{_PREFIX}_wakeups_total", "Wake-ups by watch events", registry=registry)
        self.leader = Gauge(f"{_PREFIX}_leader", "1 while this process leads", registry=registry)
        self.last_resync = Gauge(
            f"{_PREFIX}_last_resync_timestamp_seconds",
            "When the watches were last compared with the API server",
            registry=registry,
        )
        self.deaf_watches = Gauge(f"{_PREFIX}_deaf_watches", "Kinds whose watch misses changes", registry=registry)
        self.moves = Counter(
            f"{_PREFIX}_rebalance_steps_total", "Steps of the rebalancer", ["policy", "cause"], registry=registry
        )
        self.ticks = Counter(
            f"{_PREFIX}_rebalance_ticks_total",
            "Ticks of the rebalancer, by result",
            ["policy", "result"],
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def serve(self, port: int, address: str = "0.0.0.0") -> None:  # noqa: S104
        """Serve /metrics from a daemon thread; raises OSError when the port is taken."""
        start_http_server(port, addr=address, registry=self.registry)
