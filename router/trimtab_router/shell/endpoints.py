"""The replicas of every pool: listed addresses, or a DNS name that is resolved again and again."""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Iterable
from typing import Protocol

from trimtab_crds.wire import PlanningConfig, PoolConfig
from trimtab_router.core.load import saturated
from trimtab_router.core.pick import pick
from trimtab_router.shell.upstream import Endpoint

RESOLVE_SECONDS = 1.0
RESOLVE_TIMEOUT_SECONDS = 5.0
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_log = logging.getLogger(__name__)
Address = tuple[str, int]
_NONE: frozenset[str] = frozenset()


class Resolver(Protocol):
    """Finds the addresses of a DNS name."""

    def __call__(self, host: str, port: int) -> Awaitable[list[Address] | None]:
        """Addresses, none when the name has none; None when nobody could say."""


async def resolve(host: str, port: int) -> list[Address] | None:
    """getaddrinfo. A name without addresses is a Service without ready replicas; a silent server changes nothing."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return [] if error.errno in _NO_SUCH_NAME else None
    except (OSError, TimeoutError, UnicodeError):
        return None
    return sorted({(str(entry[4][0]), int(entry[4][1])) for entry in found})


def listed(addresses: Iterable[str]) -> list[Address]:
    """`host:port` texts as pairs."""
    pairs = [a.rsplit(":", 1) for a in addresses]
    return [(host.strip("[]"), int(port)) for host, port in pairs]


class Replicas:
    """The replicas of one pool."""

    __slots__ = ("canaries", "config", "endpoints")

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.endpoints: list[Endpoint] = []
        self.canaries: frozenset[Address] = frozenset()
        """Addresses of the revision that is being tried."""

    def replace(self, addresses: Iterable[Address]) -> None:
        """Sets the addresses; replicas that stay keep their connections and their history."""
        known = {(e.host, e.port): e for e in self.endpoints}
        self.endpoints = [known.pop(a) if a in known else Endpoint(*a) for a in addresses]
        for endpoint in known.values():
            endpoint.leave()

    def pick(self, tried: set[Endpoint], key: int, now: float) -> Endpoint | None:
        """A replica that was not tried; those that failed a moment ago only when there is no other."""
        if len(self.endpoints) == 1:
            only = self.endpoints[0]
            return None if only in tried else only
        untried = [e for e in self.endpoints if e not in tried]
        usable = [e for e in untried if not e.health.rests(now)] or untried
        if not usable:
            return None
        if self.config.canary is not None:
            usable = self._side(usable, self.config.canary.weight_percent)
        loads, seeds = [e.inflight for e in usable], [e.seed for e in usable]
        return usable[pick(loads, seeds, key=key, draw=random.getrandbits(30))]

    def _side(self, usable: list[Endpoint], percent: int) -> list[Endpoint]:
        """The replicas of the side that this request falls to; all where one side has none."""
        tried = [e for e in usable if (e.host, e.port) in self.canaries]
        if not tried or len(tried) == len(usable):
            return usable
        if random.randrange(100) < percent:
            return tried
        return [e for e in usable if (e.host, e.port) not in self.canaries]


class Directory:
    """The replicas of every pool of the configuration."""

    def __init__(self, resolver: Resolver = resolve) -> None:
        self.pools: dict[str, Replicas] = {}
        self._resolver = resolver
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def configure(self, pools: Iterable[PoolConfig]) -> None:
        """Takes the pools of a new configuration; must run inside the event loop."""
        wanted = {p.name: p for p in pools}
        for name in [n for n in self.pools if n not in wanted]:
            self.pools.pop(name).replace(())
            self._stop(name)
        for name, config in wanted.items():
            replicas = self.pools.setdefault(name, Replicas(config))
            moved = (replicas.config.host, replicas.config.port) != (config.host, config.port)
            replicas.config = config
            if config.host is None:
                self._stop(name)
                replicas.replace(listed(config.addresses))
            elif moved or name not in self._tasks:
                self._stop(name)
                self._tasks[name] = asyncio.create_task(self._follow(replicas), name=f"resolve {name}")

    def close(self) -> None:
        """Stops resolving and closes what is idle."""
        for name in list(self._tasks):
            self._stop(name)
        for replicas in self.pools.values():
            replicas.replace(())

    def full(self, planning: PlanningConfig, workers: int) -> frozenset[str]:
        """Names of the pools that hold more than `planning` allows, as far as this worker can see."""
        if not planning.spill_percent:
            return _NONE
        return frozenset(
            name
            for name, replicas in self.pools.items()
            if replicas.config.batch is not None
            and saturated(
                sum(e.inflight for e in replicas.endpoints),
                replicas=len(replicas.endpoints),
                batch=replicas.config.batch,
                spill_percent=planning.spill_percent,
                routers=planning.routers * workers,
            )
        )

    def close_idle(self, before: float) -> None:
        """Closes connections that were last used before that time."""
        for replicas in self.pools.values():
            for endpoint in replicas.endpoints:
                endpoint.close_idle(before)

    def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def _follow(self, replicas: Replicas) -> None:
        host, port = replicas.config.host or "", replicas.config.port
        while True:
            await self.refresh_canaries(replicas, port)
            await self.refresh(replicas, host, port)
            await asyncio.sleep(RESOLVE_SECONDS)

    async def refresh_canaries(self, replicas: Replicas, port: int) -> None:
        """Resolves once who is being tried; a silent server changes nothing."""
        canary = replicas.config.canary
        found = await self._resolver(canary.host, port) if canary is not None else []
        if found is not None:
            replicas.canaries = frozenset(found)

    async def refresh(self, replicas: Replicas, host: str, port: int) -> None:
        """Resolves once."""
        found = await self._resolver(host, port)
        if found is not None and found != [(e.host, e.port) for e in replicas.endpoints]:
            _log.info("pool %s: replicas %s", replicas.config.name, [f"{h}:{p}" for h, p in found])
            replicas.replace(found)
