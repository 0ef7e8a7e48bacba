"""How one query spends its budget: the strategy of its tier or class, and the ceiling that bounds it."""

from dataclasses import replace
from typing import Final

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import CeilingConfig, ClassConfig, EscalationConfig, StrategyConfig
from trimtab_router.core.ceiling import LEAST_TOKENS, POLICY, Ledger, Limits, Price, limits
from trimtab_router.core.disaggregated import READS
from trimtab_router.core.errors import ApiError
from trimtab_router.core.facts import Facts
from trimtab_router.core.ladder import Ladder
from trimtab_router.core.plan import SINGLE, Budget, Choice, Plan, Spending, priced

TOKENS_A_BYTE: Final = 4
"""Estimates count four bytes a token; no token is shorter than a byte, so this many times the estimate is the most."""
UNBOUNDED_TOKENS: Final = 10_000_000
"""More than any context holds: of an answer that nothing but the engine ends."""
_SAMPLE: Final = frozenset({StrategyType.SELF_CONSISTENCY, StrategyType.BEST_OF_N, StrategyType.CASCADE})
_OFF: Final = EscalationConfig()
_ALONE: Final = StrategyConfig()


def spending_on(choice: Choice, class_name: str, facts: Facts, ladder: Ladder) -> Spending:
    """The strategy, escalation and ceiling of a query.

    A pool that is asked for by name is passed through; nothing but its tenant's ceiling bounds it.
    """
    if not (ladder.spends or ladder.bounds):
        return SINGLE
    if facts.pool is not None:
        own = _bound(None, facts, ladder)
        return Spending(limits=own) if own.bounds else SINGLE
    rule, config = ladder.classes.get(class_name), ladder.config
    strategy = choice.rung.strategy if choice.strategy is None else choice.strategy
    if rule is not None and rule.strategy is not None and choice.reason == "ClassRule":
        strategy = rule.strategy
    escalation = config.escalation if rule is None or rule.escalate else _OFF
    bound = _bound(rule, facts, ladder)
    wanted = Spending(strategy, escalation, bound)
    if facts.one_attempt and not wanted.alone:
        return Spending(_ALONE, _OFF, bound, facts.one_attempt)
    if strategy.type is StrategyType.BUDGET_FORCING:
        return Spending(strategy, _OFF, bound)  # what is forced to go on is not cut for wandering
    if facts.greedy and strategy.type in _SAMPLE and strategy.samples > 1:
        return Spending(_ALONE, escalation, bound, "temperature")
    return wanted


def _bound(rule: ClassConfig | None, facts: Facts, ladder: Ladder) -> Limits:
    """The lowest of the policy's, the class's and the tenant's ceilings."""
    ceilings: dict[str, CeilingConfig | None] = {} if facts.pool is not None else {POLICY: ladder.config.ceiling}
    if rule is not None:
        ceilings[f"class {rule.name}"] = rule.ceiling
    if facts.tenant is not None:
        ceilings[f"tenant {facts.tenant}"] = ladder.tenants[facts.tenant].ceiling
    return limits(ceilings)


def within_ceiling(plan: Plan) -> Plan:
    """The plan with a budget that one attempt can use up; raises ApiError where the ceiling leaves no room for one."""
    bound, pool, facts = plan.spending.limits, plan.rung.pool, plan.facts
    wanted = _wanted(plan)
    ledger = Ledger(bound, 0.0)
    for before in {plan.choice.rung.index: plan.choice.rung, **{r.index: r for r in plan.spent}}.values():
        if before.prefill is not None and before is not plan.rung:  # its prompt may have been read there in vain
            ledger.spent_tokens += READS
            ledger.spent_nanos += READS * Price.of(before.prefill).nanos(most_prompt_tokens(facts), 1)
    room = ledger.room(Price.of(pool, plan.rung.prefill), most_prompt_tokens(facts), wanted * facts.answers, 0.0)
    each = room // facts.answers
    if each < min(wanted, LEAST_TOKENS):
        raise ApiError(
            400,
            f"messages: {bound.whose('tokens', 'cost')} ceiling leaves {each} tokens for an answer of about "
            f"{facts.prompt_tokens} prompt tokens on tier {plan.tier}; shorten the "
            "prompt, ask for a cheaper tier or for fewer answers",
            param="messages",
            code="ceiling_reached",
        )
    if each >= wanted:
        return plan
    if facts.pool is not None:
        return replace(plan, budget=priced(plan.rung, facts, plan.budget.thinking_tokens, each))
    return replace(plan, budget=shrunk(plan, each))


def _wanted(plan: Plan) -> int:
    """The most tokens of one answer: the budget, or what the engine would do for a pool that is asked for by name."""
    budget, facts, context = plan.budget, plan.facts, plan.rung.pool.context_tokens
    if facts.pool is None:
        return (budget.thinking_tokens or 0) + (budget.output_tokens or plan.rung.output_tokens)
    if facts.max_tokens is not None:
        return facts.max_tokens
    room = UNBOUNDED_TOKENS if context is None else context - facts.prompt_tokens - facts.prompt_tokens // 4
    return max(room, LEAST_TOKENS)


def most_prompt_tokens(facts: Facts) -> int:
    """The most tokens that the prompt can have."""
    return facts.prompt_tokens * TOKENS_A_BYTE + TOKENS_A_BYTE


def shrunk(plan: Plan, tokens: int) -> Budget:
    """The plan's budget within that many tokens: the thinking shrinks first, down to half of them."""
    thinking, output = plan.budget.thinking_tokens or 0, plan.budget.output_tokens or plan.rung.output_tokens
    thinking = min(thinking, tokens - min(output, (tokens + 1) // 2))
    return priced(plan.rung, plan.facts, thinking, tokens - thinking)
