"""The body that goes to an engine: model, budgets, and nothing the pool refuses."""

from typing import Any, Final

from trimtab_router.core.disaggregated import FIELD
from trimtab_router.core.parse import Ask
from trimtab_router.core.plan import Plan
from trimtab_router.core.read import encode

_MARGIN_SHARE: Final = 4
"""The prompt may have a quarter more tokens than estimated before an injected cap would not fit."""


def rewrite(ask: Ask, plan: Plan) -> tuple[bytes, tuple[str, ...]]:
    """The body for the plan's pool and the names of the client's fields that were left out.

    A field that the client set is never changed, except `model`, the thinking budget (see `plan.budget_on`) and the
    fields that the pool's engine refuses.
    """
    body, dropped = rewritten(ask, plan)
    return encode(body), dropped


def rewritten(ask: Ask, plan: Plan) -> tuple[dict[str, Any], tuple[str, ...]]:
    """As `rewrite`, before it is written as JSON."""
    body = dict(ask.body)
    pool = plan.rung.pool
    body["model"] = pool.served_name
    body.pop("trimtab", None)
    dropped = [name for name in pool.drops_sampling if body.pop(name, None) is not None]
    if plan.rung.prefill is not None and body.pop(FIELD, None) is not None:
        dropped.append(FIELD)  # it would lead engines to hosts, and to caches of others, that the client names
    if ask.facts.effort is None or not pool.reasoning:
        _drop_effort(body, ask, dropped)
    _set_thinking(body, ask, plan)
    if plan.facts.pool is not None:
        _cap_by_name(body, plan)
    elif plan.facts.max_tokens is None:
        _set_cap(body, plan)
    elif plan.spending.limits.bounds and plan.budget.output_tokens is not None:
        _lower_cap(body, (plan.budget.thinking_tokens or 0) + plan.budget.output_tokens)
    return body, tuple(dropped)


def _drop_effort(body: dict[str, Any], ask: Ask, dropped: list[str]) -> None:
    """Left out where the policy does not obey it or the pool does not think; a pool by name gets it as it is."""
    if ask.facts.pool is None and body.pop("reasoning_effort", None) is not None and ask.facts.effort is None:
        dropped.append("reasoning_effort")


def _set_thinking(body: dict[str, Any], ask: Ask, plan: Plan) -> None:
    thinking = plan.budget.thinking_tokens
    if thinking is None:
        return
    if plan.rung.pool.reasoning:
        body["thinking_token_budget"] = thinking
    else:
        body.pop("thinking_token_budget", None)
    if thinking == 0 and ask.facts.route == "chat":
        body["chat_template_kwargs"] = {"enable_thinking": False, **(body.get("chat_template_kwargs") or {})}


def _cap_by_name(body: dict[str, Any], plan: Plan) -> None:
    """A pool that is asked for by name gets no cap but that of the tenant's ceiling, thinking included."""
    cap = plan.budget.output_tokens
    if not plan.spending.limits.bounds or cap is None:
        return
    if plan.facts.max_tokens is None:
        body["max_completion_tokens" if plan.facts.route == "chat" else "max_tokens"] = cap
    else:
        _lower_cap(body, cap)


def _lower_cap(body: dict[str, Any], cap: int) -> None:
    """The client's own cap, where the ceiling is lower."""
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None:
            body[name] = min(body[name], cap)


def _set_cap(body: dict[str, Any], plan: Plan) -> None:
    """Caps the answer where the client does not; left to the engine where the context is the tighter bound."""
    cap = (plan.budget.thinking_tokens or 0) + (plan.budget.output_tokens or 0)
    context, prompt = plan.rung.pool.context_tokens, plan.facts.prompt_tokens
    if context is None or plan.spending.limits.bounds or prompt + prompt // _MARGIN_SHARE + cap <= context:
        body["max_completion_tokens" if plan.facts.route == "chat" else "max_tokens"] = cap
