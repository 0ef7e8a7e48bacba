"""The work of the leader: kopf, started again where it ends by itself.

kopf ends as a whole when its discovery fails or when a watch does (any error in its stream but 410 Gone), and where
requests wait for new credentials at that moment, it never comes to its end. Both are cured by a start of kopf in the
same process: it looks at everything again, the lease stays held, and no crash-loop back-off of Kubernetes comes in
between.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Collection
from typing import Any

logger = logging.getLogger(__name__)

#: kopf's names of the tasks that watch one kind each, and of the one that ends first when kopf ends.
WATCHER, RUNNING = "watcher for ", "stop-flag checker"
_START_SECONDS = 0.05
_LOOK_SECONDS = 2.0
_END_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 10.0
#: Having run that long, the next failure is a new one.
_SOUND_SECONDS = 60.0

Work = Callable[[asyncio.Event], Awaitable[None]]
Tasks = Collection["asyncio.Task[Any]"]


class DeafError(Exception):
    """kopf no longer hears: a watch ended while the rest went on, or its end does not come."""


class HungError(Exception):
    """The work did not end when it was told to; only the end of the process is left."""


async def run_until_stopped(work: Work, lost: "asyncio.Future[None]") -> None:
    """Do `work` until a signal or until `lost` is done; it gets an event that tells it to end.

    Whatever it raises is logged, and it is done again after a wait that grows from one second to ten.
    Raises HungError.
    """
    failures, now, stop = 0, asyncio.get_running_loop().time, asyncio.Event()
    while not lost.done():
        started = now()
        try:
            await _one_run(work, stop, lost)
        except HungError:
            raise
        except Exception as error:
            failures = 1 if now() - started > _SOUND_SECONDS else failures + 1
            wait = min(_LONGEST_WAIT_SECONDS, 2.0 ** (failures - 1))
            logger.exception("the operator failed and starts again in %.0f s", wait, exc_info=error)
            if await _stopped(stop, lost, seconds=wait):
                return
        else:
            return


async def _one_run(work: Work, stop: asyncio.Event, lost: "asyncio.Future[None]") -> None:
    guard = asyncio.ensure_future(watch_kopf(stop))
    # The guard is older than all that kopf starts: kopf cancels every younger task when it ends.
    await asyncio.sleep(0)
    others = asyncio.all_tasks()
    working = asyncio.ensure_future(work(stop))
    ends: tuple[asyncio.Future[None], ...] = (working, guard, lost)
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        cut_short = not working.done()
        if cut_short:
            working.cancel()
            await asyncio.wait([working], timeout=_END_SECONDS)
        await _end(others)
    finally:
        guard.cancel()
    for task in (guard, working):
        # What had to be cancelled has nothing to say; after a signal nothing failed.
        with contextlib.suppress(asyncio.CancelledError, *([Exception] if stop.is_set() and cut_short else [])):
            await task


async def _end(others: Tasks) -> None:
    """End every task that the run left behind: nothing of it may work on beside the next one."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _END_SECONDS
    while left := [task for task in asyncio.all_tasks() if task not in others and not task.done()]:
        if loop.time() > deadline:
            raise HungError(f"did not end within {_END_SECONDS:.0f} s: {', '.join(t.get_name() for t in left)}")
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)


async def watch_kopf(stop: asyncio.Event) -> None:
    """Run for as long as kopf hears and, told to end, comes to its end; then raise DeafError.

    Signals set `stop` from the moment when kopf, which would handle them itself, has started.
    """
    running = await _started()
    _on_signals(stop)
    known: set[str] = set()
    while not running.done():
        alive = {name for task in asyncio.all_tasks() if (name := task.get_name()).startswith(WATCHER)}
        # kopf's end takes its watches first: whether it has begun is seen a moment later.
        if (gone := sorted(known - alive)) and not await _ends(running):
            raise DeafError(f"ended: {', '.join(gone)}")
        known = alive
        await asyncio.wait([running], timeout=_LOOK_SECONDS)
    await asyncio.sleep(_END_SECONDS)
    raise DeafError("kopf did not come to its end")


async def _started() -> "asyncio.Task[Any]":
    while True:
        for task in asyncio.all_tasks():
            if task.get_name() == RUNNING:
                return task
        await asyncio.sleep(_START_SECONDS)


async def _ends(running: "asyncio.Task[Any]") -> bool:
    await asyncio.wait([running], timeout=1)
    return running.done()


def _on_signals(stop: asyncio.Event) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)


async def _stopped(stop: asyncio.Event, lost: "asyncio.Future[None]", *, seconds: float) -> bool:
    """Wait; True at once after a signal to end."""
    _on_signals(stop)
    stopping = asyncio.ensure_future(stop.wait())
    ends: tuple[asyncio.Future[Any], ...] = (stopping, lost)
    await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return stop.is_set()
