"""The single-flight loop of one object: pass, wait for a poke or for the time that pacing says, pass again."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from trimtab_operator.core.kinds import Kind
from trimtab_operator.core.pacing import Pace, Result, next_delay
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Deps, mark_broken
from trimtab_operator.shell.wakeups import first_of
from trimtab_operator.shell.world import Key, wake_key

logger = logging.getLogger(__name__)

#: An API server may ask to be left alone (Retry-After) for so long, and no longer.
_LONGEST_ASKED_SECONDS = 60.0


class Stop(Protocol):
    """Tells a loop to end; kopf's stop flag of a daemon is one."""

    def __bool__(self) -> bool:
        """Whether to end now."""
        ...

    def wait(self) -> Awaitable[Any]:
        """Return when it is time to end."""
        ...


@dataclass(frozen=True, slots=True)
class Loop:
    """What a loop passes over and how."""

    kind: Kind
    key: Key
    step: Callable[[], Awaitable[Result]]


async def run_loop(deps: Deps, loop: Loop, stop: Stop, pace: Pace) -> None:
    """Run until told to stop. A pass in flight is cancelled then: every pass starts from what is observed."""
    failures, now = 0, asyncio.get_running_loop().time
    with deps.wakeups.listening(wake_key(loop.kind, loop.key)) as poked:
        looked = False
        while not stop:
            poked.clear()
            started = now()
            with nullcontext() if looked else deps.newcomers.first_pass():
                task = asyncio.ensure_future(_passed(deps, loop))
                await first_of_stop(task, stop)
            looked = True
            if not task.done() or task.cancelled():
                return
            result, asked_seconds = task.result()
            failures = failures + 1 if result in (Result.TRANSIENT, Result.BUG) else 0
            delay = next_delay(result, failures, pace=pace, jitter=random.random())
            # No poke wakes it before that: what happens meanwhile is one pass.
            rest = max(asked_seconds, started + pace.settle_seconds - now())
            if rest > 0:
                await first_of([asyncio.ensure_future(stop.wait())], seconds=rest)
            await first_of([asyncio.ensure_future(stop.wait()), asyncio.ensure_future(poked.wait())], seconds=delay)
            if deps.newcomers.are_waiting:
                waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(deps.newcomers.let_pass())]
                await first_of(waits, seconds=pace.resync_seconds)


async def first_of_stop(task: "asyncio.Future[Any]", stop: Stop) -> None:
    """Wait for the task, and cancel it when it is time to stop."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


async def _passed(deps: Deps, loop: Loop) -> tuple[Result, float]:
    """One pass; every way it can end becomes a Result, with the seconds that the API server asks to be left alone."""
    started, asked_seconds = time.perf_counter(), 0.0
    try:
        result = await loop.step()
    except ClusterError as error:
        logger.warning("%s %s/%s: %s", loop.kind.kind, *loop.key, error)
        result, asked_seconds = Result.TRANSIENT, min(error.retry_after_seconds or 0.0, _LONGEST_ASKED_SECONDS)
    except Exception:
        logger.exception("%s %s/%s: a bug", loop.kind.kind, *loop.key)
        result = Result.BUG
        await mark_broken(deps, loop.kind, loop.key)
    deps.telemetry.reconciles.labels(loop.kind.kind, result.value).inc()
    deps.telemetry.reconcile_seconds.labels(loop.kind.kind).observe(time.perf_counter() - started)
    return result, asked_seconds
