"""GPUs of this machine as numbered slots: what keeps engines within the budget whatever is asked for."""

import asyncio
import itertools


class Slots:
    """The GPUs of one accelerator. Without a budget there is no end of them."""

    def __init__(self, budget: int | None) -> None:
        self._budget = budget
        self._taken: set[int] = set()
        self._freed = asyncio.Condition()
        self.peak = 0

    @property
    def held(self) -> int:
        """GPUs that replicas hold now."""
        return len(self._taken)

    async def take(self, count: int) -> tuple[int, ...]:
        """Wait until that many are free, and take the lowest."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._budget is None or self.held + count <= self._budget)
            free = (slot for slot in itertools.count() if slot not in self._taken)
            slots = tuple(itertools.islice(free, count))
            self._taken.update(slots)
            self.peak = max(self.peak, self.held)
            return slots

    async def give_back(self, slots: tuple[int, ...]) -> None:
        """The process that held them is gone."""
        async with self._freed:
            self._taken.difference_update(slots)
            self._freed.notify_all()
