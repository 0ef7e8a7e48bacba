"""Requests in flight on engines, from their own metrics. A pod that does not say is absent: missing is never zero."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

import aiohttp

from trimtab_operator.core.engineload import in_flight
from trimtab_operator.core.names import ENGINE_PORT
from trimtab_operator.core.revisions import ReplicaPod

_TIMEOUT_SECONDS = 2.0
_AT_ONCE = 32
#: A default serve has about 100 KB of metrics.
_LARGEST_BYTES = 4_000_000


class EngineLoads(Protocol):
    """Asks engines what they are doing."""

    async def in_flight(self, pods: Iterable[ReplicaPod]) -> Mapping[str, int]:
        """Requests running and waiting, by pod name; pods that did not say are absent. Never raises."""
        ...


class EngineMetrics:
    """`EngineLoads` by HTTP to each pod's /metrics, within two seconds."""

    def __init__(self, port: int = ENGINE_PORT) -> None:
        self._port = port

    async def in_flight(self, pods: Iterable[ReplicaPod]) -> Mapping[str, int]:
        """See EngineLoads."""
        asked = [pod for pod in pods if pod.address]
        if not asked:
            return {}
        slots = asyncio.Semaphore(_AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            answers = await asyncio.gather(*(self._ask(session, slots, pod) for pod in asked))
        return {pod.name: count for pod, count in zip(asked, answers, strict=True) if count is not None}

    async def _ask(self, session: aiohttp.ClientSession, slots: asyncio.Semaphore, pod: ReplicaPod) -> int | None:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        try:
            async with slots, session.get(f"http://{host}:{self._port}/metrics") as answer:
                if answer.status != 200:
                    return None
                body = await answer.content.read(_LARGEST_BYTES)
                while chunk := await answer.content.read(_LARGEST_BYTES - len(body)):
                    body += chunk
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return in_flight(body.decode(errors="replace"))
