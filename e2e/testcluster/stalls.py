"""`python -m testcluster.stalls`: notes, until it is ended, when this machine stood still or was given to others.

A test on real parts that fails while the machine stands still says little of the parts; whoever reads the log of a run
should know.
"""

import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 1.0
LATE_SECONDS = 3.0
STOLEN_SHARE = 0.3
_TICKS_STOLEN = 7


@dataclass
class Stalls:
    """What was seen so far. `late`: (clock, seconds too long) of each late sample; the rest in seconds."""

    late: list[tuple[str, float]] = field(default_factory=list)
    stolen_seconds: float = 0.0
    seconds: float = 0.0

    def saw(self, clock: str, seconds: float, stolen_share: float) -> None:
        """Note a sample that took `seconds` and in which the host kept that share of the processors to itself."""
        self.seconds += seconds
        if stolen_share > STOLEN_SHARE:
            self.stolen_seconds += seconds
        if (late := seconds - SAMPLE_SECONDS) > LATE_SECONDS:
            self.late.append((clock, late))

    def __str__(self) -> str:
        """One line for the end of a log."""
        worst = sorted(self.late, key=lambda seen: -seen[1])[:5]
        told = ", ".join(f"{seconds:.0f} s until {clock}" for clock, seconds in worst) or "never"
        return (
            f"the machine stood still for over {LATE_SECONDS:.0f} s: {told}; "
            f"its host kept a third of it for {self.stolen_seconds:.0f} of {self.seconds:.0f} s"
        )


def stolen_share(before: list[int], after: list[int]) -> float:
    """The share of processor time that the host gave to others between two lines `cpu` of /proc/stat (proc(5))."""
    passed = [new - old for old, new in zip(before, after, strict=True)]
    return passed[_TICKS_STOLEN] / max(1, sum(passed[: _TICKS_STOLEN + 1]))


def ticks() -> list[int]:
    """Processor time by kind since boot."""
    with Path("/proc/stat").open() as lines:
        return [int(count) for count in next(lines).split()[1:]]


def main() -> None:
    """Sample until SIGTERM, then print."""
    seen = Stalls()

    def end(*_: object) -> None:
        print(seen)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    before, since = ticks(), time.monotonic()
    while True:
        time.sleep(SAMPLE_SECONDS)
        after, now = ticks(), time.monotonic()
        seen.saw(time.strftime("%H:%M:%S"), now - since, stolen_share(before, after))
        before, since = after, now


if __name__ == "__main__":
    main()
