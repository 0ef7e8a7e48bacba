"""One attempt's request to an engine, within what the ceiling grants it. Always streamed: it can be watched and cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from trimtab_crds.strategyspec import Signal
from trimtab_router.core.parse import Ask
from trimtab_router.core.plan import Plan, priced
from trimtab_router.core.read import encode
from trimtab_router.core.rewrite import rewritten
from trimtab_router.core.spending import most_prompt_tokens, shrunk
from trimtab_router.core.strategies.script import Attempt

CHAT: Final = b"/v1/chat/completions"
COMPLETIONS: Final = b"/v1/completions"
_STREAM: Final = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
#: Fields of a chat request that mean the same for its text's continuation.
_SAMPLING: Final = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "logit_bias", "bad_words"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "min_tokens", "ignore_eos", "priority"),
    *("allowed_token_ids", "session_id", "cache_salt", "vllm_xargs", "user"),
)

#: Answers with a grammar begin again instead: their thought cannot be continued as plain text.
_SHAPED: Final = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice")


MOST_WORD_TOKENS: Final = 64 * 4
"""Of the text that makes a thought go on: UTF-8 bytes of its most characters, for no token is shorter."""


@dataclass(frozen=True, slots=True)
class Thought:
    """What an attempt has thought, as the engine's own tokens."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]

    def going_on(self, forced: "Forced") -> "Thought":
        """Without its end, and with the word that follows instead."""
        return Thought(self.prompt_ids, (*without(self.token_ids, forced.end_ids), *forced.word_ids))


@dataclass(frozen=True, slots=True)
class Forced:
    """The tokens of a word that makes a thought go on, and of the mark that ends thoughts."""

    word_ids: tuple[int, ...]
    end_ids: tuple[int, ...]


def without(ids: tuple[int, ...], end: tuple[int, ...]) -> tuple[int, ...]:
    """What comes before `end`; an event may carry the end of a thought, and more."""
    for at in range(len(ids) - len(end) + 1):
        if end and ids[at : at + len(end)] == end:
            return ids[:at]
    return ids


def wanted_tokens(attempt: Attempt, thought: Thought | None) -> int:
    """What the attempt may write when nothing but its budget bounds it."""
    done = 0 if thought is None else len(thought.token_ids)
    return max(attempt.thinking_tokens - done, 0) + attempt.output_tokens


def prompt_bound(attempt: Attempt, plan: Plan, thought: Thought | None) -> int:
    """The most prompt tokens that the attempt can have."""
    if thought is not None:
        return len(thought.prompt_ids) + len(thought.token_ids)
    if attempt.messages is None:
        return most_prompt_tokens(plan.facts)
    return len(encode(attempt.messages))


def request(ask: Ask, plan: Plan, attempt: Attempt, thought: Thought | None, granted: int) -> tuple[bytes, bytes]:
    """Path and body."""
    if thought is not None:
        return COMPLETIONS, encode(_continued(ask, plan, attempt, thought, granted))
    return CHAT, encode(_asked(ask, plan, attempt, granted))


def _asked(ask: Ask, plan: Plan, attempt: Attempt, granted: int) -> dict[str, Any]:
    budget = priced(attempt.rung, plan.facts, attempt.thinking_tokens, attempt.output_tokens)
    at = replace(plan, rung=attempt.rung, budget=budget)
    if granted < attempt.thinking_tokens + attempt.output_tokens:
        at = replace(at, budget=shrunk(at, granted))
    if attempt.role == "verifier":
        ask = replace(ask, body={"messages": attempt.messages})
    body, _ = rewritten(ask, at)
    if attempt.messages is not None:
        body["messages"] = attempt.messages
    for name, value in attempt.options.items():
        own = body.get(name)
        body[name] = value if own is None else own + value if name == "seed" else own
    body.pop("max_tokens", None)
    body |= _STREAM | {"max_completion_tokens": _within_context(at, granted)}
    body |= _seen(attempt, logprobs=True)
    if any(body.get(name) for name in _SHAPED):
        body.pop("return_token_ids", None)
    return body


def _within_context(plan: Plan, tokens: int) -> int:
    """The engine refuses a cap that cannot fit; the prompt may have a quarter more tokens than estimated."""
    context, prompt = plan.rung.pool.context_tokens, plan.facts.prompt_tokens
    return tokens if context is None else max(min(tokens, context - prompt - prompt // 4), 1)


def _continued(ask: Ask, plan: Plan, attempt: Attempt, thought: Thought, granted: int) -> dict[str, Any]:
    """The same thought, token by token, so that the replica's prefix cache has all of it."""
    body = {name: value for name in _SAMPLING if (value := ask.body.get(name)) is not None}
    for name in plan.rung.pool.drops_sampling:
        body.pop(name, None)
    done, context = len(thought.token_ids), attempt.rung.pool.context_tokens
    prompt = [*thought.prompt_ids, *thought.token_ids]
    most = granted if context is None else max(min(granted, context - len(prompt)), 1)
    spare = most - min(attempt.output_tokens, (most + 1) // 2)  # a thought must leave room for its answer
    body |= _STREAM | {
        "model": attempt.rung.pool.served_name,
        "prompt": prompt,
        "max_tokens": most,
        "thinking_token_budget": min(attempt.thinking_tokens, done + spare),
        "skip_special_tokens": False,
    }
    return body | _seen(attempt, logprobs=0)


def _seen(attempt: Attempt, *, logprobs: bool | int) -> dict[str, Any]:
    """What the engine must tell for the attempt to be watched."""
    told: dict[str, Any] = {}
    if attempt.measure or Signal.LOW_CONFIDENCE in attempt.watch:
        told["logprobs"] = logprobs
    goes_on = attempt.word or attempt.least_thinking_tokens or Signal.BUDGET_EXHAUSTED in attempt.watch
    if goes_on and attempt.rung.pool.thinking_end is not None:
        told["return_token_ids"] = True
    return told


def joined(before: Thought | None, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> Thought | None:
    """The thought after an attempt; None where the engine did not tell its tokens."""
    start = before or Thought(tuple(prompt_ids), ())
    if not start.prompt_ids or not token_ids:
        return None
    return Thought(start.prompt_ids, (*start.token_ids, *token_ids))
