"""What strategies are made of: attempts, their outcomes, and what a script may know of the query."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab_crds.strategyspec import Signal
from trimtab_crds.wire import EscalationConfig, StrategyConfig
from trimtab_router.core.answers import Answer, normalise
from trimtab_router.core.ladder import Rung
from trimtab_router.core.plan import Plan, budget_on, others

Role = Literal["answer", "sample", "form", "revision", "verifier", "escalation", "continuation"]
Ended = Literal["Complete", "Cut", "Failed", "CeilingReached"]
Show = Literal["all", "reasoning", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One upstream call to make. Attempts are numbered in the order in which they are yielded."""

    rung: Rung
    role: Role
    thinking_tokens: int
    output_tokens: int
    messages: Sequence[Any] | None = None
    """None: those of the request."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Body fields that the request does not set itself."""
    show: Show = "nothing"
    """What of a stream goes to the client as it comes."""
    watch: frozenset[Signal] = frozenset()
    """Signals at which it is cut."""
    measure: bool = False
    """The mean token probability is wanted."""
    resumes: int | None = None
    """The attempt whose thought it continues, on the same replica."""
    anywhere: bool = False
    """Any other replica of the pool may continue it, too."""
    least_thinking_tokens: int = 0
    """It is cut where its whole thought ends before."""
    word: str = ""
    """What follows the thought that it continues, in place of the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended."""

    number: int
    ended: Ended
    text: str = ""
    reasoning: str = ""
    signal: Signal | None = None
    confidence: float | None = None
    resumable: bool = False
    """Its thought can be continued where it ran."""
    early: bool = False
    """It was cut because its thought had ended too early."""
    unforced: str = ""
    """Why it was not cut, or not begun, although its thought had ended too early."""
    begun: bool = False
    """The client has some of its answer, so that no other one can be given."""

    @property
    def ok(self) -> bool:
        """It has an answer."""
        return self.ended == "Complete"

    @property
    def answer(self) -> Answer:
        """The answer, normalised."""
        return normalise(self.text)


@dataclass(frozen=True, slots=True)
class Choice:
    """The end of a script: which attempt's answer is given, -1 for none, and why."""

    number: int
    why: str


Script = Generator[Sequence[Attempt], Outcome, Choice]


@dataclass(frozen=True, slots=True)
class Query:
    """What a script may know."""

    plan: Plan
    messages: Sequence[Any]
    text: str
    """The question in words, for a verifier."""
    verifier: Rung | None = None

    @property
    def strategy(self) -> StrategyConfig:
        """The plan's strategy."""
        return self.plan.spending.strategy

    @property
    def escalation(self) -> EscalationConfig:
        """What may escalate."""
        return self.plan.spending.escalation

    @property
    def climb(self) -> tuple[Rung, ...]:
        """Stronger tiers that hold the prompt, nearest first; none where the tier was asked for by hand."""
        plan = self.plan
        if plan.choice.strict:
            return ()
        return tuple(r for r in others(plan.rung, plan.facts, plan.ladder) if r.index > plan.rung.index)

    def attempt(self, rung: Rung, role: Role, **how: Any) -> Attempt:
        """An attempt with the query's budget on a tier."""
        budget = budget_on(rung, self.plan.facts, self.plan.choice)
        standard = {
            "thinking_tokens": budget.thinking_tokens or 0,
            "output_tokens": budget.output_tokens or rung.output_tokens,
        }
        return Attempt(rung=rung, role=role, **(standard | how))

    def sampled(self, rung: Rung, role: Role, index: int, **how: Any) -> Attempt:
        """One of several attempts that must differ."""
        options = {"temperature": self.strategy.temperature_percent / 100, "seed": index}
        return self.attempt(rung, role, options=options, **how)


def instructed(messages: Sequence[Any], text: str) -> list[Any]:
    """The messages with an instruction at the end of the last one of the user, where every chat template keeps it."""
    changed = list(messages)
    last = changed[-1]
    content = last.get("content") if last.get("role") == "user" else None
    if isinstance(content, str):
        changed[-1] = {**last, "content": f"{content}\n\n{text}"}
    elif isinstance(content, list):
        changed[-1] = {**last, "content": [*content, {"type": "text", "text": text}]}
    else:
        changed.append({"role": "user", "content": text})
    return changed
