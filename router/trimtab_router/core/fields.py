"""Names of request fields: what vLLM reads, and what people write when they mean a budget.

vLLM accepts unknown fields and ignores them (its models allow extras), so a misspelled budget would be lost without a
word: near misses of the fields that bound an answer are refused instead.
"""

import difflib
from collections.abc import Iterable
from typing import Final

from trimtab_router.core.errors import ApiError

BOUNDS: Final = (
    "thinking_token_budget",
    "reasoning_effort",
    "max_completion_tokens",
    "max_tokens",
    "chat_template_kwargs",
)
_NAMES: Final = """
add_generation_prompt add_special_tokens allowed_token_ids audio bad_words best_of cache_salt chat_template
chat_template_kwargs continue_final_message detokenize documents ec_transfer_params echo frequency_penalty
function_call functions guided_choice guided_grammar guided_json guided_regex ignore_eos include_reasoning
include_stop_str_in_output kv_transfer_params length_penalty logit_bias logit_processors logits_processors
logprob_token_ids logprobs max_completion_tokens max_tokens media_io_kwargs messages metadata min_p min_tokens
mm_processor_kwargs modalities model n parallel_tool_calls prediction presence_penalty priority prompt
prompt_cache_key prompt_cache_retention prompt_embeds prompt_logprobs reasoning_effort repetition_detection
repetition_penalty request_id response_format return_token_ids return_tokens_as_token_ids safety_identifier seed
service_tier session_id skip_special_tokens spaces_between_special_tokens stop stop_token_ids store stream
stream_interval stream_options structured_outputs suffix temperature thinking_token_budget tool_choice tools
top_k top_logprobs top_p trimtab truncate_prompt_tokens truncation_side use_beam_search user verbosity
vllm_xargs watermarking web_search_options
"""
KNOWN: Final = frozenset(_NAMES.split())
_MEANT: Final = {
    "thinking": "thinking_token_budget or reasoning_effort",
    "thinking_budget": "thinking_token_budget",
    "thinking_budget_tokens": "thinking_token_budget",
    "thinking_tokens": "thinking_token_budget",
    "max_thinking_tokens": "thinking_token_budget",
    "budget_tokens": "thinking_token_budget",
    "reasoning_budget": "thinking_token_budget",
    "reasoning_tokens": "thinking_token_budget",
    "max_reasoning_tokens": "thinking_token_budget",
    "reasoning": "reasoning_effort",
    "effort": "reasoning_effort",
    "enable_thinking": "chat_template_kwargs.enable_thinking",
    "max_new_tokens": "max_completion_tokens",
    "max_output_tokens": "max_completion_tokens",
    "max_length": "max_completion_tokens",
    "budget": "trimtab.budget",
}


def check_spelling(names: Iterable[str]) -> None:
    """Refuses names that the engine would ignore although they mean a budget; other unknown names pass."""
    for name in names:
        if name not in KNOWN:
            meant = _MEANT.get(name) or _near(name)
            if meant:
                raise ApiError(
                    400,
                    f"{name}: no such field, the engine would ignore it; did you mean {meant}?",
                    param=name,
                    code="unknown_field",
                )


def _near(name: str) -> str | None:
    found = difflib.get_close_matches(name.lower().replace("-", "_"), BOUNDS, n=1, cutoff=0.85)
    return found[0] if found else None


def check_template_arguments(arguments: object) -> None:
    """A budget inside `chat_template_kwargs` reaches the template only, never the sampler: refuse it."""
    if arguments is None:
        return
    if not isinstance(arguments, dict):
        raise ApiError(400, "chat_template_kwargs: must be an object", param="chat_template_kwargs")
    for name in ("thinking_token_budget", "thinking_budget", "max_tokens", "max_completion_tokens"):
        if name in arguments:
            field = f"chat_template_kwargs.{name}"
            meant = "thinking_token_budget" if name.startswith("thinking") else name
            raise ApiError(
                400,
                f"{field}: the engine does not enforce a budget given here; set {meant} at the top of the body",
                param=field,
                code="unknown_field",
            )
