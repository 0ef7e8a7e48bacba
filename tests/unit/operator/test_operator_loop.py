"""The loop of one object: single flight, pokes that merge, an end at any moment."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from support.operatorparts import Bench
from trimtab_operator.core.kinds import POOL
from trimtab_operator.core.pacing import Pace, Result
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.loop import Loop, run_loop
from trimtab_operator.shell.world import wake_key

KEY = ("default", "low")
PACE = Pace(resync_seconds=1000, blocked_seconds=1000)


class Stop:
    """A stop flag like kopf's."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def play(step: Callable[[], Awaitable[Result]], story: Callable[[Bench, Stop], Awaitable[None]]) -> Bench:
    """Run the loop over `step` while `story` happens, then stop it; it must end."""

    async def run() -> Bench:
        bench, stop = Bench(), Stop()
        bench.add_pool()
        bench.refresh()
        task = asyncio.create_task(run_loop(bench.deps, Loop(POOL, KEY, step), stop, PACE))
        await turns()
        await story(bench, stop)
        stop.set()
        await asyncio.wait_for(task, 5)
        return bench

    return asyncio.run(run())


class Passes:
    """Steps that count, may take until they are let go, and never run twice at a time."""

    def __init__(self, result: Result = Result.DONE, *, error: Exception | None = None) -> None:
        self.count = 0
        self.running = 0
        self.gate: asyncio.Event | None = None
        self._result, self._error = result, error

    async def __call__(self) -> Result:
        self.count += 1
        self.running += 1
        assert self.running == 1
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self._error is not None:
                raise self._error
            return self._result
        finally:
            self.running -= 1


def poke(bench: Bench) -> None:
    bench.deps.wakeups.poke(wake_key(POOL, KEY))


def test_it_looks_at_once_and_then_waits_for_pokes():
    passes = Passes()

    async def story(bench: Bench, _: Stop) -> None:
        assert passes.count == 1
        poke(bench)
        await turns()
        assert passes.count == 2

    play(passes, story)


def test_pokes_during_a_pass_are_one_more_pass():
    passes = Passes()
    gates: list[asyncio.Event] = []

    async def story(bench: Bench, _: Stop) -> None:
        gates.append(asyncio.Event())
        passes.gate = gates[0]
        poke(bench)
        await turns()
        for _i in range(5):
            poke(bench)
        passes.gate = None
        gates[0].set()
        await turns()
        assert passes.count == 3, "the first, the gated one, and one for all five pokes"

    play(passes, story)


def test_a_stop_ends_a_pass_in_flight():
    passes = Passes()

    async def story(bench: Bench, stop: Stop) -> None:
        passes.gate = asyncio.Event()
        poke(bench)
        await turns()
        stop.set()
        await turns()
        assert passes.running == 0

    play(passes, story)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        pytest.param(ClusterError("get", 503, "later"), "transient", id="the API server"),
        pytest.param(ValueError("oops"), "bug", id="a bug"),
    ],
)
def test_no_error_ends_the_loop(error: Exception, result: str):
    passes = Passes(error=error)

    async def story(bench: Bench, _: Stop) -> None:
        poke(bench)
        await turns()
        assert passes.count >= 2

    bench = play(passes, story)
    counted = bench.deps.telemetry.reconciles.labels("InferencePool", result)._value.get()
    assert counted >= 2
    assert (bench.conditions(POOL, "low") != {}) == (result == "bug"), "a bug is said in the status"


def test_two_objects_by_one_name_are_both_woken_for_a_moment():
    async def run() -> None:
        wakeups = Bench().deps.wakeups
        with wakeups.listening("key") as successor:
            with wakeups.listening("key") as old:
                wakeups.poke("key")
                assert old.is_set()
                assert successor.is_set()
                successor.clear()
            wakeups.poke("key")
            assert successor.is_set()
        wakeups.poke("key")
        wakeups.poke_where(lambda _: True)

    asyncio.run(run())
