"""Lines of the decision log: what was planned, what it took, and what was said of the answer. No text of a prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trimtab_router.core.errors import ApiError, invalid
from trimtab_router.core.plan import Plan

FEEDBACK_FIELDS: Final = ("request_id", "correct", "score")
MAX_ID_CHARS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a request ended."""

    at: float
    """Unix time, seconds."""
    request_id: str
    query: str
    """Hash of the text that was looked at; equal queries of one worker have equal hashes."""
    outcome: str
    seconds: float
    output_tokens: int
    """What the engine produced, thinking included."""
    attempts: int
    """Replicas that were asked; of a strategy, the answers that were begun."""
    cost: float
    """GPU time of all of it, currency units."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a client says of an answer."""

    request_id: str
    score: float
    """0 (wrong) to 1 (right)."""


def decision(plan: Plan, ending: Ending) -> dict[str, Any]:
    """One ended request."""
    scores, budget = plan.scores, plan.budget
    return {
        "kind": "decision",
        "time": round(ending.at, 3),
        "request_id": ending.request_id,
        "policy": plan.ladder.policy,
        "config": plan.ladder.digest,
        **({} if plan.facts.tenant is None else {"tenant": plan.facts.tenant}),
        "query": ending.query,
        "class": plan.class_name,
        "class_probability": None if scores is None else round(scores.class_probability, 4),
        "gain": None if scores is None else round(scores.gain, 4),
        "out_of_domain": None if scores is None else round(scores.out_of_domain, 4),
        "prompt_tokens": plan.facts.prompt_tokens,
        "tier": plan.tier,
        "pool": plan.pool,
        "thinking_tokens": budget.thinking_tokens,
        "output_tokens": budget.output_tokens,
        "strategy": plan.strategy,
        "reason": plan.reason,
        "planned_tier": (plan.choice.wanted or plan.choice.rung).name,
        "outcome": ending.outcome,
        "attempts": ending.attempts,
        "used_tokens": ending.output_tokens,
        "seconds": round(ending.seconds, 4),
        "cost": round(ending.cost, 12),
    }


def feedback(told: Feedback, at: float) -> dict[str, Any]:
    """One client's word on an answer."""
    return {"kind": "feedback", "time": round(at, 3), "request_id": told.request_id, "score": told.score}


def read_feedback(body: Mapping[str, Any]) -> Feedback:
    """The body of `POST /v1/feedback`; raises ApiError that names field, value and fix."""
    for name in body:
        if name not in FEEDBACK_FIELDS:
            known = ", ".join(FEEDBACK_FIELDS)
            raise ApiError(400, f"{name[:80]}: no such field; use {known}", param=name[:80], code="unknown_field")
    return Feedback(_request_id(body.get("request_id")), _score(body))


def _request_id(value: Any) -> str:
    if value is None:
        message = "request_id: missing; send the x-request-id of the answer"
        raise ApiError(400, message, param="request_id", code="missing_field")
    if value.__class__ is not str or not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable():
        raise invalid("request_id", value, f"use the x-request-id of the answer, 1 to {MAX_ID_CHARS} characters")
    return str(value)


def _score(body: Mapping[str, Any]) -> float:
    correct, score = body.get("correct"), body.get("score")
    if (correct is None) == (score is None):
        fix = "give one of the two" if score is not None else "say true or false, or give score from 0 to 1"
        code = "missing_field" if score is None else "conflict"
        raise ApiError(
            400,
            f"correct: {'score is there, too' if score is not None else 'missing'}; {fix}",
            param="correct",
            code=code,
        )
    if correct is not None:
        if correct.__class__ is not bool:
            raise invalid("correct", correct, "use true or false")
        return float(correct)
    if score.__class__ not in (int, float) or not 0 <= score <= 1:
        raise invalid("score", score, "use a number from 0 (wrong) to 1 (right)")
    return float(score)
