"""The wire document compiled for decisions: tiers in order, look-ups by name, thresholds as numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import (
    CeilingConfig,
    ClassConfig,
    ManualConfig,
    PlanningConfig,
    PoolConfig,
    RouterConfig,
    StrategyConfig,
)
from trimtab_router.core.costs import price, samples
from trimtab_router.core.curve import Curve
from trimtab_router.core.learned import Table, Tier, curves, learn, table

_MOST_GAIN: Final = 0.4
"""Gain that is worth a step however cheap answers shall be."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A tier with its pool."""

    index: int
    name: str
    pool: PoolConfig
    thinking_tokens: int
    """0 where the pool's engine cannot enforce a budget."""
    output_tokens: int
    graded: bool
    """Quality decisions may choose it; see `_graded`."""
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    prefill: PoolConfig | None = None
    """The pool that reads its prompts, where another one does."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the requests of one tenant may use."""

    name: str
    top: int
    """Index of the strongest tier."""
    max_budget: int
    max_thinking_tokens: int | None
    keyed: bool = False
    """API keys name it."""
    ceiling: CeilingConfig | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """Everything a decision reads of a RouterConfig."""

    config: RouterConfig
    digest: str
    rungs: tuple[Rung, ...]
    by_name: dict[str, Rung]
    by_model: dict[str, Rung]
    """Rungs by the served name of their pool; the cheaper tier where two pools share one."""
    models: frozenset[str]
    graded: tuple[Rung, ...]
    classes: dict[str, ClassConfig]
    context: tuple[tuple[int, Rung], ...]
    """Thresholds, longest first."""
    default: Rung
    gain_threshold: float
    tables: dict[str, Table]
    """Combinations that something was learned of, by class."""
    plain: Table
    """The graded tiers as they are, for classes that nothing was learned of."""
    strategies: tuple[dict[StrategyType, StrategyConfig], ...]
    """What the policy allows on every tier: its own first, that of class lines that name it, and one answer."""
    budgets: tuple[tuple[int, ...], ...]
    """Thinking budgets of the policy that every tier could have, its own first."""
    inverts: bool
    """A stronger graded tier may cost less than a weaker one."""
    curves: dict[tuple[str, str], Curve]
    """What was learned of budgets: accuracy against thinking tokens, by class and tier."""
    planning: PlanningConfig
    tenants: dict[str, Limits]
    keyed: bool
    """Requests need an API key, unless a tenant without keys takes them."""
    out_of_domain: float
    """Scores at or above it are unfamiliar; above 1 never."""
    spends: bool
    """Some query may get more than a single answer."""
    bounds: bool
    """Some query has a ceiling."""

    @property
    def manual(self) -> ManualConfig:
        """What requests may choose by hand."""
        return self.config.manual

    @property
    def pools(self) -> tuple[PoolConfig, ...]:
        """Every pool that requests may be sent to, those of verifiers too."""
        return tuple(self.config.pools)

    def strategy(self, rung: Rung, kind: StrategyType) -> StrategyConfig:
        """How a tier spends a budget by that strategy."""
        return self.strategies[rung.index][kind]

    @property
    def policy(self) -> str:
        """`namespace/name`."""
        return self.config.policy


def gain_threshold(quality: int) -> float:
    """Gain in accuracy that a step up the ladder must promise, from the knob (0-100).

    `0.4 * ((100 - quality) / 100)^2`: 0.10 at 50, 0.025 at 75, 0.225 at 25, the range in which the packaged classifier
    predicts (its card: mean 0.1 on knowledge, 0.2 and more on competition math). The ends are exact: at 0 nothing is
    worth a step, at 100 everything is.
    """
    if quality <= 0:
        return float("inf")
    if quality >= 100:
        return float("-inf")
    return _MOST_GAIN * ((100 - quality) / 100) ** 2


def quality_of(threshold: float) -> int:
    """The knob, 1-99, whose `gain_threshold` is nearest to `threshold`."""
    share = sqrt(min(max(threshold, 0.0), _MOST_GAIN) / _MOST_GAIN)
    return min(99, max(1, round(100 * (1 - share))))


def _graded(config: RouterConfig) -> list[bool]:
    """Tiers that exist for long prompts only are no step in quality.

    A tier is one when a context threshold names it and its thinking budget is below that of a tier before it.
    """
    for_context = {c.tier for c in config.context}
    most, graded = 0, []
    for tier in config.tiers:
        graded.append(tier.name not in for_context or tier.thinking_tokens >= most)
        most = max(most, tier.thinking_tokens)
    return graded


def _rungs(config: RouterConfig) -> tuple[Rung, ...]:
    rungs = []
    for i, (tier, graded) in enumerate(zip(config.tiers, _graded(config), strict=True)):
        pool = config.pool(tier.pool)
        thinking = tier.thinking_tokens if pool.reasoning else 0
        reader = None if tier.prefill_pool is None else config.pool(tier.prefill_pool)
        rungs.append(Rung(i, tier.name, pool, thinking, tier.output_tokens, graded, tier.strategy, reader))
    return tuple(rungs)


def _strategies(rung: Rung, config: RouterConfig) -> dict[StrategyType, StrategyConfig]:
    named = [c.strategy for c in config.classes if c.tier == rung.name and c.strategy is not None]
    found: dict[StrategyType, StrategyConfig] = {}
    for strategy in (rung.strategy, *named, StrategyConfig()):
        found.setdefault(strategy.type, strategy)
    return found


def _budgets(rung: Rung, config: RouterConfig) -> tuple[int, ...]:
    if not rung.pool.reasoning:
        return (0,)
    named = (*(t.thinking_tokens for t in config.tiers), *(c.thinking_tokens for c in config.classes))
    others = sorted({tokens for tokens in named if tokens is not None} - {rung.thinking_tokens})
    return rung.thinking_tokens, *others


def _inverts(graded: tuple[Rung, ...]) -> bool:
    """Prices are compared part by part: what is nowhere cheaper never is."""
    parts = [
        (
            price(r.prefill or r.pool, 1, 0),
            price(r.pool, 0, 1),
            r.thinking_tokens,
            r.output_tokens,
        )
        for r in graded
    ]
    return any(
        any(later < earlier for earlier, later in zip(one, other, strict=True))
        for i, one in enumerate(parts)
        for other in parts[i + 1 :]
    )


def _most_thinking(rung: Rung) -> int:
    """An arm may think more than its tier does; nothing thinks where the engine cannot end it."""
    return 1 << 30 if rung.pool.reasoning else 0


def compile_ladder(config: RouterConfig) -> Ladder:
    """The ladder of a valid document."""
    rungs = _rungs(config)
    by_name = {r.name: r for r in rungs}
    learned = learn(config.outcomes or (), {r.name: _most_thinking(r) for r in rungs})
    graded = tuple(r for r in rungs if r.graded) or rungs
    strategies, budgets = tuple(_strategies(r, config) for r in rungs), tuple(_budgets(r, config) for r in rungs)
    fitted = curves(learned)
    tiers = [
        Tier(
            r.name,
            r.thinking_tokens,
            {kind: samples(strategy) for kind, strategy in strategies[r.index].items()},
            budgets[r.index],
        )
        for r in graded
    ]
    context = sorted(config.context, key=lambda c: c.min_prompt_tokens, reverse=True)
    percent = config.classifier.out_of_domain_percent
    return Ladder(
        config=config,
        digest=config.digest(),
        rungs=rungs,
        by_name=by_name,
        by_model={r.pool.served_name: r for r in reversed(rungs)},
        models=frozenset(config.models),
        graded=graded,
        classes={c.name: c for c in config.classes},
        context=tuple((c.min_prompt_tokens, by_name[c.tier]) for c in context),
        default=by_name[config.classifier.default_tier],
        gain_threshold=gain_threshold(config.quality),
        tables={
            name: table(tiers, arms, {tier: curve for (of, tier), curve in fitted.items() if of == name})
            for name, arms in learned.items()
        },
        plain=table(tiers, {}, {}),
        strategies=strategies,
        budgets=budgets,
        inverts=_inverts(graded),
        curves=fitted,
        planning=config.planning or PlanningConfig(),
        tenants=_tenants(config, by_name),
        keyed=any(t.keyed for t in config.tenants or ()),
        out_of_domain=percent / 100 if percent < 100 else 2.0,
        spends=_spends(config),
        bounds=_bounds(config),
    )


def _tenants(config: RouterConfig, by_name: Mapping[str, Rung]) -> dict[str, Limits]:
    """What each tenant may use."""
    return {
        t.name: Limits(
            t.name,
            len(by_name) - 1 if t.max_tier is None else by_name[t.max_tier].index,
            t.max_budget,
            t.max_thinking_tokens,
            t.keyed is True,
            t.ceiling,
        )
        for t in config.tenants or ()
    }


def _bounds(config: RouterConfig) -> bool:
    """Somebody's queries have a ceiling."""
    others = (*config.classes, *(config.tenants or ()))
    return any(c is not None and c != CeilingConfig() for c in (config.ceiling, *(o.ceiling for o in others)))


def _spends(config: RouterConfig) -> bool:
    strategies = (*(t.strategy for t in config.tiers), *(c.strategy for c in config.classes))
    return config.escalation.max_steps > 0 or any(
        s is not None and s.type is not StrategyType.SINGLE for s in strategies
    )
