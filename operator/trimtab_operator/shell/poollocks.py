"""Locks by pool: who reads replicas and writes them holds the locks of all pools whose GPUs one budget counts.

A pool that no policy claims has only itself; a policy has all that it claims. So pools without a common budget do not
wait for each other, and a pool that a policy just claimed is not written by both.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from trimtab_operator.shell.world import Key


class PoolLocks:
    """Taken in the order of the names, so that nobody waits in a circle; kept for as long as somebody uses them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def holding(self, namespace: str, pools: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of these pools of a namespace."""
        async with AsyncExitStack() as stack:
            for pool in sorted(set(pools)):
                lock = self._locks.setdefault((namespace, pool), asyncio.Lock())
                await stack.enter_async_context(lock)
            yield
