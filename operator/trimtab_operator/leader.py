"""The work of the leader: kopf, started again where it ends by itself.

kopf ends as a whole when its discovery fails, and goes on without a watch when that watch fails (any error in a stream
but 410 Gone): from then on a kind is not heard. Both are cured by a start of kopf in the same process: it looks at
everything again, the lease stays held, and no crash-loop back-off of Kubernetes comes in between.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)

#: kopf's names of the tasks that watch one kind each, and of the one that ends first when kopf ends.
WATCHER, RUNNING = "watcher for ", "stop-flag checker"
_LOOK_SECONDS = 2.0
_END_SECONDS = 15.0
_LONGEST_WAIT_SECONDS = 30.0
#: Having run that long, the next failure is a new one.
_SOUND_SECONDS = 60.0


class WatchEndedError(Exception):
    """A watch ended for good while the rest went on."""


class HungError(Exception):
    """The work did not end when it was told to; only the end of the process is left."""


async def run_until_stopped(work: Callable[[], Awaitable[None]], lost: "asyncio.Future[None]") -> None:
    """Do `work` until it returns, which it does after a signal, or until `lost` is done.

    Whatever it raises is logged, and it is done again after a wait that grows from one second to half a minute.
    Raises HungError.
    """
    failures, now = 0, asyncio.get_running_loop().time
    while not lost.done():
        started = now()
        try:
            await _one_run(work, lost)
        except HungError:
            raise
        except Exception as error:
            failures = 1 if now() - started > _SOUND_SECONDS else failures + 1
            wait = min(_LONGEST_WAIT_SECONDS, 2.0 ** (failures - 1))
            logger.exception("the operator failed and starts again in %.0f s", wait, exc_info=error)
            if await _signalled(lost, seconds=wait):
                return
        else:
            return


async def _one_run(work: Callable[[], Awaitable[None]], lost: "asyncio.Future[None]") -> None:
    guard = asyncio.ensure_future(watch_the_watchers())
    # The guard is older than all that kopf starts: kopf cancels every younger task when it ends.
    await asyncio.sleep(0)
    working = asyncio.ensure_future(work())
    ends: tuple[asyncio.Future[None], ...] = (working, guard, lost)
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        await asyncio.wait([working], timeout=_END_SECONDS)
        if not working.done():
            raise HungError(f"the operator did not end within {_END_SECONDS:.0f} s")
    guard.cancel()
    for task in (working, guard):
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def watch_the_watchers(*, look_seconds: float = _LOOK_SECONDS) -> None:
    """Run until the task of a watch is gone while kopf goes on; then raise WatchEndedError."""
    known: set[str] = set()
    while True:
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        alive = {name for name in tasks if name.startswith(WATCHER)} if RUNNING in tasks else set()
        if RUNNING in tasks and (gone := sorted(known - alive)):
            raise WatchEndedError(f"ended: {', '.join(gone)}")
        known = alive
        await asyncio.sleep(look_seconds)


async def _signalled(lost: "asyncio.Future[None]", *, seconds: float) -> bool:
    """Wait; True at once after a signal to end. kopf, which handles signals while it runs, does not run."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    stopping = asyncio.ensure_future(stop.wait())
    ends: tuple[asyncio.Future[Any], ...] = (stopping, lost)
    await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return stop.is_set()
