"""An event loop whose clock jumps: what waits for an hour waits no time. For code that only waits on the loop."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timeout; tells how long it would have waited."""

    skipped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and timeout:
            self.skipped_seconds += timeout
        return events


class _FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds that were skipped: nothing else takes time."""
        return self._jumping.skipped_seconds


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` without waiting; everything must be over within a day of the loop's time."""

    async def bounded() -> T:
        async with asyncio.timeout(86_400):
            return await main

    with asyncio.Runner(loop_factory=_FastLoop) as runner:
        return runner.run(bounded())
