"""When to look again: soon after a passing failure, later after a repeated one, rarely when all is well."""

from dataclasses import dataclass
from enum import Enum

#: First and longest wait after failures that pass by themselves (409, 429, 5xx, timeouts).
_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 60.0


class Result(Enum):
    """How a pass over one object ended."""

    DONE = "done"
    MOVING = "moving"
    """Replicas drain or roll out, so that more is to be done soon whether anything is heard or not."""
    INVALID = "invalid"
    """The spec cannot be acted on; only another spec helps."""
    BLOCKED = "blocked"
    """Something outside is in the way and may go away."""
    TRANSIENT = "transient"
    """The API server did not answer well this time."""
    GONE = "gone"
    """The object no longer exists."""
    BUG = "bug"
    """An error nobody expected."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Fixed waits, in seconds."""

    resync_seconds: float = 300.0
    blocked_seconds: float = 30.0
    moving_seconds: float = 2.0
    settle_seconds: float = 1.0
    """Between the starts of two passes over one object: what happens meanwhile is seen, and told, at once."""


def next_delay(result: Result, failures: int, *, pace: Pace, jitter: float) -> float:
    """Seconds until the next pass unless something happens before.

    `failures` counts TRANSIENT and BUG in a row, this one included; `jitter` is in [0, 1) and spreads the waits of
    many objects over up to a half more.
    """
    if result in (Result.TRANSIENT, Result.BUG):
        wait = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(failures - 1, 30))
    elif result is Result.BLOCKED:
        wait = pace.blocked_seconds
    elif result is Result.MOVING:
        wait = pace.moving_seconds
    else:
        wait = pace.resync_seconds
    return wait * (1 + jitter / 2)
