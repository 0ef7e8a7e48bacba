"""Engines as processes, with fake processes and a clock that jumps."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from support.fasttime import run_fast
from support.rebalancing import observed_pool
from trimtab_cli.local.engines import EngineFailed, Engines
from trimtab_cli.local.options import Options
from trimtab_cli.local.slots import Slots

L4 = "nvidia-l4-24gb"
STARTUP_SECONDS = 5.0
FITTING = {"spec__model__contextTokens": 8192}


@dataclass(eq=False)
class FakeProcess:
    """Becomes healthy by itself; takes `exit_seconds` to end when asked."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    exit_seconds: float
    status: int | None = None
    stopped_with_grace: float | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        port = self.argv[list(self.argv).index("--port") + 1]
        return f"127.0.0.1:{port}"

    async def ended(self) -> int:
        await self.over.wait()
        return self.status or 0

    async def stop(self, grace_seconds: float) -> None:
        self.stopped_with_grace = grace_seconds
        await asyncio.sleep(min(self.exit_seconds, grace_seconds))
        self.die(0)

    def die(self, status: int) -> None:
        self.status = status
        self.over.set()

    def last_words(self) -> str:
        return "no memory"


@dataclass
class Machine:
    """What engines run on. `settled_seconds` is how long the router takes to notice."""

    exit_seconds: float = 3.0
    settled_seconds: float = 1.0
    startup_seconds: float = STARTUP_SECONDS
    processes: list[FakeProcess] = field(default_factory=list)
    born: dict[str, float] = field(default_factory=dict)
    changes: int = 0

    async def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> FakeProcess:
        process = FakeProcess(name, argv, env or {}, self.exit_seconds)
        self.processes.append(process)
        self.born[process.address] = asyncio.get_running_loop().time()
        return process

    async def healthy(self, address: str) -> bool:
        return asyncio.get_running_loop().time() - self.born[address] >= self.startup_seconds

    async def settled(self) -> None:
        await asyncio.sleep(self.settled_seconds)

    def changed(self) -> None:
        self.changes += 1

    @property
    def running(self) -> list[FakeProcess]:
        return [process for process in self.processes if process.status is None]

    def engines(self, *, gpus: int = 8, engine: str = "sim", **changes: object) -> Engines:
        pools = {name: observed_pool(name, **FITTING | changes).pool for name in ("low", "high")}
        return Engines(
            pools,
            {L4: gpus},
            Options(files=(), engine=engine),
            self,
            changed=self.changed,
            settled=self.settled,
            healthy=self.healthy,
        )


def counts(engines: Engines, pool: str = "low") -> tuple[int, int, int, int]:
    state = engines.states()[pool]
    return state.desired, state.ready, state.starting, state.draining


Story = Callable[[Machine, Engines], Awaitable[None]]


def play(story: Story, machine: Machine | None = None, **changes: object) -> Machine:
    """The story, then the end of everything."""
    machine = machine or Machine()

    async def whole() -> None:
        engines = machine.engines(**changes)
        await story(machine, engines)
        await engines.close()
        assert machine.running == []
        assert engines.slots[L4].held == 0

    run_fast(whole())
    return machine


def test_replicas_start_become_ready_and_are_listed() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 2)
        assert counts(engines) == (2, 0, 2, 0)
        await asyncio.sleep(STARTUP_SECONDS / 2)
        assert engines.slots[L4].held == 2
        assert engines.addresses() == {"low": [], "high": []}

        await asyncio.sleep(STARTUP_SECONDS)
        assert counts(engines) == (2, 2, 0, 0)
        assert engines.addresses()["low"] == [process.address for process in machine.processes]
        assert engines.cold_start_seconds == pytest.approx(STARTUP_SECONDS, abs=0.3)

    play(story)


def test_a_replica_runs_the_resolved_flags_on_its_own_port() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 2)
        await asyncio.sleep(1)

    machine = play(story)
    first, second = (list(process.argv) for process in machine.processes)
    assert first[1:4] == ["-m", "trimtab_cli.engine_sim", "Qwen/Qwen3-8B"]
    assert first[first.index("--served-model-name") + 1] == "low"
    assert first[first.index("--host") + 1] == "127.0.0.1"
    assert first[first.index("--port") + 1] != second[second.index("--port") + 1]
    assert first[first.index("--sim-accelerator") + 1] == L4


def test_engines_that_exchange_caches_have_side_channels_of_their_own() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 2)
        await asyncio.sleep(1)

    made = play(story, spec__recipe={"disaggregation": {"role": "Prefill"}})
    envs = [process.env for process in made.processes]
    assert {env["VLLM_NIXL_SIDE_CHANNEL_HOST"] for env in envs} == {"127.0.0.1"}
    assert len({env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for env in envs}) == 2
    assert all(process.env == {} for process in play(story).processes)


def test_the_youngest_replica_leaves_the_list_answers_and_then_frees_its_gpu() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 2)
        await asyncio.sleep(2 * STARTUP_SECONDS)
        old, young = machine.processes
        engines.scale("low", 1)

        assert counts(engines) == (1, 1, 0, 1)
        assert engines.addresses()["low"] == [old.address]
        await asyncio.sleep(machine.settled_seconds / 2)
        assert young.stopped_with_grace is None, "asked to end before the router noticed"

        await asyncio.sleep(machine.settled_seconds)
        assert young.stopped_with_grace == 300 + 15
        assert engines.slots[L4].held == 2

        await asyncio.sleep(machine.exit_seconds)
        assert counts(engines) == (1, 1, 0, 0)
        assert engines.slots[L4].held == 1
        assert old.status is None

    play(story)


def test_replicas_that_are_not_ready_leave_first() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 1)
        await asyncio.sleep(2 * STARTUP_SECONDS)
        engines.scale("low", 2)
        await asyncio.sleep(1)
        engines.scale("low", 1)
        assert counts(engines) == (1, 1, 0, 1)
        await asyncio.sleep(10)
        assert counts(engines) == (1, 1, 0, 0)

    play(story)


def test_no_more_gpus_are_held_than_there_are() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 3)
        engines.scale("high", 2)
        await asyncio.sleep(2 * STARTUP_SECONDS)
        assert engines.slots[L4].held == engines.slots[L4].peak == 4
        assert counts(engines, "high") == (2, 1, 1, 0)

        engines.scale("low", 2)
        await asyncio.sleep(1.5)
        assert counts(engines, "high") == (2, 1, 1, 0), "started while its GPU was still held"
        await asyncio.sleep(2 * STARTUP_SECONDS)
        assert counts(engines, "high") == (2, 2, 0, 0)
        assert engines.slots[L4].peak == 4

    play(story, gpus=4)


def test_a_replica_that_waits_for_a_gpu_can_leave() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 2)
        await asyncio.sleep(1)
        engines.scale("low", 1)
        await asyncio.sleep(1)
        assert counts(engines) == (1, 0, 1, 0)
        assert len(machine.processes) == 1

    play(story, gpus=1)


def test_an_engine_that_dies_is_replaced() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 1)
        await asyncio.sleep(2 * STARTUP_SECONDS)
        machine.processes[0].die(139)
        await asyncio.sleep(0.5)
        assert counts(engines) == (1, 0, 0, 0)
        await asyncio.sleep(2 * STARTUP_SECONDS)
        assert counts(engines) == (1, 1, 0, 0)
        assert len(machine.processes) == 2

    play(story)


def test_an_engine_that_cannot_start_is_an_error_with_its_last_words() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 1)
        await asyncio.sleep(1)
        machine.processes[0].die(1)
        with pytest.raises(EngineFailed, match="engine low-1 ended with 1: no memory"):
            await engines.failure()

    play(story)


def test_an_engine_that_never_gets_ready_is_an_error_too() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 1)
        with pytest.raises(EngineFailed, match="engine low-1 was not ready after 60 s: no memory"):
            await engines.failure()

    play(story, Machine(startup_seconds=1e9))


def test_abandoned_engines_get_no_grace() -> None:
    async def whole() -> list[float | None]:
        machine = Machine(exit_seconds=200)
        engines = machine.engines()
        engines.scale("low", 2)
        await asyncio.sleep(2 * STARTUP_SECONDS)
        await engines.abandon()
        assert machine.running == []
        return [process.stopped_with_grace for process in machine.processes]

    assert run_fast(whole()) == [0, 0]


def test_two_gpus_a_replica_are_two_slots() -> None:
    async def story(machine: Machine, engines: Engines) -> None:
        engines.scale("low", 2)
        await asyncio.sleep(1)
        assert engines.slots[L4].held == 4

    play(story, spec__accelerator={"name": L4, "count": 2})


def test_slots_are_the_lowest_free_numbers() -> None:
    async def story() -> None:
        slots = Slots(4)
        assert await slots.take(2) == (0, 1)
        assert await slots.take(1) == (2,)
        await slots.give_back((0, 1))
        assert await slots.take(1) == (0,)
        assert (slots.held, slots.peak) == (2, 3)

    run_fast(story())


def test_without_a_budget_there_is_always_a_slot() -> None:
    async def story() -> None:
        slots = Slots(None)
        assert len(await slots.take(100)) == 100

    run_fast(story())
