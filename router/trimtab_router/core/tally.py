"""Counts of one worker, cheap to raise, and their sum over workers. Series names are in `shell/exposition.py`."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

DECISION_BOUNDS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
LATENCY_BOUNDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0),
    *(80.0, 160.0, 640.0, 2560.0),
)


class Histogram:
    """Counts by bucket, and their sum in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        return {"counts": list(self.counts), "total": self.total}


class TierTally:
    """Counts of one tier."""

    __slots__ = ("admitted", "inflight", "output_expected", "output_tokens", "prompt_tokens", "seconds", "ttft")

    def __init__(self) -> None:
        self.admitted = 0
        self.prompt_tokens = 0
        self.output_expected = 0
        self.output_tokens = 0
        self.inflight = 0
        self.ttft = Histogram(LATENCY_BOUNDS)
        self.seconds = Histogram(LATENCY_BOUNDS)

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "admitted": self.admitted,
            "prompt_tokens": self.prompt_tokens,
            "output_expected": self.output_expected,
            "output_tokens": self.output_tokens,
            "inflight": self.inflight,
            "ttft": self.ttft.dump(),
            "seconds": self.seconds.dump(),
        }


class Tally:
    """Counts of one worker for one policy."""

    __slots__ = ("decisions", "log_dropped", "log_written", "prefills", "requests", "tiers")

    def __init__(self) -> None:
        self.tiers: dict[str, TierTally] = {}
        self.requests: dict[tuple[str, str, str, str], int] = {}
        """By tier, class, reason and outcome."""
        self.prefills: dict[tuple[str, str], int] = {}
        """Prompts by prefill pool and what became of them: Read, or why not."""
        self.decisions = Histogram(DECISION_BOUNDS)
        self.log_written = 0
        """Records of the decision log that were written, and those that were dropped."""
        self.log_dropped = 0

    def know(self, tiers: Iterable[str]) -> None:
        """Starts the series of new tiers at zero, so that no traffic is a zero and not a gap."""
        for tier in tiers:
            self.tiers.setdefault(tier, TierTally())

    def ended(self, tier: str, class_name: str, reason: str, outcome: str) -> None:
        """One request less."""
        key = (tier, class_name, reason, outcome)
        self.requests[key] = self.requests.get(key, 0) + 1

    def divided(self, pool: str, outcome: str) -> None:
        """A prompt was read by that pool, or was not."""
        self.prefills[pool, outcome] = self.prefills.get((pool, outcome), 0) + 1

    def dump(self) -> dict[str, Any]:
        """As plain values that JSON can carry."""
        return {
            "tiers": {name: tier.dump() for name, tier in self.tiers.items()},
            "requests": [[*key, count] for key, count in self.requests.items()],
            "prefills": [[*key, count] for key, count in self.prefills.items()],
            "decisions": self.decisions.dump(),
            "log": {"written": self.log_written, "dropped": self.log_dropped},
        }


def add(one: Any, other: Any) -> Any:
    """Sum of two dumps: numbers add, objects by key, lists of rows by their labels, other lists by place."""
    if isinstance(one, dict):
        return {
            k: add(one[k], other[k]) if k in one and k in other else one.get(k, other.get(k)) for k in {**one, **other}
        }
    if isinstance(one, list):
        if any(isinstance(row, list) for row in (*one, *other)):
            rows = {tuple(row[:-1]): row[-1] for row in one}
            for *key, count in other:
                rows[tuple(key)] = rows.get(tuple(key), 0) + count
            return [[*key, count] for key, count in rows.items()]
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other


def retired(dump: dict[str, Any]) -> dict[str, Any]:
    """A dead worker's counts: they stay, what was in flight does not."""
    tiers = {name: {**tier, "inflight": 0} for name, tier in dump["tiers"].items()}
    return {**dump, "tiers": tiers}
