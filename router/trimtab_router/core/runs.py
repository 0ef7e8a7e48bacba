"""Attempts as they run, and the account of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab_crds.strategyspec import Signal
from trimtab_router.core.attempts import Forced, Thought, joined
from trimtab_router.core.ceiling import NANOS, Price
from trimtab_router.core.events import Piece, Splitter
from trimtab_router.core.signals import TEMPLATE_TOKENS, Watch, confidence
from trimtab_router.core.strategies.script import Attempt, Ended, Outcome


@dataclass(slots=True, kw_only=True)
class Run:
    """One attempt from its start to its end."""

    number: int
    attempt: Attempt
    before: "Run | None" = None
    """The attempt whose thought it continues."""
    forced: Forced | None = None
    """The tokens with which that thought goes on, where it had ended."""
    watch: Watch | None = None
    reservation: int = 0
    """Its number in the ledger."""
    text: str = ""
    reasoning: str = ""
    shown: int = 0
    """Characters of `text` that the client has."""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    lost_tokens: int = 0
    """Of `tokens`, those of replicas that died before the answer was there."""
    reasoning_tokens: int = 0
    seconds: float = 0.0
    ended: Ended = "Cut"
    signal: Signal | None = None
    early: bool = False
    """Its thought has ended too early; where it stays so, it is cut."""
    unforced: str = ""
    """Why its thought does not go on although it ended too early."""
    prompt_ids: tuple[int, ...] = ()
    thought_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tried: set[int] = field(default_factory=set)
    """Tiers whose pool had no room for it."""
    splitter: Splitter | None = None
    reads: int = 0
    """Replicas of a prefill pool that have read its prompt; each wrote a token."""
    fetched: bool = False
    prefill: str = ""
    """The pool that has read its prompt, or why none has."""

    def take(self, piece: Piece) -> Signal | None:
        """One event; the signal that asks for more, if it counts now."""
        new = self._count(piece)
        if self.splitter is not None and (piece.text or piece.finish_reason is not None):
            self._split(piece, self.splitter)
        self.early = self._ends_early(piece) if new else self.early
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.prompt_ids = self.prompt_ids or piece.prompt_ids
        self.finish_reason = piece.finish_reason or self.finish_reason
        if piece.thinks:
            self.reasoning_tokens += new
            self.thought_ids += piece.token_ids
        if self.attempt.measure:
            self.logprobs += piece.logprobs
        if self.watch is None or not new:
            return None
        return self.watch.feed(piece.reasoning + piece.text, piece.logprobs, new, reasoning=piece.thinks)

    def _split(self, piece: Piece, splitter: Splitter) -> None:
        """What the engine has not parsed; the word that the thought goes on with comes before it."""
        thought = not splitter.answering
        piece.reasoning, piece.text = splitter.feed(piece.text)
        piece.thinks = thought and (bool(piece.reasoning) or not splitter.answering)
        if piece.finish_reason is not None and not splitter.answering:
            piece.reasoning += splitter.rest()
        if self.attempt.word and not self.reasoning:
            piece.reasoning = self.attempt.word + piece.reasoning

    def _ends_early(self, piece: Piece) -> bool:
        """The event ends a thought that is too short, without the budget's help."""
        least = self.attempt.least_thinking_tokens
        if not least or self.unforced or self.text or not self.reasoning_tokens or (piece.thinks and not piece.text):
            return False
        before = self.before_thought
        tokens = self.reasoning_tokens + (0 if before is None else len(before.token_ids))
        return tokens < least and tokens + TEMPLATE_TOKENS < self.attempt.thinking_tokens

    def _count(self, piece: Piece) -> int:
        """Tokens of the event: by the engine's running count, else one where there is text."""
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        if piece.completion_tokens is None:
            total = self.tokens + (len(piece.token_ids) or bool(piece.text or piece.reasoning))
        else:
            total = self.lost_tokens + piece.completion_tokens
        new, self.tokens = max(total - self.tokens, 0), max(total, self.tokens)
        return new

    def restart(self) -> None:
        """Begins again on another replica; what was written so far is lost, and paid for."""
        self.lost_tokens = self.tokens
        self.text = self.reasoning = self.unforced = ""
        self.early = False
        self.thought_ids, self.logprobs = [], []
        if self.watch is not None:
            self.watch = Watch(self.watch.config, self.watch.signals, self.watch.thinking_tokens)
        if self.splitter is not None:
            self.splitter = self.splitter.fresh()

    @property
    def before_thought(self) -> Thought | None:
        """What it continues."""
        thought = None if self.before is None else self.before.thought
        return thought if thought is None or self.forced is None else thought.going_on(self.forced)

    @property
    def thought(self) -> Thought | None:
        """The thought so far, to be continued where it ran."""
        return joined(self.before_thought, self.prompt_ids, self.thought_ids)

    @property
    def whole_reasoning(self) -> str:
        """With what it continues."""
        return (self.before.whole_reasoning if self.before else "") + self.reasoning

    def outcome(self) -> Outcome:
        """For the script."""
        return Outcome(
            number=self.number,
            ended=self.ended,
            text=self.text,
            reasoning=self.reasoning,
            signal=self.signal,
            confidence=confidence(self.logprobs) if self.logprobs else None,
            resumable=self.attempt.rung.pool.thinking_end is not None and self.thought is not None,
            early=self.early and self.ended == "Cut",
            unforced=self.unforced,
            begun=self.shown > 0,
        )

    @property
    def cost_nanos(self) -> int:
        """Price of what it used."""
        rung = self.attempt.rung
        price = Price.of(rung.pool, rung.prefill)
        return price.nanos(self.prompt_tokens, self.tokens, reads=self.reads, fetched=self.fetched)

    def account(self) -> dict[str, Any]:
        """Its line in `usage.trimtab.attempts`."""
        rung = self.attempt.rung
        line = {
            "role": self.attempt.role,
            "tier": rung.name,
            "pool": rung.pool.name,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "seconds": round(self.seconds, 4),
            "cost": self.cost_nanos / NANOS,
            "ended": self.ended,
        }
        line |= {"prefill": self.prefill, "prefill_tokens": self.reads} if self.prefill else {}
        signal = "EndedEarly" if self.early else self.signal
        return line if signal is None else line | {"signal": str(signal)}


def usage(runs: Sequence[Run], strategy: str, why: str, winner: int) -> dict[str, Any]:
    """OpenAI's usage as the sum over all attempts, and their account."""
    prompt, completion = sum(r.prompt_tokens for r in runs), sum(r.tokens for r in runs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": sum(r.reasoning_tokens for r in runs)},
        "trimtab": {
            "strategy": strategy,
            "ended": why,
            "winner": winner,
            "cost": sum(r.cost_nanos for r in runs) / NANOS,
            "attempts": [r.account() for r in runs],
        },
    }


def completion(identity: dict[str, Any], run: Run, used: dict[str, Any]) -> dict[str, Any]:
    """The whole answer as one object."""
    message = {"role": "assistant", "content": run.text or None, "reasoning": run.whole_reasoning or None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": run.finish_reason or "length"}
    return {**identity, "object": "chat.completion", "choices": [choice], "usage": used}


def chunk(identity: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**identity, "object": "chat.completion.chunk", "choices": [choice]}
