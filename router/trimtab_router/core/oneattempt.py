"""Requests whose answer cannot be made of several attempts: they get a single one, and the reason is said."""

from collections.abc import Mapping
from typing import Any, Final

_FIELDS: Final = (
    *("tools", "functions", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "use_beam_search", "audio"),
    *("return_token_ids", "return_tokens_as_token_ids", "continue_final_message", "kv_transfer_params"),
)
_COUNTS: Final = ("n", "best_of")


def one_attempt(body: Mapping[str, Any]) -> str:
    """The field that asks for what only one engine's answer can have; empty where there is none."""
    if "messages" not in body:
        return "prompt"
    for name in _COUNTS:
        if body.get(name) not in (None, 1):
            return name
    return next((name for name in _FIELDS if body.get(name)), "")
