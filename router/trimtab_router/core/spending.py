"""How one query spends its budget: the strategy of its tier or class, and the ceiling that bounds it."""

from dataclasses import replace
from typing import Final

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import EscalationConfig, StrategyConfig
from trimtab_router.core.ceiling import LEAST_TOKENS, Ledger, Price, limits
from trimtab_router.core.disaggregated import READS
from trimtab_router.core.errors import ApiError
from trimtab_router.core.facts import Facts
from trimtab_router.core.ladder import Ladder
from trimtab_router.core.plan import SINGLE, Budget, Choice, Plan, Spending, priced

TOKENS_A_BYTE: Final = 4
"""Estimates count four bytes a token; no token is shorter than a byte, so this many times the estimate is the most."""
_SAMPLE: Final = frozenset({StrategyType.SELF_CONSISTENCY, StrategyType.BEST_OF_N, StrategyType.CASCADE})
_OFF: Final = EscalationConfig()
_ALONE: Final = StrategyConfig()


def spending_on(choice: Choice, class_name: str, facts: Facts, ladder: Ladder) -> Spending:
    """The strategy, escalation and ceiling of a query. A pool that is asked for by name is passed through unbounded."""
    if facts.pool is not None or not (ladder.spends or ladder.bounds):
        return SINGLE
    rule, config = ladder.classes.get(class_name), ladder.config
    strategy = choice.rung.strategy if choice.strategy is None else choice.strategy
    if rule is not None and rule.strategy is not None and choice.reason == "ClassRule":
        strategy = rule.strategy
    escalation = config.escalation if rule is None or rule.escalate else _OFF
    bound = limits(config.ceiling, rule.ceiling if rule is not None else None)
    wanted = Spending(strategy, escalation, bound)
    if facts.one_attempt and not wanted.alone:
        return Spending(_ALONE, _OFF, bound, facts.one_attempt)
    if strategy.type is StrategyType.BUDGET_FORCING:
        return Spending(strategy, _OFF, bound)  # what is forced to go on is not cut for wandering
    if facts.greedy and strategy.type in _SAMPLE and strategy.samples > 1:
        return Spending(_ALONE, escalation, bound, "temperature")
    return wanted


def within_ceiling(plan: Plan) -> Plan:
    """The plan with a budget that one attempt can use up; raises ApiError where the ceiling leaves no room for one."""
    bound, pool, facts = plan.spending.limits, plan.rung.pool, plan.facts
    wanted = (plan.budget.thinking_tokens or 0) + (plan.budget.output_tokens or plan.rung.output_tokens)
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
            f"messages: the policy's ceiling leaves {each} tokens for an answer of about {facts.prompt_tokens} prompt "
            f"tokens on tier {plan.tier}; shorten the prompt, ask for a cheaper tier or for fewer answers",
            param="messages",
            code="ceiling_reached",
        )
    return plan if each >= wanted else replace(plan, budget=shrunk(plan, each))


def most_prompt_tokens(facts: Facts) -> int:
    """The most tokens that the prompt can have."""
    return facts.prompt_tokens * TOKENS_A_BYTE + TOKENS_A_BYTE


def shrunk(plan: Plan, tokens: int) -> Budget:
    """The plan's budget within that many tokens: the thinking shrinks first, down to half of them."""
    thinking, output = plan.budget.thinking_tokens or 0, plan.budget.output_tokens or plan.rung.output_tokens
    thinking = min(thinking, tokens - min(output, (tokens + 1) // 2))
    return priced(plan.rung, plan.facts, thinking, tokens - thinking)
