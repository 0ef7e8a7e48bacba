"""A prompt that is read by one engine and answered by another: the two bodies.

The fields are those of vLLM's NixlConnector (vLLM docs, features/nixl_connector_usage, and its proxy for tests of
disaggregated prefill): the first engine reads the prompt, keeps its cache and says where it is; the second fetches it.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from trimtab_router.core.read import encode

READS: Final = 2
"""Replicas that may be asked to read one prompt; each writes one token, which nobody gets."""
FIELD: Final = "kv_transfer_params"
_ASK: Final = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
#: What the answering engine does with the prompt itself, so that it must read it.
_READS_ITSELF: Final = ("echo", "prompt_logprobs", "use_beam_search")
_COUNTS: Final = ("n", "best_of")
#: Of the answer, which the first engine does not give; `min_tokens` would be above its one token.
_OF_THE_ANSWER: Final = (
    *("stream_options", "min_tokens", "thinking_token_budget", "logprobs", "top_logprobs", "stream_interval"),
    *("return_token_ids", "return_tokens_as_token_ids"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How the prompt was read: the transfer if another engine did it, else why not; and how many were asked."""

    transfer: dict[str, Any] | None = None
    why: str = ""
    reads: int = 0


def undivided(body: bytes) -> str:
    """The field for which no other engine can read the prompt of this request; empty where one can.

    Several answers or prompts share one request, but caches are fetched for each alone.
    """
    asked = orjson.loads(body)
    for name in _COUNTS:
        if asked.get(name) not in (None, 1):
            return name
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and not (prompt and all(isinstance(token, int) for token in prompt)):
        return "prompt"
    return next((name for name in _READS_ITSELF if asked.get(name)), "")


def prefill_body(body: bytes, served_name: str) -> bytes:
    """What the engine gets that reads the prompt: the same prompt, one token, no stream."""
    asked: dict[str, Any] = {k: v for k, v in orjson.loads(body).items() if k not in _OF_THE_ANSWER}
    cap = {"max_completion_tokens": 1} if "max_completion_tokens" in asked else {}
    return encode({**asked, **cap, "model": served_name, "stream": False, "max_tokens": 1, FIELD: _ASK})


def transfer_of(answer: bytes) -> dict[str, Any] | None:
    """Where the first engine keeps the prompt's cache; None where it does not say.

    Without blocks it is of no use, and vLLM 0.32 dies of it (nixl/pull_scheduler.py, update_state_after_alloc).
    """
    try:
        said = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    found = said.get(FIELD) if isinstance(said, dict) else None
    return found if isinstance(found, dict) and found.get("remote_block_ids") else None


def decode_body(body: bytes, transfer: dict[str, Any]) -> bytes:
    """What the engine gets that answers."""
    return encode({**orjson.loads(body), FIELD: transfer})


def outcome_of(reading: Reading) -> str:
    """For counts: Read, Undivided, or what went wrong."""
    return "Read" if reading.transfer is not None else reading.why if reading.why[:1].isupper() else "Undivided"


def said_of(reading: Reading, pool: str) -> str:
    """For the client: the pool that has read the prompt, or why none has."""
    return pool if reading.transfer is not None else f"none; because={reading.why}"
