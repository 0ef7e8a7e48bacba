"""When to look again."""

import pytest

from trimtab_operator.core.pacing import Pace, Result, next_delay

PACE = Pace(resync_seconds=300, blocked_seconds=30)


@pytest.mark.parametrize(
    ("result", "failures", "seconds"),
    [
        (Result.DONE, 0, 300),
        (Result.INVALID, 0, 300),
        (Result.GONE, 0, 300),
        (Result.BLOCKED, 0, 30),
        (Result.TRANSIENT, 1, 0.5),
        (Result.TRANSIENT, 4, 4),
        (Result.TRANSIENT, 100, 60),
        (Result.BUG, 2, 1),
    ],
    ids=str,
)
def test_the_wait_grows_with_failures_and_is_bounded(result: Result, failures: int, seconds: float):
    assert next_delay(result, failures, pace=PACE, jitter=0) == seconds
    assert next_delay(result, failures, pace=PACE, jitter=0.999) < 1.5 * seconds
