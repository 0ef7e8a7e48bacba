"""A query that may take several attempts: plays a strategy's script within the query's ceiling.

The script says what to start, the ledger what may be started, `Call` does it, `Show` tells the client. What is still
running when the script ends, the client leaves or the time is over is cut at once, so that no engine works in vain.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from trimtab_router.core.attempts import MOST_WORD_TOKENS, Forced, prompt_bound, request, wanted_tokens
from trimtab_router.core.ceiling import NANOS, Bound, Ledger, Price
from trimtab_router.core.costs import samples
from trimtab_router.core.disaggregated import outcome_of, said_of
from trimtab_router.core.errors import ApiError
from trimtab_router.core.events import Piece, Splitter
from trimtab_router.core.ladder import Rung
from trimtab_router.core.parse import Ask
from trimtab_router.core.plan import Plan, budget_on, others
from trimtab_router.core.runs import Run, usage
from trimtab_router.core.signals import Watch
from trimtab_router.core.strategies.choose import script
from trimtab_router.core.strategies.sampling import elect
from trimtab_router.core.strategies.script import Attempt, Choice, Query, Script
from trimtab_router.shell.account import Account
from trimtab_router.shell.call import Call, CallError, Order
from trimtab_router.shell.exchange import Host
from trimtab_router.shell.request import Request
from trimtab_router.shell.server import ClientConnection
from trimtab_router.shell.show import Show
from trimtab_router.shell.tokens import token_ids
from trimtab_router.shell.upstream import MAX_DEATHS, Endpoint

_AMOUNTS: Final[tuple[Bound, ...]] = ("tokens", "cost")
_log = logging.getLogger(__name__)


class Conductor:
    """From the plan to the last byte, over all attempts."""

    def __init__(self, host: Host, client: ClientConnection, asked: Request, ask: Ask, plan: Plan) -> None:
        self._host = host
        self._client = client
        self._request = asked
        self._ask = ask
        self._plan = plan
        self._account = Account(host, asked, ask, plan)
        self._ledger = Ledger(plan.spending.limits, self._account.started)
        self._show = Show(client, asked, self._account)
        self._climb: tuple[Rung, ...] = ()
        self._runs: list[Run] = []
        self._calls: dict[int, Call] = {}
        self._places: dict[int, Endpoint | None] = {}
        self._reservations = 0
        self._error: CallError | None = None
        self._task: asyncio.Task[None] | None = None
        self._open = True
        self._tokens: Forced | None = None
        """With which a thought of the plan's pool goes on; None where its engine does not say."""

    def start(self) -> None:
        """Counts the demand and begins."""
        self._account.open(samples(self._plan.spending.strategy))
        self._host.exchanges.add(self)
        self._task = asyncio.create_task(self._run(), name="conductor")
        self._host.spawn(self._task)

    async def _run(self) -> None:
        try:
            self._answer(await self._bounded())
        except Exception:  # noqa: BLE001 - a fault must cost one request only
            _log.exception("a strategy failed")
            self._end_with(ApiError(500, "router: internal error; see its log", code="internal"), "upstream_error")

    async def _bounded(self) -> Choice:
        """The script's choice; none when the time is over."""
        deadline = self._ledger.deadline
        left = None if deadline is None else max(deadline - self._host.now(), 0)
        try:
            async with asyncio.timeout(left):
                return await self._play()
        except TimeoutError:
            return Choice(-1, "SecondsCeiling")

    async def _play(self) -> Choice:
        query = self._understood()
        self._climb, play = query.climb, script(query)
        tasks: dict[asyncio.Task[None], Run] = {}
        ended: deque[Run] = deque()
        try:
            wanted = next(play)
            while True:
                for attempt in wanted:
                    run = self._begin(attempt, await self._forced(attempt))
                    if run.ended != "Cut":
                        ended.append(run)
                    else:
                        tasks[asyncio.create_task(self._attempt(run))] = run
                if not ended:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()  # a fault of ours is not an attempt's failure
                    ended.extend(sorted((tasks.pop(task) for task in done), key=lambda run: run.number))
                wanted = self._tell(play, ended.popleft())
        except StopIteration as stop:
            choice: Choice = stop.value
            return choice
        finally:
            await _cut(tasks)

    def _tell(self, play: Script, run: Run) -> Sequence[Attempt]:
        wanted = play.send(run.outcome())
        if run.ended == "Complete":
            self._show.note(f"{run.attempt.role} {run.number + 1} on tier {run.attempt.rung.name} is complete")
        return wanted

    def _understood(self) -> Query:
        name, verifier = self._plan.spending.strategy.verifier_pool, None
        if name is not None:
            verifier = Rung(-1, "verifier", self._plan.ladder.config.pool(name), 0, 0, graded=False)
        return Query(self._plan, self._ask.body["messages"], self._ask.reading.query.text, verifier)

    # one attempt

    async def _forced(self, attempt: Attempt) -> Forced | None:
        """The tokens with which a thought can be made to go on, by the replica that has it, else by one that may."""
        pool, forcing = attempt.rung.pool, self._plan.spending.strategy.forcing
        if forcing is None or pool.thinking_end is None or not (attempt.least_thinking_tokens or attempt.word):
            return None
        if attempt.resumes is not None:
            endpoint = self._places.get(attempt.resumes)
        else:
            replicas = self._host.directory.pools.get(pool.name)
            endpoint = replicas.pick(set(), self._ask.reading.prefix, self._host.now()) if replicas else None
        if endpoint is None:
            return None
        ask = partial(token_ids, self._host, self._request, endpoint, pool.served_name)
        word = await ask(forcing.text)
        end = await ask(pool.thinking_end) if word else ()
        return Forced(word, end) if end else None

    def _begin(self, attempt: Attempt, forced: Forced | None) -> Run:
        before = None if attempt.resumes is None else self._runs[attempt.resumes]
        run = Run(number=len(self._runs), attempt=attempt, before=before)
        self._runs.append(run)
        if attempt.resumes is None:
            self._tokens = self._tokens or forced
        elif attempt.word:
            run.forced = forced
            if forced is None:
                run.ended, run.unforced = "Failed", "NoTokenizer"
                return run
        elif attempt.anywhere and self._tokens is not None:
            run.forced = replace(self._tokens, word_ids=())
        thought = run.before_thought
        if attempt.watch:
            done = 0 if thought is None else len(thought.token_ids)
            run.watch = Watch(self._plan.spending.escalation, attempt.watch, max(attempt.thinking_tokens - done, 0))
        if thought is not None:
            run.splitter = Splitter(attempt.rung.pool.thinking_end or "")
        self._reserve(run)
        return run

    def _reserve(self, run: Run) -> bool:
        """Whether the ceiling lets it start."""
        attempt, thought = run.attempt, run.before_thought
        self._reservations += 1
        run.reservation = self._reservations
        granted = self._ledger.reserve(
            run.reservation,
            Price.of(attempt.rung.pool, attempt.rung.prefill),
            prompt_tokens=prompt_bound(attempt, self._plan, thought),
            wanted=wanted_tokens(attempt, thought),
            now=self._host.now(),
        )
        run.ended = "Cut" if granted else "CeilingReached"
        if granted:
            self._count_demand(attempt)
        return granted > 0

    def _count_demand(self, attempt: Attempt) -> None:
        """What goes to another tier than the plan's is demand there, verifiers' pools included."""
        plan, pool = self._plan, attempt.rung.pool
        rung = next((r for r in plan.ladder.rungs if r.pool is pool), None)
        if rung is None or rung.name == plan.tier:
            return
        tier = self._host.tally.tiers[rung.name]
        tier.admitted += 1
        tier.prompt_tokens += plan.facts.prompt_tokens
        tier.output_expected += min(plan.expected_output_tokens(), attempt.thinking_tokens + attempt.output_tokens)

    async def _attempt(self, run: Run) -> None:
        """Runs it to its end. An engine that dies is replaced once unless the client has seen some of it, a pool that
        has no room by the plan's next tier, as far as the ceiling allows.
        """
        started, deaths = self._host.now(), 0
        try:
            while True:
                try:
                    return await self._call(run)
                except CallError as error:
                    self._error, run.ended = error, "Failed"
                    deaths += error.died
                    again = error.died and deaths < MAX_DEATHS and not self._seen(run)
                    if not (self._elsewhere(run) if error.status == 503 else again):
                        return None
                if not self._reserve(run):
                    return None
                run.restart()
        finally:
            run.seconds = self._host.now() - started

    def _seen(self, run: Run) -> bool:
        """The client has read something of it, so it cannot begin again."""
        return self._show.content == run.number or (self._show.reasoning and run.attempt.show != "nothing")

    def _elsewhere(self, run: Run) -> bool:
        """Moves an attempt to the next tier that it has not tried; a thought cannot move."""
        plan, attempt = self._plan, run.attempt
        if plan.choice.strict or attempt.role == "verifier" or attempt.resumes is not None:
            return False
        run.tried.add(attempt.rung.index)
        left = [r for r in others(plan.choice.rung, plan.facts, plan.ladder) if r.index not in run.tried]
        if not left:
            return False
        budget = budget_on(left[0], plan.facts, plan.choice)
        output = budget.output_tokens or left[0].output_tokens
        run.attempt = replace(attempt, rung=left[0], thinking_tokens=budget.thinking_tokens or 0, output_tokens=output)
        return True

    async def _call(self, run: Run) -> None:
        """Spends one reservation; whatever happens, it is settled."""
        attempt, thought, reservation = run.attempt, run.before_thought, run.reservation
        path, body = request(self._ask, self._plan, attempt, thought, self._ledger.granted(reservation))
        pinned = None if run.before is None or attempt.anywhere else self._places.get(run.before.number)
        order = Order(
            pool=attempt.rung.pool.name,
            key=self._ask.reading.prefix,
            path=path,
            body=body,
            pinned=pinned,
            reader=attempt.rung.prefill if pinned is None else None,  # it has the thought in its own cache
        )
        call = self._calls[run.number] = Call(self._host, self._request, order, partial(self._piece, run))
        if self._client.stalled_seconds is not None:
            call.pause()
        before, known = run.tokens, False
        try:
            run.ended = "Complete" if await call.run() else "Cut"
            known = run.ended == "Complete"
        except CallError as error:
            known = not call.begun and not error.died and error.status != 504  # it has written nothing
            raise
        finally:
            del self._calls[run.number]
            self._count_reading(run, call)
            self._places[run.number] = call.endpoint
            tokens = run.tokens - before
            self._ledger.settle(
                reservation,
                prompt_tokens=run.prompt_tokens or (self._plan.facts.prompt_tokens if call.reads else 0),
                tokens=tokens,
                complete=known,
                reads=call.reads,
                fetched=run.fetched,
            )

    def _count_reading(self, run: Run, call: Call) -> None:
        reading, reader = call.reading, run.attempt.rung.prefill
        run.reads += call.reads
        if reading is not None and reader is not None:
            run.fetched, run.prefill = reading.transfer is not None, said_of(reading, reader.name)
            self._host.tally.divided(reader.name, outcome_of(reading))

    def _piece(self, run: Run, piece: Piece) -> bool:
        """One event of an attempt; true cuts it."""
        signal = run.take(piece)
        if run.early and not run.unforced:
            run.unforced = self._unforced(run)
            run.early = not run.unforced
            if run.early:
                self._show_reasoning(run, piece)
                return True
        if signal is not None and self._may_escalate(run):
            run.signal = signal
            return True
        if self._shows(run):
            self._show.reason(piece.reasoning)
            sure = run.watch is None or run.attempt.thinking_tokens > 0 or run.watch.settled
            if run.attempt.show == "all" and sure:
                self._show.text(run)
        return False

    def _shows(self, run: Run) -> bool:
        """The client may see what it says."""
        return run.attempt.show != "nothing" and self._show.streaming and self._show.content in (-1, run.number)

    def _show_reasoning(self, run: Run, piece: Piece) -> None:
        if self._shows(run):
            self._show.reason(piece.reasoning)

    def _unforced(self, run: Run) -> str:
        """Why a thought that has ended cannot go on; empty where it can."""
        attempt, thought = run.attempt, run.thought
        if attempt.rung is not self._plan.rung:
            return "OtherTier"
        if self._tokens is None:
            return "NoTokenizer"
        if thought is None:
            return "NoTokenIds"
        context, now = attempt.rung.pool.context_tokens, self._host.now()
        prompt = len(thought.prompt_ids) + len(thought.token_ids) + MOST_WORD_TOKENS
        price, wanted = Price.of(attempt.rung.pool, attempt.rung.prefill), attempt.output_tokens
        fits = context is None or prompt + wanted <= context
        return "" if fits and self._ledger.room(price, prompt, wanted, now) >= wanted else "NoRoom"

    def _may_escalate(self, run: Run) -> bool:
        """Nothing of the answer has been given yet, and the ceiling has room for another one, wherever it is made."""
        if self._show.content >= 0:
            return False
        wanted, prompt = run.attempt.output_tokens, prompt_bound(run.attempt, self._plan, None) + run.tokens
        prices = [Price.of(rung.pool, rung.prefill) for rung in (run.attempt.rung, *self._climb)]
        now = self._host.now()
        return all(self._ledger.room(price, prompt, wanted, now) >= wanted for price in prices)

    # the answer

    def _answer(self, choice: Choice) -> None:
        run = self._given(choice)
        if run is None:
            self._end_with(self._refusal(choice), "timeout" if choice.why == "SecondsCeiling" else "upstream_error")
            return
        if self._show.content not in (-1, run.number):
            self.fail("the answer that was begun could not be completed")
            return
        used = usage(self._runs, self._plan.strategy, choice.why, run.number)
        used["trimtab"]["seconds"] = round(self._host.now() - self._account.started, 4)
        options = self._ask.body.get("stream_options") or {}
        self._close("ok")
        self._show.finish(run, used, with_usage=bool(options.get("include_usage")))

    def _given(self, choice: Choice) -> Run | None:
        """The attempt whose answer the client gets: the chosen one, else the best of what there is."""
        if choice.number >= 0:
            return self._runs[choice.number]
        if self._show.content >= 0:
            run = self._runs[self._show.content]
            return None if run.ended == "Failed" else run
        answers = [r for r in self._runs if r.attempt.role != "verifier"]
        complete = [r.outcome() for r in answers if r.ended == "Complete"]
        if complete:
            return self._runs[elect(complete)]
        return max((r for r in answers if r.text and r.ended == "Cut"), key=lambda r: len(r.text), default=None)

    def _refusal(self, choice: Choice) -> ApiError | CallError:
        if choice.why in ("SecondsCeiling", "CeilingReached"):
            whose = self._plan.spending.limits.whose(*(("seconds",) if choice.why == "SecondsCeiling" else _AMOUNTS))
            message = f"model: {whose} ceiling was reached before there was an answer; ask for less, or raise it"
            return ApiError(504, message, code="ceiling_reached")
        error = self._error
        if error is not None and error.body and 400 <= error.status < 500:
            return error
        message = "no attempt has an answer" if error is None else error.message
        if error is not None and error.status == 503:
            return ApiError(503, f"model: {message}", code="pool_unavailable", retry_after_seconds=2)
        return ApiError(502, f"model: {message}", code="engine_failed")

    def _end_with(self, error: ApiError | CallError, outcome: str) -> None:
        """An error instead of the answer, in the stream where it has begun."""
        if not self._open:
            return
        if self._show.begun:
            self._close(outcome)
            self._show.break_off(error.message, error.status)
            return
        self._close("rejected" if error.status < 500 else outcome)
        if isinstance(error, ApiError):
            self._client.respond_error(error, self._account.headers())
        else:
            self._client.respond(error.status, error.body, self._account.headers())

    # the worker's and the client's side

    def fail(self, message: str, *, outcome: str = "upstream_error", status: int = 502) -> None:
        """Ends it with an error."""
        self._stop()
        self._end_with(ApiError(status, f"model: {message}", code="engine_failed"), outcome)

    def client_gone(self) -> None:
        """The client closed: every engine must stop at once."""
        self._stop()
        self._close("client_gone")

    def _stop(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def tick(self) -> None:
        """Once a second: time limits."""
        if self._client.stalled_seconds is None:
            for call in list(self._calls.values()):
                call.tick()

    def pause(self) -> None:
        """The client reads too slowly: stop reading the engines."""
        for call in self._calls.values():
            call.pause()

    def resume(self) -> None:
        """The client reads again."""
        for call in self._calls.values():
            call.resume()

    def _close(self, outcome: str) -> None:
        if not self._open:
            return
        self._open = False
        self._host.exchanges.discard(self)
        for run in self._runs:
            if run.attempt.rung.index >= 0:
                self._host.tally.tiers[run.attempt.rung.name].output_tokens += run.tokens + run.reads
        tokens, nanos = sum(run.tokens + run.reads for run in self._runs), sum(run.cost_nanos for run in self._runs)
        self._account.close(outcome, output_tokens=tokens, attempts=len(self._runs), cost=nanos / NANOS)


async def _cut(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Ends what is running, and waits until it has let go of its engines."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
