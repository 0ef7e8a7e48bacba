"""A plan in words: every candidate with the reason for which it was chosen or rejected."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import StrategyConfig
from trimtab_router.core.ceiling import NANOS
from trimtab_router.core.costs import least_thinking, samples
from trimtab_router.core.curve import Curve
from trimtab_router.core.ladder import Rung
from trimtab_router.core.learned import Quality, Step, undercuts
from trimtab_router.core.plan import (
    STRATEGY_NAMES,
    Budget,
    Choice,
    Plan,
    Reason,
    allowed,
    arms,
    budget_on,
    expected_cost,
    expected_tokens,
    fits,
    spent,
)
from trimtab_router.core.spending import spending_on


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tier with a budget that was considered."""

    tier: str
    pool: str
    strategy: str
    budget: Budget
    expected_tokens: int
    """Output tokens that are likely, thinking included."""
    expected_cost: float
    """Price of the prompt and those tokens, currency units."""
    quality: Quality | None
    """None where no score was needed."""
    accepted: bool
    reason: str
    """CamelCase, stable."""
    message: str


def candidates(plan: Plan) -> tuple[Candidate, ...]:
    """Every tier, cheap to strong, and every other budget that something was learned of."""
    found = []
    learned = _arms(plan)
    for rung in plan.ladder.rungs:
        here = [a.step for a in learned if a.rung == rung.index]
        own = [step for step in here if step.own and step.own_strategy]
        found.append(_candidate(plan, rung, own[0] if own else None))
        others = [step for step in here if not (step.own and step.own_strategy)]
        found += [_candidate(plan, rung, step) for step in others]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Arm:
    """A step with the index of its tier among all."""

    rung: int
    step: Step


def _arms(plan: Plan) -> list[_Arm]:
    if plan.scores is None:
        return []
    graded = allowed(plan.facts, plan.ladder)
    return [_Arm(graded[step.rung].index, step) for step in arms(plan.facts, plan.scores, plan.ladder)]


def _candidate(plan: Plan, rung: Rung, step: Step | None) -> Candidate:
    learned = None if step is None or step.own else step.thinking_tokens
    strategy = None if step is None or step.own_strategy else step.strategy
    chosen = rung is plan.rung and learned == _learned_thinking(plan) and strategy == _learned_strategy(plan)
    reason, message = (str(plan.reason), sentence(plan)) if chosen else _rejection(plan, rung, step)
    budget = plan.budget if chosen else _budget_of(plan, rung, learned)
    how = plan.spending.strategy if chosen else _strategy_of(plan, rung, strategy)
    tokens = expected_tokens(rung, budget, how, plan.facts, plan.scores)
    return Candidate(
        rung.name,
        rung.pool.name,
        STRATEGY_NAMES[how.type],
        budget,
        tokens,
        spent(rung, how, plan.facts.prompt_tokens, tokens, plan.ladder),
        None if step is None else step.quality,
        chosen,
        reason,
        message,
    )


def _strategy_of(plan: Plan, rung: Rung, learned: StrategyType | None) -> StrategyConfig:
    """How the request would spend a budget there."""
    choice = Choice(rung, plan.reason, strategy=None if learned is None else plan.ladder.strategy(rung, learned))
    return spending_on(choice, plan.class_name, plan.facts, plan.ladder).strategy


def _learned_thinking(plan: Plan) -> int | None:
    """The learned budget that the plan uses; a fallback uses its tier's own."""
    return plan.choice.learned_thinking_tokens if plan.rung is plan.choice.rung else None


def _learned_strategy(plan: Plan) -> StrategyType | None:
    strategy = plan.choice.strategy
    return None if strategy is None or plan.rung is not plan.choice.rung else strategy.type


def _budget_of(plan: Plan, rung: Rung, learned: int | None) -> Budget:
    """The budget that the request would have as another candidate."""
    rule = plan.choice.class_budget if rung is plan.choice.rung else None
    return budget_on(
        rung, plan.facts, replace(plan.choice, rung=rung, class_budget=rule, learned_thinking_tokens=learned)
    )


def _rejection(plan: Plan, rung: Rung, step: Step | None) -> tuple[str, str]:
    tokens, chosen, facts = plan.facts.prompt_tokens, plan.tier, plan.facts
    if facts.top is not None and rung.index > facts.top:
        return "TenantLimit", f"tenant {facts.tenant} may use tiers up to {plan.ladder.rungs[facts.top].name}"
    if not fits(rung, facts):
        room = rung.pool.context_tokens
        return "ContextTooShort", f"about {tokens} prompt tokens and the answer do not fit {room} tokens"
    if facts.by_hand:
        return "NotAskedFor", f"the request asked for {chosen} by hand"
    if rung is plan.choice.wanted:
        return "Full", f"its pool {rung.pool.name} holds as much as it is planned for"
    if plan.reason in ("Gain", "Learned") and plan.scores is not None:
        return _not_worth_it(plan, plan.scores.gain, step)
    others = {
        "LongContext": ("NotForLength", f"about {tokens} prompt tokens go to {chosen}"),
        "ClassRule": ("OtherClass", f"class {plan.class_name} goes to {chosen} by the policy"),
        "Explored": ("NotDrawn", f"the draw is {chosen}"),
        "Unsolvable": ("Unsolvable", f"hardly any answer to class {plan.class_name} is right here"),
        "Busy": ("NotNext", f"{chosen} is the next tier with room"),
    }
    return others.get(plan.reason, ("NotDefault", f"the default tier is {chosen}"))


def _not_worth_it(plan: Plan, gain: float, step: Step | None) -> tuple[str, str]:
    threshold = plan.ladder.gain_threshold
    if step is None:
        return "OnlyForLength", "only long prompts go to this tier"
    better = _undercuts(plan, step)
    if better is not None:
        by = plan.ladder.graded[better.rung].name
        return "Dearer", f"tier {by} with {better.thinking_tokens} thinking tokens is at least as good and costs less"
    if step.place < _place(plan):
        more = f"{gain:+.2f} accuracy" if plan.reason == "Gain" else "more accuracy, by what was learned"
        return "GainWorthIt", f"a stronger tier promises {more}, at least the {threshold:.2f} it must"
    return "GainTooSmall", f"it would add less than the {threshold:.2f} accuracy a step must promise"


def _undercuts(plan: Plan, step: Step) -> Step | None:
    """The cheapest candidate for which this one is none."""
    if plan.scores is None:
        return None
    costs = [(_cost(plan, other), other) for other in arms(plan.facts, plan.scores, plan.ladder)]
    able = [(cost, other) for cost, other in costs if undercuts(other, step, cost, _cost(plan, step))]
    return min(able, key=lambda found: found[0])[1] if able else None


def _cost(plan: Plan, step: Step) -> float:
    return expected_cost(plan.ladder.graded[step.rung], step, plan.facts, plan.scores, plan.ladder)


def _place(plan: Plan) -> float:
    """Where the plan is on the ladder."""
    for arm in _arms(plan):
        thinking = None if arm.step.own else arm.step.thinking_tokens
        strategy = None if arm.step.own_strategy else arm.step.strategy
        if arm.rung == plan.rung.index and (thinking, strategy) == (_learned_thinking(plan), _learned_strategy(plan)):
            return arm.step.place
    return float(plan.rung.index)


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A combination that the policy allows and of which nothing is known."""

    tier: str
    pool: str
    strategy: str
    thinking_tokens: int


def unmeasured(plan: Plan) -> tuple[Unmeasured, ...]:
    """Other budgets of the policy, and other strategies, on the tiers that quality may choose."""
    if plan.scores is None:
        return ()
    ladder, known = plan.ladder, {(a.rung, a.step.thinking_tokens, a.step.strategy) for a in _arms(plan)}
    return tuple(
        Unmeasured(rung.name, rung.pool.name, STRATEGY_NAMES[strategy], tokens)
        for rung in allowed(plan.facts, ladder)
        for strategy, how in ladder.strategies[rung.index].items()
        for tokens in ladder.budgets[rung.index]
        if (rung.index, tokens, strategy) not in known and (how.forcing is None or least_thinking(how, tokens) < tokens)
    )


_SENTENCES: Final[dict[Reason, str]] = {
    "PoolByName": "model {facts.model} names pool {plan.pool}",
    "TierHeader": "x-trimtab-tier asks for {plan.tier}",
    "BudgetHeader": "{facts.budget_field} {facts.budget} of 100 is tier {plan.tier}",
    "BudgetField": "{facts.budget_field} {facts.budget} of 100 is tier {plan.tier}",
    "ReasoningEffort": "reasoning_effort {facts.effort} is tier {plan.tier}",
    "LongContext": "about {facts.prompt_tokens} prompt tokens need tier {plan.tier}",
    "ClassRule": "class {plan.class_name} goes to {plan.tier} by the policy",
    "Gain": "class {plan.class_name}: the next tier promises {scores.gain:+.2f} accuracy",
    "Learned": "class {plan.class_name}: by what was learned, nothing dearer is worth its steps",
    "Explored": "drawn by the query's hash, so that tiers can be compared",
    "Unsolvable": "hardly any answer to class {plan.class_name} is right here: tier {plan.tier} by planning.unsolvable",
    "Busy": "the pool of tier {plan.demand} is full: tier {plan.tier} serves instead",
    "TenantLimit": "tenant {facts.tenant} may use tiers up to {plan.tier}",
    "OutOfDomain": "less familiar than {scores.out_of_domain:.0%} of the training data: the default tier",
    "ClassifierMiss": "the classifier gave no answer in time: the default tier",
    "ClassifierOff": "the classifier is switched off: the default tier",
    "Fallback": "the pool of tier {plan.choice.rung.name} refused: tier {plan.tier} serves instead",
}


def sentence(plan: Plan) -> str:
    """Why the plan's tier was chosen."""
    return _SENTENCES[plan.reason].format(plan=plan, facts=plan.facts, scores=plan.scores)


def plan_as_dict(plan: Plan, packaged: Mapping[str, Curve] | None = None) -> dict[str, Any]:
    """The JSON of `/v1/explain` and of `trimtab explain`.

    `packaged` are curves by class; they say what more budget is worth where the policy's outcomes do not.
    """
    facts, scores = plan.facts, plan.scores
    return {
        "tier": plan.tier,
        "pool": plan.pool,
        **({} if plan.rung.prefill is None else {"prefill_pool": plan.rung.prefill.name}),
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
            "tenant": facts.tenant,
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
        "candidates": [
            _candidate_as_dict(c) | {"doubling": _doubling(plan, c, packaged or {})} for c in candidates(plan)
        ],
        "unmeasured": [
            asdict(found)
            | {"reason": "Unmeasured", "message": "no outcome of this class says how good it is, so it is no candidate"}
            for found in unmeasured(plan)
        ],
    }


def _doubling(plan: Plan, candidate: Candidate, packaged: Mapping[str, Curve]) -> dict[str, Any] | None:
    """What twice the thinking would add to the share of right answers; None where nothing was measured of that."""
    learned = plan.ladder.curves.get((plan.class_name, candidate.tier))
    for source, curve in (("outcomes", learned), ("packaged", packaged.get(plan.class_name))):
        worth = None if curve is None else curve.doubling(candidate.budget.thinking_tokens or 0)
        if curve is not None and worth is not None:
            found = {"mean": round(worth.mean, 4), "low": round(worth.low, 4), "high": round(worth.high, 4)}
            return found | {"form": curve.form, "source": source}
    return None


def _spending(plan: Plan) -> dict[str, Any]:
    """How the strategy works, what may escalate, and the bound over all attempts."""
    spending = plan.spending
    limits, strategy, steps = spending.limits, spending.strategy, spending.escalation.max_steps
    options = strategy.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if strategy.forcing is not None:
        options["forcing"] = strategy.forcing.model_dump(mode="json")
    return {
        "options": options,
        "single_because_of": spending.note or None,
        "escalation": spending.escalation.model_dump(mode="json") if steps else None,
        "ceiling": {
            "tokens": limits.tokens,
            "seconds": limits.seconds,
            "cost": None if limits.cost_nanos is None else limits.cost_nanos / NANOS,
            "of": dict(limits.owners),
        },
    }


def _candidate_as_dict(candidate: Candidate) -> dict[str, Any]:
    return {
        "tier": candidate.tier,
        "pool": candidate.pool,
        "strategy": candidate.strategy,
        "budget": _budget(candidate.budget),
        "cost": candidate.budget.cost,
        "seconds": candidate.budget.seconds,
        "expected_output_tokens": candidate.expected_tokens,
        "expected_cost": candidate.expected_cost,
        "quality": None if candidate.quality is None else _quality(candidate.quality),
        "accepted": candidate.accepted,
        "reason": candidate.reason,
        "message": candidate.message,
    }


def _quality(quality: Quality) -> dict[str, Any]:
    """A share of right answers where something was learned, else what is added to the cheapest tier."""
    return {
        "mean": round(quality.mean, 4),
        "low": round(quality.low, 4),
        "high": round(quality.high, 4),
        "source": quality.source,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "thinking_tokens": budget.thinking_tokens,
        "output_tokens": budget.output_tokens,
        "samples": budget.samples,
        "seconds": round(budget.seconds, 4),
        "cost": round(budget.cost, 8),
    }
