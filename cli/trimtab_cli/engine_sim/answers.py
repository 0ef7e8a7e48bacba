"""What the simulated model answers: how long, and in which words.

Both are functions of the prompt and the seed, so the same request always gets the same answer. A token is one
pseudo-word of three or four characters with its space; prompts are counted at four characters a token, which is about
right for English and real tokenizers. Reasoning grows with how hard the prompt looks: arithmetic, proofs, code and
length; that is a caricature, but a repeatable one that makes hard traffic cost more.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trimtab_cli.engine_sim.noise import key_of, uniform

CHARACTERS_PER_TOKEN = 4
THINK_START, THINK_END = "<think>", "</think>"
#: How `reasoning_effort` stretches the reasoning; `none` switches it off.
EFFORTS = {"none": 0.0, "minimal": 0.25, "low": 0.5, "medium": 1.0, "high": 1.5, "xhigh": 2.0, "max": 3.0}
AGAIN = 0.25
"""Of its reasoning, what a model thinks at least when it is made to go on with it."""

_HARD_WORDS = re.compile(
    r"\b(prove|proof|derive|solve|integral|equation|theorem|optimi[sz]e|algorithm|complexity|implement|debug|refactor"
    r"|probability|how many|step by step|explain why|analy[sz]e|def|class|function|return)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_HEADS = ("ba", "co", "di", "fe", "ga", "hu", "jo", "ka", "le", "mi", "no", "pa", "ri", "so", "tu", "ve")
_TAILS = ("", "n", "r", "l", "s", "t", "m", "d")
WORDS = tuple(head + tail for head in _HEADS for tail in _TAILS)


def count_tokens(text: str) -> int:
    """Tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def difficulty(prompt: str) -> float:
    """How hard a prompt looks, 0 (small talk) to 1."""
    sample = prompt[:8192]
    words = min(len(_HARD_WORDS.findall(sample)), 6)
    numbers = min(len(_NUMBER.findall(sample)), 8)
    length = min(len(sample) / 4000, 1)
    return min(1.0, 0.11 * words + 0.07 * numbers + 0.25 * length)


def natural_lengths(prompt: str, key: int) -> tuple[int, int]:
    """Tokens of reasoning and of answer that the model would write if nothing stopped it."""
    hardness, chance = difficulty(prompt), 0.6 + 0.8 * uniform(key, -1)
    reasoning = (48 + 1500 * hardness**1.5) * chance
    answer = (24 + 220 * hardness) * (0.6 + 0.8 * uniform(key, -2))
    return int(reasoning), int(answer)


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request asks of one answer. `max_tokens` is the room that is left: never None."""

    max_tokens: int
    min_tokens: int = 0
    thinks: bool = False
    effort: str = "medium"
    thinking_budget: int | None = None
    thought_tokens: int = 0
    """Reasoning that the prompt holds already, and that goes on."""
    ignore_eos: bool = False
    stop: Sequence[str] = ()
    keep_stop: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer: its text, and whether it is reasoning or the marker that ends reasoning."""

    text: str
    reasoning: bool = False
    marker: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A planned answer; `tokens` yields its text piece by piece."""

    key: int
    reasoning_tokens: int
    marker_tokens: int
    content_tokens: int
    finish_reason: str
    stop_reason: str | None = None
    stopped: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def output_tokens(self) -> int:
        """All tokens written, the end-of-reasoning marker included."""
        return self.reasoning_tokens + self.marker_tokens + self.content_tokens

    def tokens(self, start: int, stop: int) -> Iterator[Token]:
        """The tokens from one position up to another."""
        for position in range(start, min(stop, self.output_tokens)):
            yield self._token(position)

    def _token(self, position: int) -> Token:
        reasoning = position < self.reasoning_tokens
        marker = self.reasoning_tokens <= position < self.reasoning_tokens + self.marker_tokens
        plain = THINK_END if marker else word(self.key, position)
        return Token(plain if self.stopped is None else self.stopped[position], reasoning, marker)


def word(key: int, position: int) -> str:
    """The pseudo-word at that position."""
    return WORDS[int(uniform(key, position) * len(WORDS))] + " "


def plan_answer(prompt: str, key: int, wish: Wish) -> Answer:
    """The answer to a prompt within what the request asks.

    The budget caps the reasoning as vLLM does: when it is spent, the marker that ends reasoning is written next, one
    token that is not counted as reasoning. The marker of a model that thinks is in its prompt and costs nothing.
    """
    reasoning, content = natural_lengths(prompt, key)
    reasoning = int(reasoning * EFFORTS[wish.effort]) if wish.thinks else 0
    if wish.thought_tokens:
        reasoning = max(reasoning - wish.thought_tokens, int(reasoning * AGAIN))
    if wish.thinking_budget is not None and wish.thinking_budget >= 0:
        reasoning = min(reasoning, max(wish.thinking_budget - wish.thought_tokens, 0))
    marker = int(wish.thinks)
    content = max(content, 1, wish.min_tokens - reasoning - marker)
    if wish.ignore_eos:
        content = max(content, wish.max_tokens - reasoning - marker)
    answer = _fit(key, reasoning, marker, content, wish)
    return _stop(answer, wish) if wish.stop else answer


def _fit(key: int, reasoning: int, marker: int, content: int, wish: Wish) -> Answer:
    """The answer cut at `max_tokens`."""
    cut = wish.ignore_eos or reasoning + marker + content > wish.max_tokens
    reasoning = min(reasoning, wish.max_tokens)
    marker = min(marker, wish.max_tokens - reasoning)
    content = min(content, wish.max_tokens - reasoning - marker)
    return Answer(key, reasoning, marker, content, "length" if cut else "stop")


def _stop(answer: Answer, wish: Wish) -> Answer:
    """The answer cut at the first stop string that its text contains, reasoning included, as vLLM does."""
    texts: list[str] = []
    text = ""
    for position, token in enumerate(answer.tokens(0, answer.output_tokens)):
        texts.append(token.text)
        text += token.text
        if position + 1 < wish.min_tokens:
            continue
        hits = [(text.find(stop, max(0, len(text) - len(token.text) - len(stop))), stop) for stop in wish.stop]
        hits = [hit for hit in hits if hit[0] >= 0]
        if hits:
            at, stop = min(hits)
            _trim(texts, len(text) - at - (len(stop) if wish.keep_stop else 0))
            return _cut(answer, tuple(texts), stop)
    return answer


def _trim(texts: list[str], surplus: int) -> None:
    """Take that many characters off the end of the texts together; tokens may become empty but stay."""
    for index in range(len(texts) - 1, -1, -1):
        taken = min(surplus, len(texts[index]))
        texts[index] = texts[index][: len(texts[index]) - taken]
        surplus -= taken


def _cut(answer: Answer, texts: tuple[str, ...], stop: str) -> Answer:
    count = len(texts)
    reasoning = min(answer.reasoning_tokens, count)
    marker = min(answer.marker_tokens, count - reasoning)
    return Answer(answer.key, reasoning, marker, count - reasoning - marker, "stop", stop, texts)


def logprob(answer: Answer, position: int, rank: int) -> float:
    """A plausible log probability of the token at that position (rank 0) or of an alternative (rank 1 and up)."""
    return -0.02 - uniform(answer.key ^ 0x5DEECE66D, position) * 0.6 - 1.3 * rank


def answer_key(*, prompt: str, engine_seed: int, seed: int | None, index: int) -> int:
    """What an answer is drawn from: the prompt, the engine's seed, the request's seed, and which of its `n` it is."""
    return key_of(prompt, engine_seed, seed, index)
