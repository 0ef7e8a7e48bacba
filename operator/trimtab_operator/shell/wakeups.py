"""Wake-ups by key: watch handlers poke, the loop of a key wakes; pokes in between are merged."""

import asyncio
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import Counter


class Wakeups:
    """Events by key. A poke that comes while a loop works wakes it again afterwards."""

    def __init__(self, counter: Counter) -> None:
        # A key may have two loops for a moment: of an object that ends, and of its successor by the same name.
        self._events: dict[Hashable, list[asyncio.Event]] = {}
        self._groups: dict[Hashable, set[Hashable]] = {}
        self._counter = counter

    def poke(self, key: Hashable) -> None:
        """Wake the loops of that key, now or when they wait next; a key without a loop is nobody's business."""
        for event in self._events.get(key, ()):
            event.set()
            self._counter.inc()

    def poke_all(self) -> None:
        """Wake every loop."""
        for key in list(self._events):
            self.poke(key)

    def poke_group(self, kind: str, namespace: str) -> None:
        """Wake the loops of all keys that begin with these two."""
        for key in list(self._groups.get((kind, namespace), ())):
            self.poke(key)

    @contextmanager
    def listening(self, key: tuple[str, str, str]) -> Iterator[asyncio.Event]:
        """The event of a loop, from before its first look until its end."""
        event = asyncio.Event()
        self._events.setdefault(key, []).append(event)
        self._groups.setdefault(key[:2], set()).add(key)
        try:
            yield event
        finally:
            self._events[key].remove(event)
            if not self._events[key]:
                del self._events[key]
                self._groups[key[:2]].discard(key)


async def first_of(waits: Iterable["asyncio.Future[object]"], *, seconds: float) -> None:
    """Return when one of the futures is done, or after that time; the others are cancelled and awaited."""
    futures = list(waits)
    try:
        await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)
