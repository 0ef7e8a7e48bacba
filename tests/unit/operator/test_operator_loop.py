"""The loop of one object: single flight, pokes that merge, an end at any moment."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from support.fasttime import run_fast
from support.operatorparts import Bench
from trimtab_operator.core.kinds import POOL
from trimtab_operator.core.pacing import Pace, Result
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.loop import Loop, run_loop
from trimtab_operator.shell.newcomers import PATIENCE_SECONDS
from trimtab_operator.shell.world import wake_key

KEY = ("default", "low")
PACE = Pace(resync_seconds=1000, blocked_seconds=1000, settle_seconds=0)


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


KEYS = ("InferencePool", "default", "low")


def test_a_group_is_what_begins_alike():
    async def run() -> None:
        wakeups = Bench().deps.wakeups
        with (
            wakeups.listening(("RoutingPolicy", "default", "chat")) as mine,
            wakeups.listening(("RoutingPolicy", "other", "chat")) as other,
            wakeups.listening(KEYS) as pool,
        ):
            wakeups.poke_group("RoutingPolicy", "default")
            assert (mine.is_set(), other.is_set(), pool.is_set()) == (True, False, False)
        wakeups.poke_group("RoutingPolicy", "default")

    asyncio.run(run())


def counts_at(times: list[float], passes: Passes, pace: Pace) -> list[int]:
    """Passes so far at these times, while something happens all the time."""

    async def run() -> list[int]:
        bench, stop, counts = Bench(), Stop(), []
        bench.add_pool()
        bench.refresh()
        clock = asyncio.get_running_loop()
        task = asyncio.create_task(run_loop(bench.deps, Loop(POOL, KEY, passes), stop, pace))
        for at in times:
            while clock.time() < at:
                poke(bench)
                await asyncio.sleep(0.01)
            counts.append(passes.count)
        stop.set()
        await asyncio.wait_for(task, 5)
        return counts

    return run_fast(run())


def test_what_happens_within_the_settling_time_is_one_pass():
    pace = Pace(resync_seconds=1000, blocked_seconds=1000, settle_seconds=0.25)
    assert counts_at([0.2, 0.4, 0.6], Passes(), pace) == [1, 2, 3]


@pytest.mark.parametrize(
    ("asked", "times", "counts"),
    [
        pytest.param(7.0, [6.9, 7.1], [1, 2], id="as long as asked"),
        pytest.param(3600.0, [59.0, 61.0], [1, 2], id="within reason"),
    ],
)
def test_an_api_server_that_asks_to_be_left_alone_is(asked: float, times: list[float], counts: list[int]):
    passes = Passes(error=ClusterError("get", 429, "later", asked))
    assert counts_at(times, passes, PACE) == counts


def test_two_objects_by_one_name_are_both_woken_for_a_moment():
    async def run() -> None:
        wakeups = Bench().deps.wakeups
        with wakeups.listening(KEYS) as successor:
            with wakeups.listening(KEYS) as old:
                wakeups.poke(KEYS)
                assert old.is_set()
                assert successor.is_set()
                successor.clear()
            wakeups.poke(KEYS)
            assert successor.is_set()
        wakeups.poke(KEYS)
        wakeups.poke_all()

    asyncio.run(run())


def test_who_was_never_looked_at_comes_before_a_second_look_but_not_for_ever():
    async def run() -> list[bool]:
        bench, stop, seen, held = Bench(), Stop(), [], Passes()
        held.gate = asyncio.Event()
        for name in ("low", "new"):
            bench.add_pool(name)
        bench.refresh()
        old, clock = Passes(), asyncio.get_running_loop()
        loops = [(KEY, old), (("default", "new"), held)]
        tasks = [asyncio.create_task(run_loop(bench.deps, Loop(POOL, key, p), stop, PACE)) for key, p in loops]
        for at in (1.0, PATIENCE_SECONDS - 1, PATIENCE_SECONDS + 1):
            while clock.time() < at:
                poke(bench)
                await asyncio.sleep(0.1)
            seen.append(old.count > 1)
        held.gate.set()
        await asyncio.sleep(0.1)
        await asyncio.wait_for(bench.deps.newcomers.let_pass(), 1)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        return seen

    assert run_fast(run()) == [False, False, True]
