"""Engines as processes: what Deployments, kubelet and GPUs are in a cluster, behind the rebalancer's FleetPort.

A replica holds its GPUs from before its process starts until the process is gone. A shrunk pool's replica first leaves
the router's list, then ends its open answers, then exits. GPUs are numbered slots; a replica that finds none waits as
a starting one, so that no more than the budget is ever held.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import httpx

from trimtab_cli.local.commands import HOST, engine_command
from trimtab_cli.local.options import Options
from trimtab_cli.local.ports import free_port
from trimtab_cli.local.slots import Slots
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.enginepod import SIDE_CHANNEL_HOST, SIDE_CHANNEL_PORT
from trimtab_operator.core.fleet import PoolState, pool_state

T = TypeVar("T")

#: An engine that is not ready after this never will be: (simulated, real).
START_DEADLINE_SECONDS = {"sim": 60.0, "vllm": 1800.0}
#: On top of the pool's drain deadline, for the engine's own shutdown.
EXIT_SECONDS = 15.0
PROBE_SECONDS = 0.2
RESTART_SECONDS = 1.0


class Phase(StrEnum):
    """Where a replica stands."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class EngineFailed(Exception):  # noqa: N818 - named after what happened
    """An engine cannot start, so that the pool will never serve; the message says what it printed."""


@dataclass(slots=True, eq=False)
class Replica:
    """One engine process, or the wish for one while no GPU is free."""

    name: str
    pool: str
    phase: Phase = Phase.STARTING
    slots: tuple[int, ...] = ()
    address: str = ""
    leave: asyncio.Event = field(default_factory=asyncio.Event)


class Process(Protocol):
    """A program that runs (`children.Child`)."""

    name: str

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        ...

    async def ended(self) -> int:
        """Wait for its end."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to end, and end it after the grace."""
        ...

    def last_words(self) -> str:
        """The end of what it printed."""
        ...


class Starter(Protocol):
    """Starts programs (`children.Children`)."""

    async def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Process:
        """Start one."""
        ...


async def answers_health(address: str) -> bool:
    """The engine at that address says that it serves."""
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            return (await client.get(f"http://{address}/health")).status_code == 200
    except httpx.HTTPError:
        return False


class Engines:
    """All pools' replicas.

    `changed` is called when the addresses of ready ones change; `settled` waits until the router knows of it.
    """

    def __init__(
        self,
        pools: Mapping[str, InferencePool],
        budgets: Mapping[str, int],
        options: Options,
        children: Starter,
        *,
        changed: Callable[[], None],
        settled: Callable[[], Awaitable[None]],
        healthy: Callable[[str], Awaitable[bool]] = answers_health,
    ) -> None:
        self._pools = pools
        self._options = options
        self._children = children
        self._changed = changed
        self._settled = settled
        self._desired = dict.fromkeys(pools, 0)
        self._replicas: dict[str, list[Replica]] = {name: [] for name in pools}
        accelerators = {pool.spec.accelerator.name for pool in pools.values()}
        self.slots = {name: Slots(budgets.get(name)) for name in accelerators}
        self._numbers = itertools.count(1)
        self._keepers: set[asyncio.Task[None]] = set()
        self._healthy = healthy
        self._drain_at_once = False
        self.cold_start_seconds = 0.0
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def states(self) -> dict[str, PoolState]:
        """The pools as the rebalancer sees them."""
        return {name: self._state(name) for name in self._pools}

    def addresses(self) -> dict[str, list[str]]:
        """`host:port` of every ready replica by pool."""
        return {name: [r.address for r in self._in(name, Phase.READY)] for name in self._pools}

    def scale(self, pool: str, replicas: int) -> None:
        """Ask for that many; the youngest go first, those that are not ready before those that are."""
        self._desired[pool] = replicas
        active = [*self._in(pool, Phase.READY), *self._in(pool, Phase.STARTING)]
        for surplus in active[replicas:]:
            surplus.phase = Phase.DRAINING
            surplus.leave.set()
        for _ in range(replicas - len(active)):
            self._add(pool)
        self._changed()

    async def failure(self) -> None:
        """Wait until an engine cannot start; raises EngineFailed then."""
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """End all replicas together, each in order: it leaves the router's list, answers what is open, exits."""
        for pool in self._pools:
            self.scale(pool, 0)
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._end()

    async def abandon(self) -> None:
        """End all replicas without waiting for open answers."""
        self._drain_at_once = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._end()

    async def _end(self) -> None:
        if self._failed.done() and not self._failed.cancelled():
            self._failed.exception()
        self._failed.cancel()

    def _state(self, name: str) -> PoolState:
        counts = {phase: len(list(self._in(name, phase))) for phase in Phase}
        return pool_state(
            self._pools[name],
            desired=self._desired[name],
            ready=counts[Phase.READY],
            starting=counts[Phase.STARTING],
            draining=counts[Phase.DRAINING],
        )

    def _in(self, pool: str, phase: Phase) -> Iterator[Replica]:
        return (replica for replica in self._replicas[pool] if replica.phase is phase)

    def _add(self, pool: str) -> None:
        replica = Replica(f"{pool}-{next(self._numbers)}", pool)
        self._replicas[pool].append(replica)
        keeper = asyncio.create_task(self._keep(replica))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._kept)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        """A keeper that fails is a pool that never serves: everything ends with its error."""
        self._keepers.discard(keeper)
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _keep(self, replica: Replica) -> None:
        """The life of a replica; one that ends by itself is replaced."""
        try:
            await self._live(replica)
        finally:
            self._replicas[replica.pool].remove(replica)
            self._changed()
        if replica.phase is not Phase.DRAINING:
            await asyncio.sleep(RESTART_SECONDS)
            self.scale(replica.pool, self._desired[replica.pool])

    async def _live(self, replica: Replica) -> None:
        pool = self._pools[replica.pool]
        slots = self.slots[pool.spec.accelerator.name]
        taken = await _unless(replica.leave, slots.take(pool.spec.accelerator.count))
        if taken is None:
            return
        replica.slots = taken
        try:
            await self._run(replica, pool)
        finally:
            await slots.give_back(replica.slots)

    async def _run(self, replica: Replica, pool: InferencePool) -> None:
        port = free_port()
        replica.address = f"{HOST}:{port}"
        command = engine_command(pool, self._options, port)
        try:
            child = await self._children.start(replica.name, command, self._environment(pool, replica))
        except OSError as error:
            raise EngineFailed(f"engine {replica.name}: {command[0]} cannot be started: {error.strerror}") from None
        try:
            await self._serve(replica, child)
        finally:
            if child.status is None:
                grace = 0 if self._drain_at_once else pool.spec.drain.deadline_seconds + EXIT_SECONDS
                await child.stop(grace)

    def _environment(self, pool: InferencePool, replica: Replica) -> dict[str, str]:
        divided = pool.spec.recipe.disaggregation is not None
        channel = {SIDE_CHANNEL_HOST: HOST, SIDE_CHANNEL_PORT: str(free_port())} if divided else {}
        if self._options.engine != "vllm":
            return channel
        own = {variable.name: variable.value for variable in pool.spec.engine.env}
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, replica.slots)), **own, **channel}

    async def _serve(self, replica: Replica, child: Process) -> None:
        """From the start of the process until it should end or has ended."""
        clock = asyncio.get_running_loop().time
        started = clock()
        await _unless(replica.leave, self._become_ready(replica, child))
        if replica.phase is Phase.READY:
            self.cold_start_seconds = max(self.cold_start_seconds, clock() - started)
            self._changed()
            await _unless(replica.leave, child.ended())
        if replica.leave.is_set() and child.status is None:
            await self._settled()

    async def _become_ready(self, replica: Replica, child: Process) -> None:
        deadline = START_DEADLINE_SECONDS[self._options.engine]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while not await self._healthy(replica.address):
                    if child.status is not None:
                        raise EngineFailed(f"engine {child.name} ended with {child.status}: {child.last_words()}")
                    await asyncio.sleep(PROBE_SECONDS)
                if not replica.leave.is_set():
                    replica.phase = Phase.READY
                return
        raise EngineFailed(f"engine {child.name} was not ready after {deadline:g} s: {child.last_words()}")


async def _unless(leave: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work; None, with the work cancelled, when the replica is told to leave first."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(leave.wait())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
