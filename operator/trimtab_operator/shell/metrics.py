"""Demand from metrics: the port, and Prometheus behind it.

A tier's demand is known only if its series is fresh now and existed at the start of the window; then the mean rate over
the window is true, and zero means that nobody asked. Everything else (no series, a router younger than the window, a
scrape that stopped, NaN, an error) is None. `rate()` takes care of counters that start again.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

from trimtab_operator.core.fleet import Demand

REQUESTS = "trimtab_router_admitted_total"
PROMPT_TOKENS = "trimtab_router_admitted_prompt_tokens_total"
OUTPUT_TOKENS = "trimtab_router_admitted_output_tokens_total"


class MetricsUnavailable(Exception):  # noqa: N818 - it is a state, not a fault of the program
    """Nothing could be read at all; the message says from where and why."""


class MetricsSource(Protocol):
    """Where demand comes from."""

    async def demand(self, policy: str, tiers: Sequence[str], *, window_seconds: int) -> Mapping[str, Demand | None]:
        """Mean demand of every tier over the window; None = missing, never zero. Raises MetricsUnavailable."""
        ...


class QueryClient(Protocol):
    """What is used of `prometheus_api_client.PrometheusConnect`; its methods block."""

    def custom_query(self, query: str) -> Any:
        """The result of an instant query: a list of rows for a vector."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def connect(url: str, timeout_seconds: float) -> QueryClient:
    """The client for that address; nothing is sent yet."""
    # Imported here: only a deployment with Prometheus installs it.
    from prometheus_api_client import PrometheusConnect
    from urllib3.util.retry import Retry

    # The next tick is the retry.
    client: QueryClient = PrometheusConnect(url=url, retry=Retry(total=0), timeout=timeout_seconds)
    return client


class PrometheusMetrics:
    """Demand from a Prometheus that scrapes the routers.

    The client library blocks, so a query runs in a thread, one at a time and with a timeout. One query reads
    everything, so that the readings belong together.
    """

    def __init__(
        self,
        url: str,
        *,
        client: QueryClient | None = None,
        timeout_seconds: float = 5,
        stale_after_seconds: float = 60,
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._stale_after_seconds = stale_after_seconds
        self._client = client or connect(self._url, timeout_seconds)
        self._one_at_a_time = asyncio.Lock()

    async def demand(self, policy: str, tiers: Sequence[str], *, window_seconds: int) -> Mapping[str, Demand | None]:
        """See MetricsSource."""
        rows = await self._query(demand_query(policy, window_seconds))
        found = _by_tier(rows)
        return {tier: _demand(found.get(tier, {}), self._stale_after_seconds) for tier in tiers}

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    async def _query(self, query: str) -> list[Any]:
        from prometheus_api_client.exceptions import PrometheusApiClientException
        from requests import RequestException, Timeout

        try:
            # The library's timeout bounds each wait for bytes; the outer one bounds an answer that trickles in.
            async with self._one_at_a_time, asyncio.timeout(2 * self._timeout_seconds):
                rows = await asyncio.to_thread(self._client.custom_query, query)
        except (TimeoutError, Timeout):
            raise self._unavailable("no answer in time") from None
        except PrometheusApiClientException as error:
            raise self._unavailable(str(error)[:160]) from error
        except RequestException as error:
            # Its text holds addresses of objects: it would change the status with every tick.
            raise self._unavailable(f"cannot be reached ({type(error).__name__})") from error
        except (ValueError, KeyError, TypeError):
            raise self._unavailable("the answer is not one of Prometheus's API") from None
        if not isinstance(rows, list):
            raise self._unavailable("the answer is not a vector")
        return rows

    def _unavailable(self, why: str) -> MetricsUnavailable:
        return MetricsUnavailable(f"Prometheus at {self._url}: {why}")


def demand_query(policy: str, window_seconds: int) -> str:
    """One PromQL query for all readings of all tiers, told apart by the label `reading`."""
    selector = f'{{policy="{policy}"}}'
    rates = {"requests": REQUESTS, "prompt": PROMPT_TOKENS, "output": OUTPUT_TOKENS}
    readings = {name: f"sum by (tier) (rate({metric}{selector}[{window_seconds}s]))" for name, metric in rates.items()}
    readings["age"] = f"time() - max by (tier) (timestamp({REQUESTS}{selector}))"
    readings["before"] = f"max by (tier) ({REQUESTS}{selector} offset {window_seconds}s)"
    return " or ".join(f'label_replace({expr}, "reading", "{name}", "", "")' for name, expr in readings.items())


def _by_tier(rows: Iterable[Any]) -> dict[str, dict[str, float]]:
    """Readings by tier; rows of another form are left out."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        try:
            labels, (_, value) = row["metric"], row["value"]
            found.setdefault(labels["tier"], {})[labels["reading"]] = float(value)
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _demand(readings: Mapping[str, float], stale_after_seconds: float) -> Demand | None:
    """The tier's demand, if all of it is there, fresh, finite and not negative."""
    needed = ("requests", "prompt", "output", "age", "before")
    if any(not isfinite(readings.get(name, float("nan"))) for name in needed):
        return None
    if readings["age"] > stale_after_seconds:
        return None
    demand = Demand(readings["requests"], readings["prompt"], readings["output"])
    return demand if demand.is_sane else None
