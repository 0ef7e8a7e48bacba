"""Both metrics sources mean the same: a real Prometheus, and the one that lives in the local mode."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from support.exporter import POLICY, Exporter, exporter
from testcluster.processes import PATIENCE_SECONDS
from trimtab_cli.local.ports import free_port
from trimtab_cli.local.scraped import ScrapedMetrics
from trimtab_operator.core.fleet import Demand
from trimtab_operator.shell.metrics import MetricsSource, MetricsUnavailable, PrometheusMetrics

SCRAPE_SECONDS = 0.25
WINDOW_SECONDS = 3
STALE_SECONDS = 2.5 * SCRAPE_SECONDS
Source = Callable[[Exporter], AbstractAsyncContextManager[MetricsSource]]


@pytest.fixture(params=["prometheus", "scraped"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    if request.param == "scraped":
        return scraped
    binary: Path = request.getfixturevalue("prometheus_binary")
    return lambda served: prometheus(binary, tmp_path, served)


@asynccontextmanager
async def scraped(served: Exporter) -> AsyncIterator[MetricsSource]:
    metrics = ScrapedMetrics(f"http://{served.address}/metrics", clock=time.monotonic, interval_seconds=SCRAPE_SECONDS)
    task = asyncio.create_task(metrics.run())
    try:
        yield metrics
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def prometheus(binary: Path, folder: Path, served: Exporter) -> AsyncIterator[MetricsSource]:
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(
        f"global: {{scrape_interval: {int(SCRAPE_SECONDS * 1000)}ms, scrape_timeout: 200ms}}\n"
        f"scrape_configs: [{{job_name: router, static_configs: [{{targets: ['{served.address}']}}]}}]\n"
    )
    with running(
        str(binary),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ):
        metrics = PrometheusMetrics(f"http://127.0.0.1:{port}", stale_after_seconds=STALE_SECONDS)
        yield metrics
        await metrics.close()


class running:  # noqa: N801 - reads as a context
    """A program that is ended with the block."""

    def __init__(self, *argv: str) -> None:
        self._process = subprocess.Popen(argv)

    def __enter__(self) -> None:
        """Running."""

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def served() -> Iterator[Exporter]:
    with exporter() as page:
        page.requests = {"low": 0, "high": 1_000}
        yield page


async def read(metrics: MetricsSource, window_seconds: int = WINDOW_SECONDS) -> dict[str, Demand | None]:
    try:
        return dict(await metrics.demand(POLICY, ("low", "high", "other"), window_seconds=window_seconds))
    except MetricsUnavailable:
        return {"low": None, "high": None, "other": None}


async def wait_for(
    metrics: MetricsSource, wanted: Callable[[dict[str, Demand | None]], bool]
) -> dict[str, Demand | None]:
    """The first reading that is as wanted; the last one when none is in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = await read(metrics)
        if wanted(seen) or time.monotonic() > deadline:
            return seen
        await asyncio.sleep(SCRAPE_SECONDS)


async def traffic(served: Exporter, *, requests_per_second: float) -> None:
    """Requests for the tier high, until cancelled."""
    while True:
        await asyncio.sleep(0.05)
        served.requests["high"] += 0.05 * requests_per_second


def known(seen: dict[str, Demand | None]) -> bool:
    return seen["low"] is not None and seen["high"] is not None


async def story(source: Source, served: Exporter) -> None:
    """One story, since every chapter waits for a window."""
    async with source(served) as metrics:
        busy = asyncio.create_task(traffic(served, requests_per_second=20))
        try:
            assert await read(metrics) == {"low": None, "high": None, "other": None}

            seen = await wait_for(metrics, lambda s: known(s) and s["high"].requests_per_second > 15)
            assert seen["low"] == Demand(0, 0, 0)
            assert seen["other"] is None
            high = seen["high"]
            assert high is not None
            assert high.requests_per_second == pytest.approx(20, rel=0.35)
            assert high.prompt_tokens_per_second == pytest.approx(100 * high.requests_per_second, rel=0.05)
            assert high.output_tokens_per_second == pytest.approx(50 * high.requests_per_second, rel=0.05)

            served.requests["high"] = 0
            await asyncio.sleep(4 * SCRAPE_SECONDS)
            after_restart = (await read(metrics))["high"]
            assert after_restart is not None
            assert 0 < after_restart.requests_per_second < 40

            assert (await read(metrics, window_seconds=600))["high"] is None

            del served.requests["low"]
            seen = await wait_for(metrics, lambda s: s["low"] is None)
            assert seen["low"] is None
            assert seen["high"] is not None

            served.down = True
            assert await wait_for(metrics, lambda s: s["high"] is None) == {"low": None, "high": None, "other": None}
        finally:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)


@pytest.mark.contract
def test_demand_is_a_rate_a_zero_or_missing(source: Source, served: Exporter) -> None:
    asyncio.run(story(source, served))


@pytest.mark.contract
def test_a_source_that_is_not_there_is_unavailable() -> None:
    metrics = PrometheusMetrics(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(MetricsUnavailable, match=r"cannot be reached \(ConnectionError\)"):
        asyncio.run(metrics.demand(POLICY, ("low",), window_seconds=WINDOW_SECONDS))
