"""Who was never looked at comes first: a thousand new objects are all begun before one of them is looked at again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

#: One object whose first pass is held up must not hold up all others.
LONGEST_SECONDS = 10.0


class Newcomers:
    """The loops that are in their first pass."""

    def __init__(self) -> None:
        self._waiting: set[object] = set()
        self._none = asyncio.Event()
        self._none.set()

    @property
    def are_waiting(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    @contextmanager
    def first_pass(self) -> Iterator[None]:
        """A loop's first pass."""
        me = object()
        self._waiting.add(me)
        self._none.clear()
        try:
            yield
        finally:
            self._waiting.discard(me)
            if not self._waiting:
                self._none.set()

    async def all_passed(self) -> None:
        """Return when there are none."""
        await self._none.wait()
