"""Demand without a Prometheus: the router's own metrics, kept in memory for one window (MetricsSource).

It means what the Prometheus source means: a tier is known only if its counters are fresh and were there when the window
began, rates survive counters that start again, and everything else is missing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import httpx
from prometheus_client.parser import text_string_to_metric_families

from trimtab_operator.core.fleet import Demand
from trimtab_operator.shell.metrics import OUTPUT_TOKENS, PROMPT_TOKENS, REQUESTS

_NAMES = (REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS)
#: Two missed scrapes and a bit.
STALE_SCRAPES = 2.5
#: How far before the window a counter may have been seen last, as in Prometheus.
LOOKBACK_SECONDS = 300.0
KEPT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of every tier of every policy at one time, in the order of _NAMES."""

    at: float
    counters: Mapping[tuple[str, str], tuple[float, ...]]


class ScrapedMetrics:
    """Scrapes one router and answers from memory."""

    def __init__(self, url: str, *, clock: Callable[[], float], interval_seconds: float = 1.0) -> None:
        self._url = url
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._samples: deque[Sample] = deque()

    async def run(self) -> None:
        """Scrape until cancelled."""
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while True:
                try:
                    answer = await client.get(self._url)
                    self.add(counters_in(answer.text) if answer.status_code == 200 else {})
                except (httpx.HTTPError, ValueError):
                    self.add({})
                await asyncio.sleep(self._interval_seconds)

    def add(self, counters: Mapping[tuple[str, str], tuple[float, ...]]) -> None:
        """Remember a scrape; a failed one has no counters."""
        now = self._clock()
        self._samples.append(Sample(now, counters))
        while self._samples[0].at < now - KEPT_SECONDS:
            self._samples.popleft()

    async def demand(self, policy: str, tiers: Sequence[str], *, window_seconds: int) -> Mapping[str, Demand | None]:
        """See MetricsSource."""
        now = self._clock()
        return {tier: self._demand((policy, tier), now - window_seconds, now) for tier in tiers}

    def _demand(self, series: tuple[str, str], since: float, now: float) -> Demand | None:
        seen = [(s.at, s.counters[series]) for s in self._samples if series in s.counters]
        before = [point for point in seen if point[0] <= since]
        inside = [point for point in seen if point[0] > since]
        too_old = STALE_SCRAPES * self._interval_seconds
        if not before or not inside or inside[-1][0] < now - too_old or before[-1][0] < since - LOOKBACK_SECONDS:
            return None
        points = [before[-1], *inside]
        seconds = points[-1][0] - points[0][0]
        requests, prompt, output = (increase(values[i] for _, values in points) / seconds for i in range(len(_NAMES)))
        return Demand(requests, prompt, output)


def increase(values: Iterable[float]) -> float:
    """Rise of a counter over its samples; a fall is a restart from zero."""
    return sum(after if after < before else after - before for before, after in pairwise(values))


def counters_in(text: str) -> dict[tuple[str, str], tuple[float, ...]]:
    """The demand counters in a page of metrics by (policy, tier); a tier without all three is left out."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _NAMES:
                series = (sample.labels.get("policy", ""), sample.labels.get("tier", ""))
                found.setdefault(series, {})[sample.name] = float(sample.value)
    return {
        series: tuple(values[name] for name in _NAMES) for series, values in found.items() if len(values) == len(_NAMES)
    }
