"""Server-sent events as vLLM writes them: the refusal in a first event, tokens and usage, the error event."""

import re
from typing import Final

import orjson

from trimtab_router.core.errors import error_body

FIRST_EVENT_BYTES: Final = 64 * 1024
"""An event that is longer than this is not a refusal."""
TAIL_BYTES: Final = 4096
_FIELD: Final = b'"completion_tokens"'
_NUMBER: Final = re.compile(rb"\s*:\s*(\d+)")
_TOKEN_EVENT: Final = b"data: {"


def first_event(payload: bytes) -> bytes | None:
    """The first event once it is complete (or too long to be a refusal), else None."""
    end = payload.find(b"\n\n")
    if end < 0:
        end = payload.find(b"\r\n\r\n")
    if end >= 0:
        return payload[:end]
    return payload if len(payload) > FIRST_EVENT_BYTES else None


def refusal(event: bytes) -> str | None:
    """The message of an engine that accepted the stream (HTTP 200) and refused in the first event with code 503.

    vLLM does so for streaming requests over `--max-num-queued-reqs`; other errors are the client's and pass.
    """
    if not event.startswith(b"data:") or not event[5:].lstrip().startswith(b'{"error"'):
        return None
    try:
        error = orjson.loads(event[5:])["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not isinstance(error, dict) or error.get("code") not in (503, "503"):
        return None
    return str(error.get("message", "overloaded"))


def count_tokens(data: bytes) -> int:
    """Events that carry tokens; one token an event unless the engine speculates or batches."""
    return data.count(_TOKEN_EVENT)


def used_tokens(tail: bytes) -> int | None:
    """`usage.completion_tokens` in the end of an answer, streamed or not."""
    start = tail.rfind(_FIELD, -TAIL_BYTES)
    if start < 0 or tail[start - 1 : start] == b"\\":
        return None
    found = _NUMBER.match(tail, start + len(_FIELD))
    return int(found[1]) if found else None


def error_event(message: str, code: int, *, chunked: bool) -> bytes:
    """An event that ends a broken stream in a way that a client cannot take for its end; no `[DONE]` follows.

    The empty lines before it end an event that was cut off, and mean nothing elsewhere.
    """
    body = error_body(message, kind="server_error", param=None, code=code)
    event = b"\n\ndata: %b\n\n" % body
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event) if chunked else event
