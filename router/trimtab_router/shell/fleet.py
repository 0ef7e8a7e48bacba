"""What the supervisor knows of its workers, from their reports.

Silence is counted in the supervisor's own ticks of a second, not by a clock: who was paused as a whole (a virtual
machine that moves, a processor that others have) has heard nothing and missed nothing, and must not end workers for it.
"""

from dataclasses import dataclass, field
from typing import Any

from trimtab_router.core.tally import add, retired
from trimtab_router.shell.exposition import Sum

SILENT_TICKS = 15
"""From then on a worker does not count as one that serves."""
HUNG_TICKS = 30
"""After that it is ended."""
START_TICKS = 60
"""A worker that has never reported may still be loading its model."""


@dataclass(slots=True)
class Seen:
    """A living worker."""

    silent_ticks: int = 0
    report: dict[str, Any] | None = None

    @property
    def fresh(self) -> bool:
        """It has reported lately."""
        return self.report is not None and self.silent_ticks < SILENT_TICKS

    @property
    def hangs(self) -> bool:
        """It has been silent for so long that nothing more will come of it."""
        return self.silent_ticks > (START_TICKS if self.report is None else HUNG_TICKS)


@dataclass(slots=True)
class Fleet:
    """All workers of one router."""

    draining: bool = False
    workers: dict[int, Seen] = field(default_factory=dict)
    """By pid."""
    past: dict[str, Any] | None = None
    """Counts of workers that are gone: counters must not fall."""

    def started(self, pid: int) -> None:
        """A worker was started."""
        self.workers[pid] = Seen()

    def heard(self, pid: int, report: dict[str, Any]) -> None:
        """A worker reported."""
        seen = self.workers.get(pid)
        if seen is not None:
            seen.report, seen.silent_ticks = report, 0

    def tick(self) -> list[int]:
        """A second of the supervisor went by; the workers that hang."""
        for seen in self.workers.values():
            seen.silent_ticks += 1
        return [pid for pid, seen in self.workers.items() if seen.hangs]

    def ended(self, pid: int) -> Seen | None:
        """A worker is gone; its counts stay."""
        seen = self.workers.pop(pid, None)
        if seen is not None and seen.report is not None:
            counts = retired(seen.report["tally"])
            self.past = counts if self.past is None else add(self.past, counts)
        return seen

    def healthy(self) -> bool:
        """A worker reports."""
        return any(w.fresh for w in self.workers.values())

    def why_not_ready(self) -> str:
        """Empty when the router serves, else the reason."""
        if self.draining:
            return "draining"
        fresh = [w.report for w in self.workers.values() if w.report is not None and w.fresh]
        if not fresh:
            return "no worker reports"
        waiting = [r for r in fresh if not r["configured"]]
        return f"no valid configuration: {waiting[0]['problem']}" if waiting else ""

    def notes(self) -> list[str]:
        """What keeps requests of some tenants out while the others are served."""
        fresh = [w.report for w in self.workers.values() if w.report is not None and w.fresh]
        return list(dict.fromkeys(problem for report in fresh for problem in report["keys"]["problems"]))

    def summed(self, into: Sum) -> None:
        """Writes the sum over all workers into a collector."""
        reports = [w.report for w in self.workers.values() if w.report is not None]
        tally = self.past
        for report in reports:
            tally = report["tally"] if tally is None else add(tally, report["tally"])
        into.tally = tally
        into.workers = sum(w.fresh for w in self.workers.values())
        if reports:
            newest = reports[-1]
            into.policy, into.digest, into.pools = newest["policy"], newest["hash"], newest["pools"]
            into.keys = newest["keys"]["counts"]
            into.valid = all(r["valid"] for r in reports)
