"""vLLM's streamed answers, event by event: chat and text completions to pieces of one kind."""

from dataclasses import dataclass
from typing import Any

import orjson

from trimtab_router.core.http1 import FramingError, chunk_size


@dataclass(slots=True)
class Piece:
    """What one event says."""

    text: str = ""
    reasoning: str = ""
    thinks: bool = False
    """Its tokens are reasoning, also where their text is still to come."""
    logprobs: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


def read_event(event: bytes) -> Piece | None:
    """The piece of one event (without its empty line); None for comments and `[DONE]`."""
    if not event.startswith(b"data:"):
        return None
    data = event[5:].strip()
    if data == b"[DONE]":
        return None
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise FramingError(f"an event is not JSON: {data[:40]!r}") from error
    if "error" in document:
        return Piece(error=str(document["error"].get("message", document["error"])))
    return _piece(document)


def _piece(document: dict[str, Any]) -> Piece:
    piece = Piece(prompt_ids=tuple(document.get("prompt_token_ids") or ()))
    usage = document.get("usage")
    if usage:
        piece.prompt_tokens = usage.get("prompt_tokens")
        piece.completion_tokens = usage.get("completion_tokens")
    for choice in document.get("choices", ())[:1]:
        delta = choice.get("delta") or {}
        piece.text = delta.get("content") or choice.get("text") or ""
        piece.reasoning = delta.get("reasoning") or delta.get("reasoning_content") or ""
        piece.thinks = delta.get("reasoning") is not None
        piece.finish_reason = choice.get("finish_reason")
        piece.token_ids = tuple(choice.get("token_ids") or ())
        piece.prompt_ids = piece.prompt_ids or tuple(choice.get("prompt_token_ids") or ())
        piece.logprobs = _logprobs(choice.get("logprobs") or {})
    return piece


def _logprobs(logprobs: dict[str, Any]) -> tuple[float, ...]:
    """Of chat (`content[].logprob`) and of completions (`token_logprobs`)."""
    if logprobs.get("content"):
        return tuple(float(entry["logprob"]) for entry in logprobs["content"])
    return tuple(float(value) for value in logprobs.get("token_logprobs") or () if value is not None)


class EventReader:
    """Bytes of a body, chunked or not, to whole events."""

    __slots__ = ("_body", "_chunked", "_ended", "_line", "_skip", "_take")

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked
        self._body = b""
        self._line = b""
        self._ended = False
        self._take = 0
        self._skip = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now."""
        self._body += self._unchunked(data) if self._chunked else data
        *events, self._body = self._body.replace(b"\r\n", b"\n").split(b"\n\n")
        return [event.strip(b"\n") for event in events]

    def _unchunked(self, data: bytes) -> bytes:
        parts = []
        data, self._line = self._line + data, b""
        pos = 0
        while pos < len(data) and not self._ended:
            if self._take:
                piece = data[pos : pos + self._take]
                parts.append(piece)
                pos += len(piece)
                self._take -= len(piece)
                self._skip = 0 if self._take else 2
            elif self._skip:
                step = min(self._skip, len(data) - pos)
                self._skip -= step
                pos += step
            else:
                end = data.find(b"\r\n", pos)
                if end < 0:
                    self._line = data[pos:]
                    break
                self._take, pos = chunk_size(data[pos:end]), end + 2
                self._ended = not self._take
        return b"".join(parts)


class Splitter:
    """Tells reasoning from the answer in text that the engine has not parsed, by the mark that ends reasoning."""

    __slots__ = ("_held", "_mark", "_said", "answering")

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._held = ""
        self._said = False
        self.answering = False

    def feed(self, text: str) -> tuple[str, str]:
        """Reasoning and answer in `text`; what may be the beginning of the mark is held back."""
        if self.answering:
            return "", self._opened(text)
        text = self._held + text
        at = text.find(self._mark)
        if at >= 0:
            self.answering, self._held = True, ""
            return text[:at], self._opened(text[at + len(self._mark) :])
        keep = next((n for n in range(len(self._mark) - 1, 0, -1) if text.endswith(self._mark[:n])), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], ""

    def _opened(self, text: str) -> str:
        """Without the empty lines that come before an answer."""
        text = text if self._said else text.lstrip("\n")
        self._said = self._said or bool(text)
        return text

    def fresh(self) -> "Splitter":
        """One that has read nothing."""
        return Splitter(self._mark)

    def rest(self) -> str:
        """What is still held back, once the answer has ended."""
        held, self._held = self._held, ""
        return held
