"""A real Prometheus beside the cluster, at one address for tests and pods alike."""

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from testcluster.controlplane import free_ports
from testcluster.fetching import fetch
from testcluster.processes import PATIENCE_SECONDS, Processes, wait_until

IN_CLUSTER_URL = "http://prometheus.monitoring.svc:9090"
"""Where pods reach the test cluster's Prometheus, whichever cluster it is."""
NAMESPACE, PORT = "monitoring", 9090
SCRAPE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus; `fetch` gets a path of its HTTP API as decoded JSON."""

    url: str
    fetch: Callable[[str], Any]

    @classmethod
    def at(cls, url: str) -> "Prometheus":
        """The one that answers at a URL which this process reaches."""
        return cls(url, partial(_fetch, url))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector that an instant query gives (HTTP API v1)."""
        answer = self.fetch("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The first sample of an instant query, or None where nothing matches."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def targets(self) -> list[dict[str, Any]]:
        """The targets that are scraped, with their health."""
        result: list[dict[str, Any]] = self.fetch("/api/v1/targets?state=active")["data"]["activeTargets"]
        return result

    def ready(self) -> bool:
        """Whether it answers."""
        return bool(self.fetch("/api/v1/status/buildinfo")["status"] == "success")

    def wait_up(self, job: str, count: int = 1, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `count` targets of a job are up: the first scrape comes seconds after the start."""
        expression = f'sum(up{{job="{job}"}})'
        what = f"{count} targets of job {job!r} up"
        wait_until(what, lambda: (self.value(expression) or 0) >= count, timeout_seconds)


def _fetch(url: str, path: str) -> Any:
    return json.loads(fetch(url + path))


def configuration(
    scrape_configs: Sequence[Mapping[str, Any]], *, rule_files: Sequence[str] = (), kubeconfig: Path | None = None
) -> dict[str, Any]:
    """A prometheus.yml. `kubeconfig` is how it looks for targets where it is not a pod itself."""
    configs = [_discovering(dict(config), kubeconfig) for config in scrape_configs]
    interval = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
    return {"global": interval, "scrape_configs": configs, "rule_files": list(rule_files)}


def _discovering(config: dict[str, Any], kubeconfig: Path | None) -> dict[str, Any]:
    if kubeconfig and (found := config.get("kubernetes_sd_configs")):
        config["kubernetes_sd_configs"] = [dict(sd) | {"kubeconfig_file": str(kubeconfig)} for sd in found]
    return config


def command(program: Path | str, folder: Path, listen: str) -> list[str]:
    """The command line of a Prometheus that keeps an hour in `folder`, with its config there."""
    return [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=1h",
        f"--web.listen-address={listen}",
        "--web.enable-lifecycle",
        "--log.level=warn",
    ]


@contextmanager
def on_loopback(program: Path, state: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus on a loopback port for as long as it is used."""
    folder = state / "prometheus"
    folder.mkdir(parents=True)
    (folder / "prometheus.yml").write_text(json.dumps(config))
    (port,) = free_ports(1)
    processes = Processes(state)
    processes.start("prometheus", command(program, folder, f"127.0.0.1:{port}"))
    try:
        server = Prometheus.at(f"http://127.0.0.1:{port}")
        processes.wait_ready("prometheus", server.ready)
        yield server
    finally:
        processes.stop("prometheus")
