"""Who was never looked at comes first: a thousand new objects are all begun before one of them is looked at again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Newcomers of whom none gets through must not hold up all others.
PATIENCE_SECONDS = 10.0


class Newcomers:
    """The loops that are in their first pass."""

    def __init__(self) -> None:
        self._waiting: set[object] = set()
        self._none = asyncio.Event()
        self._moved_at = 0.0

    @property
    def are_waiting(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    @contextmanager
    def first_pass(self) -> Iterator[None]:
        """A loop's first pass."""
        me, now = object(), asyncio.get_running_loop().time
        if not self._waiting:
            self._moved_at = now()
        self._waiting.add(me)
        self._none.clear()
        try:
            yield
        finally:
            self._waiting.discard(me)
            self._moved_at = now()
            if not self._waiting:
                self._none.set()

    async def let_pass(self) -> None:
        """Return when there are none, or when for `PATIENCE_SECONDS` none of them has come to the end of its pass."""
        while self._waiting:
            until = self._moved_at + PATIENCE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._none.wait()
            if until == self._moved_at + PATIENCE_SECONDS:
                return
