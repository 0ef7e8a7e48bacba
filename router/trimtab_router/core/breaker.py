"""When an endpoint that failed is tried again."""

from dataclasses import dataclass
from typing import Final

FIRST_REST_SECONDS: Final = 1.0
LONGEST_REST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """Failures in a row and when the endpoint may be tried again."""

    failures: int = 0
    rests_until: float = 0.0

    def rests(self, now: float) -> bool:
        """It failed a moment ago."""
        return now < self.rests_until


WELL: Final = Health()


def failed(health: Health, now: float) -> Health:
    """One more failure: the rest doubles from 1 s to 30 s. Failures while it rests are the same failure."""
    if health.rests(now):
        return health
    rest = min(FIRST_REST_SECONDS * 2.0**health.failures, LONGEST_REST_SECONDS)
    return Health(min(health.failures + 1, 16), now + rest)


def refused(health: Health, now: float) -> Health:
    """Overloaded or draining: one short rest, and no growing distrust."""
    return health if health.rests(now) else Health(health.failures, now + FIRST_REST_SECONDS)
