"""The JSON and SSE that vLLM 0.32 answers with, field by field. No I/O."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_cli.engine_sim.answers import WORDS, Answer, Token, logprob
from trimtab_cli.engine_sim.noise import uniform
from trimtab_cli.engine_sim.vocabulary import id_of

DONE = b"data: [DONE]\n\n"
Json = dict[str, Any]


def compact(document: object) -> bytes:
    """JSON as vLLM's responses have it: no spaces."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def event(document: object) -> bytes:
    """One server-sent event."""
    return b"data: " + compact(document) + b"\n\n"


def error_event(document: object) -> bytes:
    """An error after the status line was sent: one event with vLLM's error object, then the end of the stream."""
    return f"data: {json.dumps(document)}\n\n".encode() + DONE


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every response to one request shares."""

    id: str
    created: int
    model: str
    fingerprint: str
    chat: bool

    def whole(self, choices: list[Json], usage: Json) -> Json:
        """The body of an answer that is not streamed."""
        body: Json = {
            "id": self.id,
            "object": "chat.completion" if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self.fingerprint,
            "usage": usage,
        }
        names = ("prompt_logprobs", "prompt_token_ids", "prompt_text") if self.chat else ()
        return body | dict.fromkeys((*names, "kv_transfer_params", "ec_transfer_params", "metrics"))

    def chunk(self, choices: list[Json], *, usage: Json | None = None, last: bool = False) -> Json:
        """One event of a stream; the last one carries the fingerprint."""
        body: Json = {
            "id": self.id,
            "object": "chat.completion.chunk" if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            body["usage"] = usage
        if last:
            body["system_fingerprint"] = self.fingerprint
        return body

    def opening(self, index: int, usage: Json | None, prompt_ids: list[int] | None = None) -> Json:
        """The first event of a chat stream: who speaks."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self.chunk([choice], usage=usage) | {"prompt_token_ids": prompt_ids, "prompt_text": None}


@dataclass(frozen=True, slots=True)
class Shown:
    """How the tokens of an answer are shown: logprobs per token (None: not), reasoning or not, what comes before."""

    top_logprobs: int | None = None
    include_reasoning: bool = True
    echo: str = ""
    ids: tuple[int, ...] | None = None
    """The prompt's tokens, where ids are asked for; the answer's are shown, too."""

    def token_ids(self, tokens: Iterable[Token]) -> list[int] | None:
        """Of these tokens; None unless asked for."""
        return None if self.ids is None else [id_of(token.text) for token in tokens]

    @property
    def prompt_ids(self) -> list[int] | None:
        """Of the prompt; None unless asked for."""
        return None if self.ids is None else list(self.ids)


def chat_choice(index: int, answer: Answer, finish_reason: str, shown: Shown, written: int) -> Json:
    """One choice of a chat answer."""
    tokens = list(answer.tokens(0, written))
    reasoning = _text(token for token in tokens if token.reasoning)
    message: Json = {
        "role": "assistant",
        "content": _text(token for token in tokens if not token.reasoning and not token.marker),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": reasoning if shown.include_reasoning else None,
    }
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(answer, 0, tokens, shown.top_logprobs),
        "finish_reason": finish_reason,
        "stop_reason": answer.stop_reason if finish_reason == "stop" else None,
        "token_ids": shown.token_ids(tokens),
        "routed_experts": None,
    }


def chat_delta(
    index: int, answer: Answer, start: int, stop: int, *, finish_reason: str | None, shown: Shown
) -> list[Json]:
    """The choices of the events for a run of tokens: reasoning and content never share one."""
    tokens = list(answer.tokens(start, stop))
    reasoning = [token for token in tokens if token.reasoning]
    content = [token for token in tokens if not token.reasoning]
    choices = []
    if reasoning:
        delta = {"reasoning": _text(reasoning)} if shown.include_reasoning else {}
        logprobs = chat_logprobs(answer, start, reasoning, shown.top_logprobs)
        choices.append(_chat_event(index, delta, logprobs, shown.token_ids(reasoning)))
    if content or not choices:
        text = _text(token for token in content if not token.marker)
        delta = {} if text is None else {"content": text}
        at = start + len(reasoning)
        logprobs = chat_logprobs(answer, at, content, shown.top_logprobs)
        choices.append(_chat_event(index, delta, logprobs, shown.token_ids(content)))
    if finish_reason is not None:
        stop_reason = answer.stop_reason if finish_reason == "stop" else None
        choices[-1] |= {"finish_reason": finish_reason, "stop_reason": stop_reason}
    return [choice for choice in choices if choice["delta"] or choice["finish_reason"] or choice["token_ids"]]


def _chat_event(index: int, delta: Json, logprobs: Json | None, ids: list[int] | None) -> Json:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None, "token_ids": ids}


def completion_choice(index: int, answer: Answer, finish_reason: str, shown: Shown, written: int) -> Json:
    """One choice of a text completion."""
    tokens = list(answer.tokens(0, written))
    return {
        "index": index,
        "text": shown.echo + (_text(tokens) or ""),
        "logprobs": completion_logprobs(answer, 0, tokens, shown.top_logprobs, offset=len(shown.echo)),
        "finish_reason": finish_reason,
        "stop_reason": answer.stop_reason if finish_reason == "stop" else None,
        "token_ids": shown.token_ids(tokens),
        "prompt_logprobs": None,
        "prompt_token_ids": shown.prompt_ids,
        "routed_experts": None,
    }


def completion_delta(
    index: int, answer: Answer, start: int, stop: int, *, finish_reason: str | None, shown: Shown
) -> list[Json]:
    """The choice of the event for a run of tokens."""
    tokens = list(answer.tokens(start, stop))
    offset = len(shown.echo) + sum(len(token.text) for token in answer.tokens(0, start)) if shown.top_logprobs else 0
    choice = {
        "index": index,
        "text": (shown.echo if start == 0 else "") + (_text(tokens) or ""),
        "logprobs": completion_logprobs(answer, start, tokens, shown.top_logprobs, offset=offset),
        "finish_reason": finish_reason,
        "stop_reason": answer.stop_reason if finish_reason == "stop" else None,
        "prompt_token_ids": shown.prompt_ids if start == 0 else None,
        "token_ids": shown.token_ids(tokens),
    }
    return [choice]


def _text(tokens: Iterable[Token]) -> str | None:
    return "".join(token.text for token in tokens) or None


def _alternatives(answer: Answer, position: int, token: Token, count: int) -> list[tuple[str, float]]:
    """The token itself and words that might have stood there, likeliest first."""
    start = int(uniform(answer.key, ~position) * len(WORDS))
    words = [WORDS[(start + rank) % len(WORDS)] + " " for rank in range(count + 1)]
    others = [word for word in words if word != token.text][: max(0, count - 1)]
    rows = [(token.text, logprob(answer, position, 0))]
    return rows + [(word, logprob(answer, position, rank + 1)) for rank, word in enumerate(others)]


def chat_logprobs(answer: Answer, start: int, tokens: Sequence[Token], top: int | None) -> Json | None:
    """`logprobs` of a chat choice; None unless asked for."""
    if top is None:
        return None
    content = []
    for position, token in enumerate(tokens, start):
        rows = [_chat_logprob(*row) for row in _alternatives(answer, position, token, max(top, 1))]
        content.append(rows[0] | {"top_logprobs": rows[:top]})
    return {"content": content}


def _chat_logprob(text: str, value: float) -> Json:
    return {"token": text, "logprob": value, "bytes": list(text.encode("utf-8", "replace"))}


def completion_logprobs(
    answer: Answer, start: int, tokens: Sequence[Token], top: int | None, *, offset: int
) -> Json | None:
    """`logprobs` of a text choice, from that offset in the text on; None unless asked for."""
    if top is None:
        return None
    offsets, values, alternatives = [], [], []
    for position, token in enumerate(tokens, start):
        rows = _alternatives(answer, position, token, max(top, 1))
        offsets.append(offset)
        values.append(rows[0][1])
        alternatives.append(dict(rows[: max(top, 1)]))
        offset += len(token.text)
    texts = [token.text for token in tokens]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": texts, "top_logprobs": alternatives}


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of a request so far. `reasoning` is None where no reasoning parser tells them apart."""

    prompt: int
    completion: int
    reasoning: int | None
    cached: int | None
    block_tokens: int

    def usage(self, *, streamed: bool = False) -> Json:
        """The usage object; streams leave out what is absent."""
        body: Json = {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
            "prompt_tokens_details": self._prompt_details(),
            "completion_tokens_details": None if self.reasoning is None else {"reasoning_tokens": self.reasoning},
        }
        return {key: value for key, value in body.items() if value is not None} if streamed else body

    def _prompt_details(self) -> Json | None:
        if self.cached is None:
            return None
        whole_blocks = self.prompt // self.block_tokens * self.block_tokens
        return {
            "cached_tokens": self.cached,
            "created_cache_tokens": max(0, whole_blocks - self.cached),
            "multimodal_tokens": None,
        }


def model_card(name: str, *, root: str, created: int, max_model_len: int) -> Json:
    """One entry of `/v1/models`."""
    permission: Json = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
