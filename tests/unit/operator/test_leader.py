"""The leader's work goes on: it is started again where it fails or loses a watch, and ends when told to."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from support.fasttime import run_fast
from trimtab_operator.leader import RUNNING, WATCHER, HungError, WatchEndedError, run_until_stopped, watch_the_watchers


class Work:
    """Fails that many times, then ends well; notes when it was begun."""

    def __init__(self, failures: int, *, seconds: float = 0.0) -> None:
        self.begun: list[float] = []
        self._failures, self._seconds = failures, seconds

    async def __call__(self) -> None:
        self.begun.append(round(asyncio.get_running_loop().time()))
        await asyncio.sleep(self._seconds)
        if len(self.begun) <= self._failures:
            raise RuntimeError("discovery failed")


def lead(work: Callable[[], Awaitable[None]], *, lost_after: float = 80_000) -> None:
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
    assert work.begun == [0, 1, 3, 7, 15, 31, 61, 91]


def test_a_failure_after_a_long_run_is_a_new_one():
    work = Work(3, seconds=100)
    lead(work)
    assert work.begun == [0, 101, 202, 303]


def test_it_ends_when_the_lease_is_lost():
    work = Work(10**6)
    lead(work, lost_after=100)
    assert work.begun[-1] <= 100


def test_work_that_does_not_end_is_told():
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    with pytest.raises(HungError):
        lead(stubborn, lost_after=1)


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
        with pytest.raises(WatchEndedError, match="watcher for pods"):
            await watch_the_watchers()
        assert asyncio.get_running_loop().time() < 15
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    run_fast(run())


def test_a_lost_watch_begins_the_work_again_and_an_end_does_not():
    begun = []

    async def work() -> None:
        begun.append(round(asyncio.get_running_loop().time()))
        await kopf_like(watch_seconds=10 if len(begun) == 1 else 1000, seconds=50)

    lead(work)
    assert len(begun) == 2
    assert 15 <= begun[1] <= 25
