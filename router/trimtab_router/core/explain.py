"""A plan in words: every candidate with the reason for which it was chosen or rejected."""

from dataclasses import dataclass
from typing import Any, Final

from trimtab_router.core.ceiling import NANOS
from trimtab_router.core.ladder import Rung
from trimtab_router.core.plan import Budget, Plan, Reason, budget_on, fits
from trimtab_router.core.spending import samples


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tier that was considered."""

    tier: str
    pool: str
    budget: Budget
    accepted: bool
    reason: str
    """CamelCase, stable."""
    message: str


def candidates(plan: Plan) -> tuple[Candidate, ...]:
    """Every tier, cheap to strong."""
    return tuple(_candidate(plan, rung) for rung in plan.ladder.rungs)


def _candidate(plan: Plan, rung: Rung) -> Candidate:
    if rung is plan.rung:
        return Candidate(rung.name, rung.pool.name, plan.budget, True, plan.reason, sentence(plan))
    reason, message = _rejection(plan, rung)
    budget = budget_on(rung, plan.facts, plan.choice)
    return Candidate(rung.name, rung.pool.name, budget, False, reason, message)


def _rejection(plan: Plan, rung: Rung) -> tuple[str, str]:
    tokens, chosen = plan.facts.prompt_tokens, plan.tier
    if not fits(rung, plan.facts):
        room = rung.pool.context_tokens
        return "ContextTooShort", f"about {tokens} prompt tokens and the answer do not fit {room} tokens"
    if plan.facts.by_hand:
        return "NotAskedFor", f"the request asked for {chosen} by hand"
    if plan.reason == "Gain" and plan.scores is not None:
        return _not_worth_it(plan, rung, plan.scores.gain)
    others = {
        "LongContext": ("NotForLength", f"about {tokens} prompt tokens go to {chosen}"),
        "ClassRule": ("OtherClass", f"class {plan.class_name} goes to {chosen} by the policy"),
    }
    return others.get(plan.reason, ("NotDefault", f"the default tier is {chosen}"))


def _not_worth_it(plan: Plan, rung: Rung, gain: float) -> tuple[str, str]:
    threshold = plan.ladder.gain_threshold
    if not rung.graded:
        return "OnlyForLength", "only long prompts go to this tier"
    if rung.index < plan.rung.index:
        return "GainWorthIt", f"a stronger tier promises {gain:+.2f} accuracy, at least the {threshold:.2f} it must"
    return "GainTooSmall", f"it would add less than the {threshold:.2f} accuracy a step must promise"


_SENTENCES: Final[dict[Reason, str]] = {
    "PoolByName": "model {facts.model} names pool {plan.pool}",
    "TierHeader": "x-trimtab-tier asks for {plan.tier}",
    "BudgetHeader": "{facts.budget_field} {facts.budget} of 100 is tier {plan.tier}",
    "BudgetField": "{facts.budget_field} {facts.budget} of 100 is tier {plan.tier}",
    "ReasoningEffort": "reasoning_effort {facts.effort} is tier {plan.tier}",
    "LongContext": "about {facts.prompt_tokens} prompt tokens need tier {plan.tier}",
    "ClassRule": "class {plan.class_name} goes to {plan.tier} by the policy",
    "Gain": "class {plan.class_name}: the next tier promises {scores.gain:+.2f} accuracy",
    "OutOfDomain": "less familiar than {scores.out_of_domain:.0%} of the training data: the default tier",
    "ClassifierMiss": "the classifier gave no answer in time: the default tier",
    "ClassifierOff": "the classifier is switched off: the default tier",
    "Fallback": "the pool of tier {plan.choice.rung.name} refused: tier {plan.tier} serves instead",
}


def sentence(plan: Plan) -> str:
    """Why the plan's tier was chosen."""
    return _SENTENCES[plan.reason].format(plan=plan, facts=plan.facts, scores=plan.scores)


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """The JSON of `/v1/explain` and of `trimtab explain`."""
    facts, scores = plan.facts, plan.scores
    return {
        "tier": plan.tier,
        "pool": plan.pool,
        "class": plan.class_name,
        "budget": _budget(plan.budget) | {"samples": samples(plan.spending.strategy)},
        "strategy": plan.strategy,
        "spending": _spending(plan),
        "reason": plan.reason,
        "message": sentence(plan),
        "fallbacks": [{"tier": r.name, "pool": r.pool.name} for r in plan.fallbacks],
        "facts": {
            "prompt_tokens": facts.prompt_tokens,
            "turns": facts.turns,
            "tools": facts.tools,
            "json_schema": facts.json_schema,
            "expected_output_tokens": plan.expected_output_tokens(),
        },
        "scores": None
        if scores is None
        else {
            "class_probability": round(scores.class_probability, 4),
            "gain": round(scores.gain, 4),
            "gain_threshold": round(plan.ladder.gain_threshold, 4) if 0 < plan.ladder.config.quality < 100 else None,
            "output_tokens_p50": scores.output_tokens_p50,
            "output_tokens_p90": scores.output_tokens_p90,
            "out_of_domain": round(scores.out_of_domain, 4),
        },
        "candidates": [_candidate_as_dict(c) for c in candidates(plan)],
    }


def _spending(plan: Plan) -> dict[str, Any]:
    """How the strategy works, what may escalate, and the bound over all attempts."""
    spending = plan.spending
    limits, strategy, steps = spending.limits, spending.strategy, spending.escalation.max_steps
    return {
        "options": strategy.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "single_because_of": spending.note or None,
        "escalation": spending.escalation.model_dump(mode="json") if steps else None,
        "ceiling": {
            "tokens": limits.tokens,
            "seconds": limits.seconds,
            "cost": None if limits.cost_nanos is None else limits.cost_nanos / NANOS,
        },
    }


def _candidate_as_dict(candidate: Candidate) -> dict[str, Any]:
    return {
        "tier": candidate.tier,
        "pool": candidate.pool,
        "budget": _budget(candidate.budget),
        "cost": candidate.budget.cost,
        "seconds": candidate.budget.seconds,
        "accepted": candidate.accepted,
        "reason": candidate.reason,
        "message": candidate.message,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "thinking_tokens": budget.thinking_tokens,
        "output_tokens": budget.output_tokens,
        "samples": budget.samples,
        "seconds": round(budget.seconds, 4),
        "cost": round(budget.cost, 8),
    }
