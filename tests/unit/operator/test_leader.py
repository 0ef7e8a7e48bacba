"""The leader's work goes on: it is started again where it fails or loses a watch, and ends when told to."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from support.fasttime import run_fast
from trimtab_operator.leader import RUNNING, WATCHER, DeafError, HungError, run_until_stopped, watch_kopf


class Work:
    """Fails that many times, then ends well; notes when it was begun."""

    def __init__(self, failures: int, *, seconds: float = 0.0) -> None:
        self.begun: list[float] = []
        self._failures, self._seconds = failures, seconds

    async def __call__(self, _: asyncio.Event) -> None:
        self.begun.append(round(asyncio.get_running_loop().time()))
        await asyncio.sleep(self._seconds)
        if len(self.begun) <= self._failures:
            raise RuntimeError("discovery failed")


def lead(work: Callable[[asyncio.Event], Awaitable[None]], *, lost_after: float = 80_000) -> None:
    async def run() -> None:
        lost = asyncio.ensure_future(asyncio.sleep(lost_after))
        await run_until_stopped(work, lost)
        lost.cancel()

    run_fast(run())


def test_work_that_ends_well_is_done_once():
    work = Work(0)
    lead(work)
    assert work.begun == [0]


def test_work_that_fails_is_begun_again_later_and_later():
    work = Work(7)
    lead(work)
    assert work.begun == [0, 1, 3, 7, 15, 25, 35, 45]


def test_a_failure_after_a_long_run_is_a_new_one():
    work = Work(3, seconds=100)
    lead(work)
    assert work.begun == [0, 101, 202, 303]


def test_it_ends_when_the_lease_is_lost():
    work = Work(10**6)
    lead(work, lost_after=100)
    assert work.begun[-1] <= 100


def test_work_that_does_not_end_is_told():
    async def stubborn(_: asyncio.Event) -> None:
        for _ in range(30):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    with pytest.raises(HungError, match="did not end within 10 s"):
        lead(stubborn, lost_after=1)


def test_nothing_of_a_run_works_on_beside_the_next():
    left: list[asyncio.Task[None]] = []

    async def work(_: asyncio.Event) -> None:
        assert all(task.done() for task in left)
        if len(left) < 3:
            left.append(asyncio.create_task(asyncio.sleep(10**6), name="a daemon"))
            raise RuntimeError("discovery failed")

    lead(work)
    assert len(left) == 3


async def kopf_like(*, watch_seconds: float, seconds: float) -> None:
    """A root task and a watch, by the names that kopf gives them."""
    root = asyncio.create_task(asyncio.sleep(seconds), name=RUNNING)
    watch = asyncio.create_task(asyncio.sleep(watch_seconds), name=f"{WATCHER}pods")
    try:
        await root
    finally:
        for task in (root, watch):
            task.cancel()
        await asyncio.sleep(5)  # it takes its time to end


def test_a_watch_that_ends_alone_is_a_failure():
    async def run() -> None:
        working = asyncio.ensure_future(kopf_like(watch_seconds=10, seconds=100))
        with pytest.raises(DeafError, match="watcher for pods"):
            await watch_kopf(asyncio.Event())
        assert asyncio.get_running_loop().time() < 15
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    run_fast(run())


def test_a_lost_watch_begins_the_work_again_and_an_end_does_not():
    begun = []

    async def work(_: asyncio.Event) -> None:
        begun.append(round(asyncio.get_running_loop().time()))
        await kopf_like(watch_seconds=10 if len(begun) == 1 else 1000, seconds=50)

    lead(work)
    assert len(begun) == 2
    assert 15 <= begun[1] <= 25


async def endless(*, seconds: float) -> None:
    """kopf after a failure while requests wait for new credentials: its end never comes."""
    await asyncio.create_task(asyncio.sleep(seconds), name=RUNNING)
    await asyncio.create_task(asyncio.sleep(10**6), name="daemon killer")


def test_an_end_that_does_not_come_begins_the_work_again():
    begun = []

    async def work(_: asyncio.Event) -> None:
        begun.append(round(asyncio.get_running_loop().time()))
        if len(begun) == 1:
            await endless(seconds=10)

    lead(work)
    assert len(begun) == 2
    assert 20 <= begun[1] <= 33


def test_after_a_signal_an_end_that_does_not_come_is_cut_short_for_good():
    begun = []

    async def work(stop: asyncio.Event) -> None:
        begun.append(1)
        asyncio.get_running_loop().call_later(5, stop.set)
        await endless(seconds=10)

    lead(work)
    assert begun == [1]
