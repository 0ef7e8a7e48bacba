"""A plan for one request and the arithmetic of its budget."""

from dataclasses import dataclass, field
from typing import Final, Literal

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import EscalationConfig, StrategyConfig
from trimtab_router.core.ceiling import Limits
from trimtab_router.core.costs import least_thinking, price, samples
from trimtab_router.core.facts import Facts
from trimtab_router.core.ladder import Ladder, Rung
from trimtab_router.core.learned import Step, steps
from trimtab_router.core.scores import Scores

UNSCORED: Final = "unscored"
"""The class of a request that no score was needed for."""
THINKING_SHARE: Final = 0.5
"""Part of a thinking budget that is used on average; only demand is estimated with it."""
_LEAST_ANSWER_TOKENS: Final = 256
VERDICT_TOKENS: Final = 16
"""Of a verifier's answer; only costs are estimated with it."""
_PASS_ON: Final = frozenset({StrategyType.MIXED_FORM, StrategyType.CASCADE})

Reason = Literal[
    "PoolByName",
    "TierHeader",
    "BudgetHeader",
    "BudgetField",
    "ReasoningEffort",
    "LongContext",
    "ClassRule",
    "Gain",
    "Learned",
    "Explored",
    "Unsolvable",
    "Busy",
    "TenantLimit",
    "OutOfDomain",
    "ClassifierMiss",
    "ClassifierOff",
    "Fallback",
]


@dataclass(frozen=True, slots=True)
class Budget:
    """What the request may use."""

    thinking_tokens: int | None
    """None: a pool addressed by name, which nothing bounds."""
    output_tokens: int | None
    """Tokens of the answer after the thinking."""
    seconds: float
    """Time to the last token, when the whole budget is used and the engine does not queue."""
    cost: float
    """Price of the GPU time, currency units."""
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A tier and what fixed the budget there."""

    rung: Rung
    reason: Reason
    thinking_tokens: int | None = None
    """Asked for by hand; it also holds on fallbacks."""
    class_budget: tuple[int, int] | None = None
    """Thinking and output tokens of the class rule."""
    strict: bool = False
    """The tier itself was asked for: nothing else may serve the request."""
    learned_thinking_tokens: int | None = None
    """A budget other than the tier's own that was learned to be better there."""
    strategy: StrategyConfig | None = None
    """A strategy other than the tier's own that was learned to be better there."""
    wanted: Rung | None = None
    """The tier that was full; the demand is its."""


STRATEGY_NAMES: Final = {
    StrategyType.SINGLE: "single",
    StrategyType.SELF_CONSISTENCY: "self-consistency",
    StrategyType.MIXED_FORM: "mixed-form",
    StrategyType.BEST_OF_N: "best-of-n",
    StrategyType.REFINE: "refine",
    StrategyType.CASCADE: "cascade",
    StrategyType.SHORT_DRAFT: "short-draft",
    StrategyType.BUDGET_FORCING: "budget-forcing",
}


@dataclass(frozen=True, slots=True)
class Spending:
    """How the budget is spent, and the bound over everything that is tried."""

    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    escalation: EscalationConfig = field(default_factory=EscalationConfig)
    limits: Limits = field(default_factory=Limits)
    note: str = ""
    """The field for which it is a single answer although the policy names another strategy."""

    @property
    def alone(self) -> bool:
        """One answer that nobody looks at: it passes through."""
        return self.strategy.type is StrategyType.SINGLE and not self.escalation.max_steps


SINGLE: Final = Spending()


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision for one request."""

    rung: Rung
    budget: Budget
    reason: Reason
    class_name: str
    choice: Choice
    facts: Facts
    scores: Scores | None
    ladder: Ladder
    spent: tuple[Rung, ...] = ()
    """Fallbacks that were used."""
    spending: Spending = SINGLE

    @property
    def fallbacks(self) -> tuple[Rung, ...]:
        """What may serve next when the pool refuses."""
        if self.choice.strict:
            return ()
        return tuple(r for r in others(self.choice.rung, self.facts, self.ladder) if r not in self.spent)

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return STRATEGY_NAMES[self.spending.strategy.type]

    @property
    def tier(self) -> str:
        """Name of the tier."""
        return self.rung.name

    @property
    def pool(self) -> str:
        """Name of the tier's pool."""
        return self.rung.pool.name

    @property
    def demand(self) -> str:
        """Name of the tier whose demand this is: the one that was full where another serves instead."""
        return (self.choice.wanted or self.rung).name

    def expected_output_tokens(self) -> int:
        """Part of the thinking budget and the predicted length of the answer, within the client's cap."""
        return expected_tokens(self.rung, self.budget, self.spending.strategy, self.facts, self.scores)


def expected_tokens(rung: Rung, budget: Budget, strategy: StrategyConfig, facts: Facts, scores: Scores | None) -> int:
    """Output tokens that one answer with a budget is expected to have on a tier."""
    output = budget.output_tokens or rung.output_tokens
    answer = min(scores.output_tokens_p50, output) if scores else output // 2
    tokens = expected_thinking(strategy, budget.thinking_tokens or 0) + answer
    return tokens if facts.max_tokens is None else min(tokens, facts.max_tokens)


def expected_thinking(strategy: StrategyConfig, thinking_tokens: int) -> int:
    """Of a thinking budget, what is likely to be used."""
    return max(int(thinking_tokens * THINKING_SHARE), least_thinking(strategy, thinking_tokens))


def strategy_header(plan: Plan) -> str:
    """The header line, with a CRLF before it; sent where the policy has strategies, escalation or a ceiling."""
    note = plan.spending.note
    return f"\r\nx-trimtab-strategy: {plan.strategy}{f'; because={note}' if note else ''}"


def fits(rung: Rung, facts: Facts) -> bool:
    """The tenant may use it, and the prompt and the least useful answer (or the client's own cap) fit its context."""
    if facts.top is not None and rung.index > facts.top:
        return False
    context = rung.pool.context_tokens
    if context is None:
        return True
    answer = min(rung.output_tokens, _LEAST_ANSWER_TOKENS) if facts.max_tokens is None else facts.max_tokens
    return facts.prompt_tokens + answer <= context


def allowed(facts: Facts, ladder: Ladder) -> tuple[Rung, ...]:
    """The graded tiers that the tenant may use; the cheapest tier where there is none of them."""
    if facts.top is None:
        return ladder.graded
    return tuple(r for r in ladder.graded if r.index <= facts.top) or ladder.rungs[:1]


def arms(facts: Facts, scores: Scores, ladder: Ladder) -> list[Step]:
    """Every combination on the tiers that quality may choose of which something is known, for this query.

    Where only one answer can serve the request, other strategies than the tiers' own are left out.
    """
    table = ladder.tables.get(scores.class_name, ladder.plain)
    found = steps(table, scores.gain, len(allowed(facts, ladder)))
    return [step for step in found if step.own_strategy] if facts.one_attempt or facts.greedy else found


def expected_cost(rung: Rung, step: Step, facts: Facts, scores: Scores | None, ladder: Ladder) -> float:
    """Likely price of a combination, currency units: as many answers as it may ask for, of likely length.

    Where nothing was learned it is that of one answer: a predicted gain says nothing of what votes are worth. 0 where
    the capacity of the tier's pool is unknown.
    """
    answer = min(scores.output_tokens_p50, rung.output_tokens) if scores else rung.output_tokens // 2
    strategy = ladder.strategy(rung, step.strategy)
    tokens = expected_thinking(strategy, step.thinking_tokens) + answer
    tokens = tokens if facts.max_tokens is None else min(tokens, facts.max_tokens)
    if not step.quality.learned:
        return price_on(rung, facts.prompt_tokens, tokens)
    return spent(rung, strategy, facts.prompt_tokens, tokens, ladder)


def price_on(rung: Rung, prompt_tokens: int, tokens: int) -> float:
    """Price of one answer on a tier, currency units; the prompt is read where the tier has it read."""
    if rung.prefill is None:
        return price(rung.pool, prompt_tokens, tokens)
    return price(rung.pool, 0, tokens) + price(rung.prefill, prompt_tokens, 1)


def spent(rung: Rung, strategy: StrategyConfig, prompt_tokens: int, tokens: int, ladder: Ladder) -> float:
    """Price of a strategy whose answers have that many tokens, currency units.

    A verifier reads every answer; what may be passed on to the next tier is counted once.
    """
    each = price_on(rung, prompt_tokens, tokens)
    if strategy.verifier_pool is not None and each:
        verifier = ladder.config.pool(strategy.verifier_pool)
        each += price(verifier, prompt_tokens + tokens, VERDICT_TOKENS)
    total = samples(strategy) * each
    following = ladder.rungs[rung.index + 1 : rung.index + 2] if strategy.type in _PASS_ON and each else ()
    for following_rung in following:
        total += price_on(following_rung, prompt_tokens, tokens)
    return total


def others(chosen: Rung, facts: Facts, ladder: Ladder) -> tuple[Rung, ...]:
    """Stronger tiers first, nearest first, then weaker ones; only those that hold the prompt."""
    after, before = ladder.rungs[chosen.index + 1 :], ladder.rungs[: chosen.index]
    return tuple(r for r in (*after, *reversed(before)) if fits(r, facts))


def budget_on(rung: Rung, facts: Facts, choice: Choice) -> Budget:
    """The budget of the request on `rung`, whether it was chosen or is a fallback.

    The client's own `thinking_token_budget` can only lower the thinking. The client's own cap on all tokens is kept;
    the thinking then shrinks so that half of the cap, or the output budget where that is less, is left for the answer.
    """
    own = facts.thinking_token_budget
    if facts.pool is not None:
        thinking = choice.thinking_tokens if own is None or own < 0 else own
        output = facts.max_tokens
        return priced(rung, facts, thinking, output)
    thinking, output = rung.thinking_tokens, rung.output_tokens
    if choice.class_budget is not None and rung is choice.rung:
        thinking, output = choice.class_budget
    if choice.learned_thinking_tokens is not None and rung is choice.rung:
        thinking = choice.learned_thinking_tokens
    if choice.thinking_tokens is not None:
        thinking = choice.thinking_tokens
    if not rung.pool.reasoning:
        thinking = 0
    if own is not None and own >= 0:
        thinking = min(thinking, own)
    cap = facts.max_tokens
    if cap is not None:
        thinking = min(thinking, cap - min(output, (cap + 1) // 2))
        output = cap - thinking
    return priced(rung, facts, thinking, output)


def priced(rung: Rung, facts: Facts, thinking: int | None, output: int | None) -> Budget:
    """A budget with its time and price."""
    pool = rung.pool
    tokens = (rung.thinking_tokens if thinking is None else thinking) + (
        rung.output_tokens if output is None else output
    )
    reader = rung.prefill
    prefill = facts.prompt_tokens * (reader or pool).prompt_token_seconds
    seconds = prefill + tokens * pool.output_token_latency_seconds
    return Budget(thinking, output, seconds, price_on(rung, facts.prompt_tokens, tokens))
