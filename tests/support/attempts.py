"""Streams of one engine as a strategy's attempts get them, and documents of policies with strategies."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from support.routing import document
from support.running import with_engines
from support.upstream import END, STREAM_HEAD, Behaviour, FakeEngine, Got, event, json_answer, raw_answer


def chat_stream(
    *words: str,
    thoughts: tuple[str, ...] = (),
    logprob: float = -0.1,
    finish: str = "stop",
    ids: bool = False,
    end: bool = True,
) -> Behaviour:
    """A chat answer, one token an event, with running usage as vLLM writes it."""
    return raw_answer(STREAM_HEAD, b"".join(chat_events(*words, thoughts=thoughts, logprob=logprob, ids=ids)), *(
        [_finish(len(thoughts) + len(words), finish), END] if end else []
    ), die=not end)  # fmt: skip


def chat_events(*words: str, thoughts: tuple[str, ...] = (), logprob: float = -0.1, ids: bool = False) -> list[bytes]:
    """The events of the tokens."""
    first: dict[str, Any] = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    events = [event(first | {"usage": used(0)} | ({"prompt_token_ids": [1, 2, 3]} if ids else {}))]
    parts = [("reasoning", word) for word in thoughts] + [("content", word) for word in words]
    for i, (part, word) in enumerate(parts):
        choice: dict[str, Any] = {"index": 0, "delta": {part: word}, "finish_reason": None}
        choice["logprobs"] = {"content": [{"token": word, "logprob": logprob}]}
        if ids:
            choice["token_ids"] = [100 + i]
        events.append(event({"choices": [choice], "usage": used(i + 1)}))
    return events


def text_stream(*words: str, finish: str = "stop", first_id: int | None = None, end: bool = True) -> Behaviour:
    """A text completion, one token an event; their ids rise from `first_id`."""
    events = []
    for i, word in enumerate(words):
        choice: dict[str, Any] = {"index": 0, "text": word, "finish_reason": None}
        if first_id is not None:
            choice |= {"token_ids": [first_id + i], "prompt_token_ids": [1, 2, 3] if i == 0 else None}
        events.append(event({"choices": [choice], "usage": used(i + 1)}))
    if not end:
        return raw_answer(STREAM_HEAD, *events, die=True)
    last = event({"choices": [{"index": 0, "text": "", "finish_reason": finish}], "usage": used(len(words))})
    return raw_answer(STREAM_HEAD, *events, last, event("[DONE]") + END)


def _finish(tokens: int, reason: str) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return event({"choices": [choice], "usage": used(tokens)}) + event("[DONE]")


class Greedy:
    """An engine that writes a share of what it may and then ends, dies or has no room; it counts every token."""

    def __init__(self, acts: Iterable[tuple[float, str]]) -> None:
        self.acts = list(acts)
        self.written = 0

    async def behave(self, got: Got, out: asyncio.StreamWriter) -> None:
        """One answer; an eighth of it is the thought."""
        share, how = self.acts.pop(0) if self.acts else (1.0, "end")
        count = int(got.body.get("max_completion_tokens", got.body.get("max_tokens")) * share)
        if how == "busy":
            await json_answer(503, {"error": {"message": "busy", "code": 503}})(got, out)
            return
        self.written += count
        thoughts, words, end = ("t",) * (count // 8), ["w"] * (count - count // 8), how == "end"
        if "prompt" in got.body:
            answer = text_stream(*(*thoughts, "</think>", *words)[:count], first_id=200, end=end)
        else:
            answer = chat_stream(*words, thoughts=thoughts, logprob=-2, ids="return_token_ids" in got.body, end=end)
        await answer(got, out)


def used(tokens: int) -> dict[str, int]:
    """vLLM's running usage."""
    return {"prompt_tokens": 9, "total_tokens": 9 + tokens, "completion_tokens": tokens}


def strategic(
    *low: FakeEngine, medium: tuple[FakeEngine, ...] = (), high: tuple[FakeEngine, ...] = (), **how: Any
) -> Any:
    """A policy whose tier low has a strategy (`strategy=`), with `escalation=` and `ceiling=`."""
    strategy = how.pop("strategy", {})
    content = document(with_engines(low=low, medium=medium, high=high), **how)
    content["tiers"][0]["strategy"] = strategy
    return content


def events_of(body: bytes) -> list[Any]:
    """The events of a streamed answer; comments as texts."""
    found: list[Any] = []
    for block in body.decode().split("\n\n"):
        if block.startswith("data: {"):
            found.append(json.loads(block[6:]))
        elif block:
            found.append(block)
    return found


def content_of(body: bytes) -> str:
    """The text of a streamed answer."""
    return "".join(
        c["delta"].get("content") or "" for e in events_of(body) if isinstance(e, dict) for c in e["choices"]
    )


def reasoning_of(body: bytes) -> str:
    """The reasoning of a streamed answer."""
    deltas = (c["delta"] for e in events_of(body) if isinstance(e, dict) for c in e["choices"])
    return "".join(d.get("reasoning") or "" for d in deltas)
