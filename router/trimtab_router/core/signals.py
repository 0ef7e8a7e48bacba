"""What a partial answer says about itself: unsure, repeating, going round in circles, out of budget."""

import math
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from trimtab_crds.strategyspec import Signal
from trimtab_crds.wire import EscalationConfig

TAIL_CHARS: Final = 2400
LEAST_PERIOD_CHARS: Final = 12
REPEATS: Final = 4
TURNS: Final = 6
"""Turns within `TAIL_CHARS` of reasoning: once every 400 characters is thinking, more often is wandering."""
TEMPLATE_TOKENS: Final = 2
"""Of a thinking budget, what the chat template itself takes after the mark that begins reasoning (vLLM counts it)."""
_TURN: Final = re.compile(
    r"\b(?:wait|hmm+|alternatively|on second thought|actually, no"
    r"|let me (?:re-?check|reconsider|try (?:again|another)))\b",
    re.IGNORECASE,
)


def confidence(logprobs: Sequence[float]) -> float:
    """Mean token probability, 0 to 1: the geometric mean, which is what a mean of logprobs is."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 1.0


def repeats(text: str) -> bool:
    """The text ends in the same piece, at least `LEAST_PERIOD_CHARS` long, `REPEATS` times in a row."""
    end = len(text)
    for period in range(LEAST_PERIOD_CHARS, end // REPEATS + 1):
        piece = text[end - period :]
        if all(text.startswith(piece, end - period * k) for k in range(2, REPEATS + 1)):
            return True
    return False


def turns(text: str) -> int:
    """How often reasoning turns around."""
    return len(_TURN.findall(text))


@dataclass(slots=True)
class Watch:
    """Follows one answer as it comes. Feed it every piece; it answers with the signal that counts, if any.

    A signal counts when it has held for `patience_tokens` in a row. The budget's end needs no patience: it
    happens once.
    """

    config: EscalationConfig
    signals: frozenset[Signal]
    thinking_tokens: int
    """The thinking budget of the attempt; 0 where it does not think."""
    _window: deque[float] = field(default_factory=deque)
    _sum: float = 0.0
    _tail: str = ""
    _held: dict[Signal, int] = field(default_factory=dict)
    _seen: int = 0
    tokens: int = 0
    reasoning_tokens: int = 0

    def feed(self, text: str, logprobs: Sequence[float], tokens: int, *, reasoning: bool) -> Signal | None:
        """One event: its text, the log probabilities of its tokens, their number, and which part it belongs to."""
        self.tokens += tokens
        if reasoning:
            self.reasoning_tokens += tokens
        self._remember(text, logprobs)
        if not reasoning and self._spent():
            return Signal.BUDGET_EXHAUSTED
        for signal in self._holding(reasoning):
            self._held[signal] = self._held.get(signal, 0) + tokens
            if self._held[signal] >= self.config.patience_tokens:
                return signal
        return None

    @property
    def settled(self) -> bool:
        """Enough was seen without a signal for what does not think: what was held back may go."""
        return self._seen >= self.config.window_tokens + self.config.patience_tokens

    def _remember(self, text: str, logprobs: Sequence[float]) -> None:
        self._tail = (self._tail + text)[-TAIL_CHARS:]
        for value in logprobs:
            self._window.append(value)
            self._sum += value
            if len(self._window) > self.config.window_tokens:
                self._sum -= self._window.popleft()
        self._seen += max(len(logprobs), 1)

    def _spent(self) -> bool:
        spent = self.reasoning_tokens + TEMPLATE_TOKENS >= self.thinking_tokens > 0
        return spent and Signal.BUDGET_EXHAUSTED in self.signals

    def _holding(self, reasoning: bool) -> Iterable[Signal]:
        """Signals that hold now; one that does not starts again from nothing."""
        holds = {
            Signal.LOW_CONFIDENCE: self._unsure(),
            Signal.REPETITION: Signal.REPETITION in self.signals and repeats(self._tail),
            Signal.BRANCHING: reasoning and turns(self._tail) >= TURNS,
        }
        found = [signal for signal, now in holds.items() if now and signal in self.signals]
        for signal in holds.keys() - set(found):
            self._held.pop(signal, None)
        return found

    def _unsure(self) -> bool:
        if len(self._window) < self.config.window_tokens:
            return False
        return math.exp(self._sum / len(self._window)) * 100 < self.config.confidence_percent
