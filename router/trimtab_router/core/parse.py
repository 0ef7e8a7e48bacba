"""Request body and headers to Facts: validation of every field that the router acts on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from zlib import crc32

import orjson

from trimtab_crds.planning import DEFAULT_TENANT
from trimtab_router.core.errors import ApiError, invalid, shown
from trimtab_router.core.facts import EFFORTS, Facts, Route
from trimtab_router.core.fields import check_spelling, check_template_arguments
from trimtab_router.core.ladder import Ladder, Limits
from trimtab_router.core.oneattempt import one_attempt
from trimtab_router.core.read import Reading, read_chat, read_completion

TIER_HEADER: Final = "x-trimtab-tier"
TENANT_HEADER: Final = "x-trimtab-tenant"
BUDGET_HEADER: Final = "x-trimtab-budget"
_PREFIX: Final = "x-trimtab-"
BudgetField = Literal["x-trimtab-budget", "trimtab.budget"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, understood."""

    body: dict[str, Any]
    facts: Facts
    reading: Reading


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; raises ApiError."""
    if not raw:
        raise ApiError(400, "body: empty; send a JSON object", code="invalid_json")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"body: not valid JSON ({error}); send a JSON object", code="invalid_json") from error
    if body.__class__ is not dict:
        raise ApiError(400, "body: must be a JSON object", code="invalid_json")
    return body


def understand(body: dict[str, Any], headers: Mapping[str, str], ladder: Ladder, *, route: Route) -> Ask:
    """Facts and text of a request. `headers` has lower-case names; only `x-trimtab-*` are read. Raises ApiError."""
    check_spelling(body)
    if "chat_template_kwargs" in body:
        check_template_arguments(body["chat_template_kwargs"])
    model, pool = _model(body, ladder)
    reading = read_chat(body) if route == "chat" else read_completion(body)
    limits = _tenant(headers, ladder)
    most, because = _most(ladder, limits)
    budget, field = _budget(body, headers, most, because)
    facts = Facts(
        route=route,
        model=model,
        pool=pool,
        prompt_tokens=reading.prompt_tokens,
        prompt_chars=reading.query.prompt_chars,
        turns=reading.query.turns,
        tools=reading.query.tools,
        json_schema=reading.query.json_schema,
        stream=_stream(body),
        max_tokens=_max_tokens(body),
        thinking_token_budget=_within(_thinking(body), limits),
        tier=_tier(headers, ladder, pool) if headers else None,
        budget=budget,
        budget_field=field,
        effort=_effort(body, ladder, most),
        tenant=None if limits is None else limits.name,
        top=None if limits is None or limits.top == len(ladder.rungs) - 1 else limits.top,
        draw=crc32(reading.query.text.encode("utf-8", "replace")) if ladder.planning.explore_percent else 0,
        answers=_answers(body) if ladder.bounds else 1,
        greedy=ladder.spends and body.get("temperature") == 0,
        one_attempt=one_attempt(body) if ladder.spends else "",
    )
    _check_tenant(facts, ladder)
    return Ask(body, facts, reading)


def _model(body: Mapping[str, Any], ladder: Ladder) -> tuple[str, str | None]:
    """The model asked for, and the pool when it names one directly."""
    model = body.get("model")
    if model.__class__ is not str or not model:
        known = ", ".join(known_models(ladder))
        raise ApiError(400, f"model: must be one of {known}", param="model", code="missing_field")
    if model in ladder.models:
        return model, None
    rung = ladder.by_model.get(model)
    if rung is None:
        raise unknown_model(model, ladder)
    return model, rung.pool.name


def known_models(ladder: Ladder) -> list[str]:
    """Names that requests may ask for: the policy's, then those of the pools."""
    return list(dict.fromkeys([*ladder.config.models, *(r.pool.served_name for r in ladder.rungs)]))


def unknown_model(model: str, ladder: Ladder) -> ApiError:
    """404 that names the models there are."""
    known = ", ".join(known_models(ladder))
    name = model if len(model) <= 80 else f"{model[:77]}..."
    message = f"model: {name!r} does not exist; use one of {known}"
    return ApiError(404, message, param="model", code="model_not_found")


def _stream(body: Mapping[str, Any]) -> bool:
    stream = body.get("stream")
    if stream is None or stream.__class__ is bool:
        return bool(stream)
    raise invalid("stream", stream, "use true or false")


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    """vLLM prefers `max_completion_tokens`; both are checked."""
    found = None
    for field in ("max_tokens", "max_completion_tokens"):
        value = body.get(field)
        if value is not None:
            if value.__class__ is not int or value < 1:
                raise invalid(field, value, "use a whole number of at least 1")
            found = value
    return found


def _answers(body: Mapping[str, Any]) -> int:
    """How many answers the engine writes: `n` or `best_of` for every prompt."""
    prompt = body.get("prompt")
    prompts = len(prompt) if prompt.__class__ is list and prompt and prompt[0].__class__ is not int else 1
    return prompts * max(v for v in (1, body.get("n"), body.get("best_of")) if v.__class__ is int)


def _thinking(body: Mapping[str, Any]) -> int | None:
    value = body.get("thinking_token_budget")
    if value is None:
        return None
    if value.__class__ is not int or value < -1:
        raise invalid("thinking_token_budget", value, "use a whole number of tokens, or -1 for no bound of your own")
    return int(value)


def _tenant(headers: Mapping[str, str], ladder: Ladder) -> Limits | None:
    """Limits of the request's tenant; those of `default` without the header, where there are any."""
    if not ladder.tenants:
        return None
    name = headers.get(TENANT_HEADER)
    if name is None:
        return ladder.tenants.get(DEFAULT_TENANT)
    limits = ladder.tenants.get(name)
    if limits is None:
        message = f"{TENANT_HEADER}: {shown(name)} is no tenant of the policy; correct it or add it to tenants"
        raise ApiError(403, message, param=TENANT_HEADER, code="not_allowed")
    return limits


def _most(ladder: Ladder, limits: Limits | None) -> tuple[int, str]:
    """The highest budget by hand, and what sets it."""
    most = ladder.manual.max_budget
    if limits is not None and limits.max_budget < most:
        return limits.max_budget, f"tenant {limits.name}'s maxBudget"
    return most, "the policy's manual.maxBudget"


def _within(own: int | None, limits: Limits | None) -> int | None:
    """The client's own bound on thinking, lowered to its tenant's."""
    most = None if limits is None else limits.max_thinking_tokens
    if most is None:
        return own
    return most if own is None or own < 0 else min(own, most)


def _check_tenant(facts: Facts, ladder: Ladder) -> None:
    """A tier by hand above the tenant's is refused, not replaced."""
    if facts.top is None or (facts.tier is None and facts.pool is None):
        return
    rung = ladder.by_name[facts.tier] if facts.tier is not None else ladder.by_model[facts.model]
    if rung.index > facts.top:
        field, asked = (TIER_HEADER, facts.tier) if facts.tier is not None else ("model", facts.model)
        allowed = ", ".join(
            r.name if facts.tier is not None else r.pool.served_name for r in ladder.rungs[: facts.top + 1]
        )
        message = f"{field}: {asked} is not for tenant {facts.tenant}; use one of {allowed}"
        raise ApiError(403, message, param=field, code="not_allowed")


def _effort(body: Mapping[str, Any], ladder: Ladder, most: int) -> str | None:
    effort = body.get("reasoning_effort")
    if effort is None:
        return None
    if effort.__class__ is not str or effort not in EFFORTS:
        raise invalid("reasoning_effort", effort, f"use one of {', '.join(EFFORTS)}")
    return effort if ladder.manual.reasoning_effort and most else None


def _tier(headers: Mapping[str, str], ladder: Ladder, pool: str | None) -> str | None:
    for name in headers:
        if name.startswith(_PREFIX) and name not in (TIER_HEADER, BUDGET_HEADER):
            if name == TENANT_HEADER and ladder.tenants:
                continue
            known = f"{TIER_HEADER}, {BUDGET_HEADER}{f', {TENANT_HEADER}' if ladder.tenants else ''}"
            raise ApiError(400, f"{name}: no such header; use one of {known}", param=name, code="unknown_field")
    tier = headers.get(TIER_HEADER)
    if tier is None:
        return None
    if not ladder.manual.tier_header:
        message = f"{TIER_HEADER}: the policy does not allow to choose a tier (manual.tierHeader is false); remove it"
        raise ApiError(400, message, param=TIER_HEADER, code="not_allowed")
    if tier not in ladder.by_name:
        raise invalid(TIER_HEADER, tier, f"use one of {', '.join(ladder.by_name)}")
    if pool is not None and ladder.by_name[tier].pool.name != pool:
        message = f"{TIER_HEADER}: {tier} is not served by the pool that model names; ask for one of the two"
        raise ApiError(400, message, param=TIER_HEADER, code="conflict")
    return tier


def _budget(
    body: Mapping[str, Any], headers: Mapping[str, str], most: int, because: str
) -> tuple[int | None, BudgetField]:
    """The budget by hand and where it was given."""
    options = body.get("trimtab")
    given: Any = None
    if options is not None:
        if options.__class__ is not dict:
            raise invalid("trimtab", options, 'use an object such as {"budget": 50}')
        for name in options:
            if name != "budget":
                raise ApiError(400, f"trimtab.{name}: no such field; use trimtab.budget", param=f"trimtab.{name}")
        given = options.get("budget")
    header = headers.get(BUDGET_HEADER)
    if header is None:
        return (
            (None, BUDGET_HEADER)
            if given is None
            else (_checked(given, "trimtab.budget", most, because), "trimtab.budget")
        )
    number = _checked(int(header) if header.isdecimal() else header, BUDGET_HEADER, most, because)
    if given is not None and given != number:
        message = f"{BUDGET_HEADER}: {number} differs from trimtab.budget; give one of the two"
        raise ApiError(400, message, param=BUDGET_HEADER, code="conflict")
    return number, BUDGET_HEADER


def _checked(value: Any, field: str, most: int, because: str) -> int:
    if most == 0:
        message = f"{field}: budgets by hand are not allowed ({because} is 0); remove it"
        raise ApiError(400, message, param=field, code="not_allowed")
    if value.__class__ is not int or not 1 <= value <= most:
        raise invalid(field, value, f"use a whole number from 1 to {most}{'' if most == 100 else f' ({because})'}")
    return int(value)
