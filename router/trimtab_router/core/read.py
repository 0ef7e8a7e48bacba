"""The text of a request body: what the classifier looks at, and how long the prompt is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import orjson

from trimtab_classifier.features import Query
from trimtab_router.core.errors import ApiError

BYTES_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
"""What a chat template adds around a message."""
IMAGE_TOKENS: Final = 1024
"""A picture, a sound or a video: its size in tokens is known to the engine only."""
_PREFIX_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Reading:
    """The text of one request."""

    query: Query
    prompt_tokens: int
    prefix: int
    """Hash of the prompt's beginning: requests that share it share cached prefixes."""


def encode(value: object) -> bytes:
    """JSON; raises ApiError for what was nested more deeply than can be written again."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        message = "body: nested more deeply than 254 levels; nest it less deeply"
        raise ApiError(400, message, code="invalid_json") from error


def read_chat(body: Mapping[str, Any]) -> Reading:
    """Reads `messages`; raises ApiError where their shape is wrong."""
    messages = body.get("messages")
    if messages.__class__ is not list or not messages:
        raise ApiError(400, "messages: must be a non-empty array of messages", param="messages", code="missing_field")
    system = user = last = first = ""
    size = chars = 0
    for i, message in enumerate(messages):
        text, extra = _message(message, i)
        chars += len(text)
        size += _utf8_bytes(text) + extra
        last = text
        first = first or text
        role = message.get("role")
        if role == "user":
            user = text
        elif not system and role in ("system", "developer"):
            system = text
    tools = body.get("tools")
    if tools:
        size += len(encode(tools))
    query = Query(user or last, system, len(messages), bool(tools), _structured(body), chars)
    tokens = size // BYTES_PER_TOKEN + MESSAGE_TOKENS * len(messages)
    return Reading(query, tokens, crc32(first[:_PREFIX_CHARS].encode("utf-8", "replace")))


def read_completion(body: Mapping[str, Any]) -> Reading:
    """Reads `prompt`: a text, texts, tokens or arrays of tokens (the longest counts)."""
    prompt = body.get("prompt")
    if prompt.__class__ is str:
        texts: Sequence[Any] = (prompt,)
    elif prompt.__class__ is list and prompt:
        texts = (prompt,) if isinstance(prompt[0], int) else prompt
    else:
        raise ApiError(400, "prompt: must be a text or a non-empty array", param="prompt", code="missing_field")
    tokens = chars = 0
    for i, text in enumerate(texts):
        if isinstance(text, str):
            tokens = max(tokens, _utf8_bytes(text) // BYTES_PER_TOKEN)
            chars += len(text)
        elif isinstance(text, list):
            tokens = max(tokens, len(text))
        else:
            raise ApiError(400, f"prompt[{i}]: must be a text or an array of tokens", param=f"prompt[{i}]")
    text = texts[0] if isinstance(texts[0], str) else ""
    query = Query(text, "", 1, False, _structured(body), chars)
    return Reading(query, tokens, crc32(text[:_PREFIX_CHARS].encode("utf-8", "replace")))


def _message(message: Any, index: int) -> tuple[str, int]:
    """Text of a message and the bytes that count for its other parts."""
    if message.__class__ is not dict:
        raise ApiError(400, f"messages[{index}]: must be an object with role and content", param=f"messages[{index}]")
    content = message.get("content")
    if content.__class__ is str:
        return content, 0
    calls = message.get("tool_calls")
    extra = len(encode(calls)) if calls else 0
    if content is None:
        return "", extra
    if content.__class__ is not list:
        field = f"messages[{index}].content"
        raise ApiError(400, f"{field}: must be a text or an array of parts", param=field)
    texts = []
    for part in content:
        text = part.get("text") if part.__class__ is dict else part
        if text.__class__ is str:
            texts.append(text)
        else:
            extra += IMAGE_TOKENS * BYTES_PER_TOKEN
    return "\n".join(texts), extra


def _utf8_bytes(text: str) -> int:
    """Length in UTF-8: about four bytes a token holds for Latin and for East Asian scripts alike."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _structured(body: Mapping[str, Any]) -> bool:
    form = body.get("response_format")
    if form.__class__ is dict and form.get("type") in ("json_schema", "json_object"):
        return True
    return "structured_outputs" in body or "guided_json" in body
