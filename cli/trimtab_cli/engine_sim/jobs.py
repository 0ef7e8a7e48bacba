"""From a checked request to planned answers, and from their tokens to what the client sees."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trimtab_cli.engine_sim import protocol, responses
from trimtab_cli.engine_sim.answers import (
    CHARACTERS_PER_TOKEN,
    Answer,
    Wish,
    answer_key,
    plan_answer,
)
from trimtab_cli.engine_sim.prefixes import block_hashes
from trimtab_cli.engine_sim.responses import Envelope, Json, Shown, Spent
from trimtab_cli.engine_sim.settings import Settings


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the engine sees it."""

    raw: protocol.RawPrompt
    blocks: tuple[int, ...]
    max_tokens: int

    @property
    def text(self) -> str:
        """What it says."""
        return self.raw.text

    @property
    def tokens(self) -> int:
        """How many there are."""
        return self.raw.tokens

    @property
    def digest(self) -> str:
        """Names the text."""
        return hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Planned:
    """One answer to write: which choice it is, for which prompt, and how it is shown."""

    index: int
    prompt: Prompt
    answer: Answer
    shown: Shown


class Under(Protocol):
    """An answer under way, as far as its response needs it."""

    @property
    def written_tokens(self) -> int:
        """Tokens that exist."""

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came out of the prefix cache."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request that passed all checks."""

    request: protocol.Request
    envelope: Envelope
    prompts: tuple[Prompt, ...]
    planned: tuple[Planned, ...]
    splits_reasoning: bool
    tells_cached: bool
    block_tokens: int

    def choice(self, planned: Planned, finish_reason: str, written: int) -> Json:
        """The whole choice of one answer."""
        build = responses.chat_choice if self.envelope.chat else responses.completion_choice
        return build(planned.index, planned.answer, finish_reason, planned.shown, written)

    def deltas(self, planned: Planned, start: int, stop: int, finish_reason: str | None) -> list[Json]:
        """The choices of the events for a run of tokens of one answer."""
        build = responses.chat_delta if self.envelope.chat else responses.completion_delta
        return build(planned.index, planned.answer, start, stop, finish_reason=finish_reason, shown=planned.shown)

    def usage(self, under: Sequence[Under], *, streamed: bool = False, shown: Sequence[int] | None = None) -> Json:
        """What the request has used; of a stream that is under way, as far as the client is `shown` tokens."""
        written = [item.written_tokens for item in under] if shown is None else shown
        reasoning = [
            min(planned.answer.reasoning_tokens, tokens) for planned, tokens in zip(self.planned, written, strict=True)
        ]
        spent = Spent(
            prompt=sum(prompt.tokens for prompt in self.prompts),
            completion=sum(written),
            reasoning=sum(reasoning) if self.splits_reasoning else None,
            cached=self._cached(under) if self.tells_cached else None,
            block_tokens=self.block_tokens,
        )
        return spent.usage(streamed=streamed)

    def _cached(self, under: Sequence[Under]) -> int:
        """Of a prompt that another engine has read, what that one had cached; else what was cached here."""
        params = self.request.kv_transfer_params or {}
        told = params.get("remote_prefill_cached_tokens") if params.get("do_remote_prefill") else None
        return told if isinstance(told, int) else max(item.cached_tokens for item in under)


def chat_job(request: protocol.ChatRequest, settings: Settings, *, request_id: str) -> Job:
    """The job of a chat request; raises ApiError."""
    model = protocol.check_model(request, settings)
    thinks = protocol.chat_thinks(request, settings)
    field, asked = request.output_limit
    raw = protocol.raw_prompt(protocol.render_chat(request, thinks=thinks))
    prompt = _prompt(raw, settings, field=field, asked=asked, default=None)
    top = request.top_logprobs or 0 if request.logprobs else None
    protocol.check_sampling(request, limit=prompt.max_tokens, logprobs=top)
    effort = request.reasoning_effort or "medium"
    wish = _wish(request, prompt, thinks=thinks, effort=effort, budget=protocol.check_budget(request, settings))
    shown = Shown(top, request.include_reasoning, ids=_ids(request, raw))
    return _job(
        request,
        _envelope(f"chatcmpl-{request_id}", model, settings, chat=True),
        _plans(request, [(prompt, wish, shown)], settings),
        settings,
    )


def completion_job(request: protocol.CompletionRequest, settings: Settings, *, request_id: str) -> Job:
    """The job of a text completion request; raises ApiError."""
    model = protocol.check_model(request, settings)
    rows = []
    for raw in request.prompts:
        prompt = _prompt(
            raw,
            settings,
            field="max_tokens",
            asked=request.max_tokens,
            default=protocol.DEFAULT_COMPLETION_TOKENS,
        )
        protocol.check_sampling(request, limit=prompt.max_tokens, logprobs=request.logprobs)
        budget = protocol.check_budget(request, settings)
        thinks = protocol.completion_thinks(raw.text, settings)
        wish = _wish(request, prompt, thinks=thinks, effort="medium", budget=budget)
        wish = replace(wish, thought_tokens=raw.thought_tokens if thinks else 0)
        shown = Shown(request.logprobs, echo=raw.text if request.echo else "", ids=_ids(request, raw))
        rows.append((prompt, wish, shown))
    envelope = _envelope(f"cmpl-{request_id}", model, settings, chat=False)
    return _job(request, envelope, _plans(request, rows, settings), settings)


def _ids(request: protocol.Request, raw: protocol.RawPrompt) -> tuple[int, ...] | None:
    return raw.ids if request.return_token_ids else None


def _prompt(
    raw: protocol.RawPrompt, settings: Settings, *, field: str, asked: int | None, default: int | None
) -> Prompt:
    limit = protocol.check_length(raw.tokens, settings, field=field, asked=asked, default=default)
    blocks = block_hashes(raw.text, settings.engine.block_tokens * CHARACTERS_PER_TOKEN)
    return Prompt(raw, blocks, limit)


def _wish(request: protocol.Request, prompt: Prompt, *, thinks: bool, effort: str, budget: int | None) -> Wish:
    return Wish(
        max_tokens=prompt.max_tokens,
        min_tokens=request.min_tokens,
        thinks=thinks,
        effort=effort,
        thinking_budget=budget,
        ignore_eos=request.ignore_eos,
        stop=request.stops,
        keep_stop=request.include_stop_str_in_output,
    )


def _plans(
    request: protocol.Request, rows: Sequence[tuple[Prompt, Wish, Shown]], settings: Settings
) -> tuple[Planned, ...]:
    planned: list[Planned] = []
    for prompt, wish, shown in rows:
        for sample in range(request.samples):
            key = answer_key(prompt=prompt.text, engine_seed=settings.seed, seed=request.seed, index=sample)
            planned.append(Planned(len(planned), prompt, plan_answer(prompt.text, key, wish), shown))
    return tuple(planned)


def _envelope(identity: str, model: str, settings: Settings, *, chat: bool) -> Envelope:
    return Envelope(identity, int(time.time()), model, f"vllm-{settings.version}-simulated", chat)


def _job(request: protocol.Request, envelope: Envelope, planned: tuple[Planned, ...], settings: Settings) -> Job:
    prompts = tuple(item.prompt for item in planned[:: max(request.samples, 1)])
    return Job(
        request=request,
        envelope=envelope,
        prompts=prompts,
        planned=planned,
        splits_reasoning=envelope.chat and settings.reasoning_parser is not None,
        tells_cached=settings.prompt_tokens_details,
        block_tokens=settings.engine.block_tokens,
    )
