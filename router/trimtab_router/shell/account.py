"""What one query leaves behind however it is answered: demand, headers, counts, and its line in the decision log."""

from typing import Protocol

from trimtab_router.core.costs import price
from trimtab_router.core.decisions import Ending, decision
from trimtab_router.core.disaggregated import Reading, outcome_of, said_of
from trimtab_router.core.parse import Ask
from trimtab_router.core.plan import SINGLE, Plan, strategy_header
from trimtab_router.core.tally import Tally
from trimtab_router.shell.decisionlog import DecisionLog
from trimtab_router.shell.request import Request


class Host(Protocol):
    """The worker, as far as an account needs it."""

    tally: Tally
    log: DecisionLog | None

    def now(self) -> float:
        """Monotonic seconds."""


class Account:
    """Opened with the plan, closed once with the outcome. `plan` changes only by `fall_back`."""

    __slots__ = ("_host", "_query", "_request_id", "_tier", "plan", "reading", "reads", "started")

    def __init__(self, host: Host, request: Request, ask: Ask, plan: Plan) -> None:
        self._host = host
        self._request_id = request.headers[b"x-request-id"]
        self._query = "" if host.log is None else host.log.fingerprint(ask.reading.query)
        self._tier = host.tally.tiers[plan.tier]
        self.plan = plan
        self.reading: Reading | None = None
        """How the prompt was read, where another pool shall read it."""
        self.reads = 0
        """Replicas of prefill pools that have read it, over all attempts; each wrote a token."""
        self.started = host.now()
        """Monotonic seconds."""

    def open(self, answers: int = 1) -> None:
        """Counts the demand: that many answers are wanted of the tier that the plan would take if it had room."""
        plan, wanted = self.plan, self._host.tally.tiers[self.plan.demand]
        wanted.admitted += 1
        wanted.prompt_tokens += plan.facts.prompt_tokens * answers
        wanted.output_expected += plan.expected_output_tokens() * answers
        self._tier.inflight += 1

    def fall_back(self, plan: Plan) -> None:
        """Another tier serves the query."""
        self.plan = plan
        self.reading = None
        self._tier.inflight -= 1
        self._tier = self._host.tally.tiers[plan.tier]
        self._tier.inflight += 1

    def read(self, pool: str, reading: Reading) -> None:
        """The prompt was read by another pool, or was not."""
        self.reading = reading
        self.reads += reading.reads
        self._host.tally.divided(pool, outcome_of(reading))

    def begun(self) -> None:
        """The client gets the first of the answer."""
        self._tier.ttft.observe(self._host.now() - self.started)

    def headers(self, dropped: tuple[str, ...] = ()) -> bytes:
        """Header lines that the router adds to every answer, each with a CRLF before it."""
        plan = self.plan
        thinking = plan.budget.thinking_tokens
        text = (
            f"\r\nx-trimtab-tier: {plan.tier}\r\nx-trimtab-class: {plan.class_name}"
            f"\r\nx-trimtab-budget: {'unset' if thinking is None else thinking}"
            f"\r\nx-trimtab-reason: {plan.reason}\r\nx-trimtab-pool: {plan.pool}"
        )
        if plan.spending is not SINGLE:
            text += strategy_header(plan)
        if self.reading is not None and plan.rung.prefill is not None:
            text += f"\r\nx-trimtab-prefill: {said_of(self.reading, plan.rung.prefill.name)}"
        if dropped:
            text += f"\r\nx-trimtab-dropped: {', '.join(dropped)}"
        return text.encode() + b"\r\nx-request-id: " + self._request_id

    def close(self, outcome: str, *, output_tokens: int, attempts: int, cost: float | None = None) -> None:
        """The query has ended; what engines wrote is counted on their tiers by the caller.

        `cost` in currency units; None for one answer of the plan's own pool.
        """
        plan, log = self.plan, self._host.log
        seconds = self._host.now() - self.started
        self._tier.inflight -= 1
        self._tier.seconds.observe(seconds)
        self._host.tally.ended(plan.tier, plan.class_name, plan.reason, outcome)
        if log is None:
            return
        ending = Ending(
            at=log.clock(),
            request_id=self._request_id.decode("latin-1"),
            query=self._query,
            outcome=outcome,
            seconds=seconds,
            output_tokens=output_tokens,
            attempts=attempts,
            cost=self._cost(output_tokens) if cost is None else cost,
        )
        log.put(decision(plan, ending))

    def _cost(self, output_tokens: int) -> float:
        """Of one answer of the plan's own pool, and of the reading elsewhere."""
        rung, prompt, reading = self.plan.rung, self.plan.facts.prompt_tokens, self.reading
        if rung.prefill is None or reading is None:
            return price(rung.pool, prompt, output_tokens)
        own = price(rung.pool, 0 if reading.transfer is not None else prompt, output_tokens - self.reads)
        return own + self.reads * price(rung.prefill, prompt, 1)
