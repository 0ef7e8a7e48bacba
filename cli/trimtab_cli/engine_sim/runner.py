"""Runs the scheduler in real time: a timer per step, and a ticket per answer that its request waits on.

Steps shorter than `TICK_SECONDS` are handled together, so that a fast simulation costs one wake-up per tick, not one
per step; their tokens reach the client in one chunk, as vLLM's `--stream-interval` would do.
"""

import asyncio
import itertools
import time
from collections.abc import Callable

from trimtab_cli.engine_sim.answers import Answer
from trimtab_cli.engine_sim.engine import Engine, Rejection, Sequence, StepReport
from trimtab_cli.engine_sim.metrics import Metrics

TICK_SECONDS = 0.005


class Ticket:
    """One answer under way. `finish_reason` is None until it ended."""

    def __init__(self, sequence: Sequence, answer: Answer, max_tokens: int) -> None:
        self.sequence = sequence
        self.answer = answer
        self.max_tokens = max_tokens
        self.finish_reason: str | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def written_tokens(self) -> int:
        """Tokens that exist."""
        return self.sequence.written_tokens

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came out of a cache, of this engine or of another."""
        return self.sequence.cached_tokens + self.sequence.fetched_tokens

    def notify(self) -> None:
        """Wake whoever reads the stream."""
        self._changed.set()

    def end(self, reason: str) -> None:
        """The answer ended."""
        self.finish_reason = reason
        self._ended.set()
        self._changed.set()

    async def ended(self) -> None:
        """Wait until it ended."""
        await self._ended.wait()

    async def next_run(self, start: int) -> tuple[int, int]:
        """Wait for tokens after that position, or for the end; from where to where they go."""
        while self.finish_reason is None and self.written_tokens <= start:
            self._changed.clear()
            await self._changed.wait()
        return start, self.written_tokens


class Runner:
    """The engine in real time. All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._tickets: dict[int, Ticket] = {}
        self._keys = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_answers(self) -> int:
        """Answers under way."""
        return len(self._tickets)

    def rejection(self, answers: int, prompt_tokens: int) -> Rejection | None:
        """Why so many more answers with so many prompt tokens would not be queued; counted when there is a reason."""
        self._settle()
        reason = self._engine.rejection(answers, prompt_tokens)
        if reason is not None:
            self._metrics.rejected(reason)
        return reason

    def keep(self, tokens: int) -> None:
        """So much of the cache is kept for other engines from now on."""
        self._settle()
        self._engine.kept_tokens = tokens
        self._settle()

    def submit(
        self, answer: Answer, *, prompt_tokens: int, blocks: tuple[int, ...], max_tokens: int, external_tokens: int = 0
    ) -> Ticket:
        """Queue an answer; another engine has computed `external_tokens` of its prompt."""
        sequence = Sequence(
            next(self._keys), prompt_tokens, answer.output_tokens, blocks, external_tokens=external_tokens
        )
        ticket = Ticket(sequence, answer, max_tokens)
        self._tickets[sequence.key] = ticket
        self._idle.clear()
        self._settle()
        self._engine.submit(sequence, self._clock())
        self._settle()
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """End an answer whose client left, or that the shutdown cuts off; nothing happens if it ended already.

        vLLM counts no finished request for it, so neither do we.
        """
        if ticket.finish_reason is None:
            self._settle()
        if ticket.finish_reason is None:
            self._engine.abort(ticket.sequence, self._clock())
            self._close(ticket, "abort")
            self._settle()

    def abort_all(self) -> None:
        """End every answer."""
        for ticket in list(self._tickets.values()):
            self.abort(ticket)

    async def idle(self) -> None:
        """Wait until no answer is under way."""
        await self._idle.wait()

    def _settle(self) -> None:
        """Catch up with the clock and set the timer for the next step."""
        for report in self._engine.advance(self._clock()):
            self._publish(report)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._engine.next_event_at
        if at is not None:
            delay = max(TICK_SECONDS, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._settle)

    def _publish(self, report: StepReport) -> None:
        self._metrics.step(report)
        for emission in report.emissions:
            ticket = self._tickets.get(emission.sequence.key)
            if ticket is not None:
                ticket.notify()
        for sequence in report.finished:
            ticket = self._tickets.get(sequence.key)
            if ticket is not None:
                self._end(ticket)

    def _end(self, ticket: Ticket) -> None:
        reason = ticket.answer.finish_reason
        self._metrics.finished(ticket.sequence, reason, max_tokens=ticket.max_tokens)
        self._close(ticket, reason)

    def _close(self, ticket: Ticket, reason: str) -> None:
        self._tickets.pop(ticket.sequence.key, None)
        ticket.end(reason)
        if not self._tickets:
            self._idle.set()
