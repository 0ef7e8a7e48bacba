"""What the supervisor knows of its workers, from their reports."""

from dataclasses import dataclass, field
from typing import Any

from trimtab_router.core.tally import add, retired
from trimtab_router.shell.exposition import Sum

SILENT_SECONDS = 15.0


@dataclass(slots=True)
class Seen:
    """A living worker."""

    pid: int
    started_at: float
    heard_at: float
    report: dict[str, Any] | None = None

    def fresh(self, now: float) -> bool:
        """It has reported lately."""
        return self.report is not None and now - self.heard_at < SILENT_SECONDS


@dataclass(slots=True)
class Fleet:
    """All workers of one router."""

    wanted: int
    draining: bool = False
    workers: dict[int, Seen] = field(default_factory=dict)
    """By pid."""
    past: dict[str, Any] | None = None
    """Counts of workers that are gone: counters must not fall."""

    def started(self, pid: int, now: float) -> None:
        """A worker was started."""
        self.workers[pid] = Seen(pid, now, now)

    def heard(self, pid: int, report: dict[str, Any], now: float) -> None:
        """A worker reported."""
        seen = self.workers.get(pid)
        if seen is not None:
            seen.report, seen.heard_at = report, now

    def ended(self, pid: int) -> Seen | None:
        """A worker is gone; its counts stay."""
        seen = self.workers.pop(pid, None)
        if seen is not None and seen.report is not None:
            counts = retired(seen.report["tally"])
            self.past = counts if self.past is None else add(self.past, counts)
        return seen

    def healthy(self, now: float) -> bool:
        """A worker reports."""
        return any(w.fresh(now) for w in self.workers.values())

    def why_not_ready(self, now: float) -> str:
        """Empty when the router serves, else the reason."""
        if self.draining:
            return "draining"
        fresh = [w.report for w in self.workers.values() if w.report is not None and w.fresh(now)]
        if not fresh:
            return "no worker reports"
        waiting = [r for r in fresh if not r["configured"]]
        return f"no valid configuration: {waiting[0]['problem']}" if waiting else ""

    def summed(self, now: float, into: Sum) -> None:
        """Writes the sum over all workers into a collector."""
        reports = [w.report for w in self.workers.values() if w.report is not None]
        tally = self.past
        for report in reports:
            tally = report["tally"] if tally is None else add(tally, report["tally"])
        into.tally = tally
        into.workers = sum(w.fresh(now) for w in self.workers.values())
        if reports:
            newest = reports[-1]
            into.policy, into.digest, into.pools = newest["policy"], newest["hash"], newest["pools"]
            into.valid = all(r["valid"] for r in reports)
