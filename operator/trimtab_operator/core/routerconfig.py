"""A RoutingPolicy and its pools to the document that routers read (`trimtab_crds.wire.RouterConfig`).

What no pool could keep is refused here, with the field, the value and the fix: a tier without a pool, a thinking budget
on an engine without a reasoning parser, a budget beyond the context.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import SpecInvalid
from trimtab_crds.planning import Planning, Tenant
from trimtab_crds.recipespec import SpeculationMethod
from trimtab_crds.routingpolicy import Budget, ClassRule, RebalanceMode, RoutingPolicy, Tier
from trimtab_crds.strategyspec import Ceiling, Strategy, StrategyType
from trimtab_crds.wire import (
    CanaryConfig,
    CeilingConfig,
    ClassConfig,
    ClassifierConfig,
    ContextConfig,
    EscalationConfig,
    ForcingConfig,
    ManualConfig,
    OutcomeConfig,
    PlanningConfig,
    PoolConfig,
    RouterConfig,
    StrategyConfig,
    TenantConfig,
    TierConfig,
)
from trimtab_operator.core.division import division_problems, role_of
from trimtab_operator.core.names import ENGINE_PORT, engine_host
from trimtab_operator.core.recipe import replica_for
from trimtab_operator.core.replica import planned_rates

Pools = Mapping[str, InferencePool]
#: Request fields that vLLM answers with 400 while it speculates.
_REFUSED_WITH_SPECULATION = ["logit_bias", "min_p"]
#: Reasoning parsers of vLLM 0.32 whose models end their reasoning with `</think>`.
_THINK_MARKS = frozenset({"deepseek_r1", "deepseek_v3", "ernie45", "glm45", "glm47", "nemotron_v3", "olmo3", "qwen3"})
_THINKING_END = "</think>"


def compile_config(
    policy: RoutingPolicy,
    pools: Pools,
    addresses: Mapping[str, Sequence[str]] | None = None,
    *,
    canaries: Mapping[str, CanaryConfig] = MappingProxyType({}),
) -> RouterConfig:
    """The policy's document.

    `pools` are those of the policy's namespace by name. `addresses` lists `host:port` of every replica by pool, for
    routers outside a cluster; without it a pool is found by the name of its headless Service. `canaries` are pools
    whose new revision is being tried. Raises SpecInvalid.
    """
    problems = [*_problems(policy, pools)]
    if problems:
        raise SpecInvalid(*problems)
    spec = policy.spec
    loaded = spec.planning.spill_percent > 0
    return RouterConfig(
        policy=policy.key,
        models=list(spec.models),
        tiers=[_tier(t) for t in spec.tiers],
        pools=[
            _pool(pools[n], None if addresses is None else addresses.get(n, ()), canaries.get(n), loaded=loaded)
            for n in policy.pool_names
        ],
        classes=[_class(c) for c in spec.classes],
        quality=spec.quality,
        manual=ManualConfig(**spec.manual.model_dump()),
        context=[ContextConfig(min_prompt_tokens=c.min_prompt_tokens, tier=c.tier) for c in spec.context],
        ceiling=_ceiling(spec.ceiling),
        escalation=EscalationConfig(**spec.escalation.model_dump()),
        planning=_planning(policy),
        outcomes=[OutcomeConfig(**o.model_dump()) for o in spec.outcomes] or None,
        tenants=[_tenant(t) for t in spec.tenants] or None,
        classifier=ClassifierConfig(
            deadline_milliseconds=spec.classifier.deadline_milliseconds,
            default_tier=spec.classifier.default_tier or spec.tiers[-1].name,
            out_of_domain_percent=spec.classifier.out_of_domain_percent,
        ),
    )


def unbudgeted(policy: RoutingPolicy, pools: Pools) -> list[str]:
    """One sentence for every accelerator that mode Apply may move but no GPU budget covers."""
    rebalance = policy.spec.rebalance
    if rebalance.mode is not RebalanceMode.APPLY:
        return []
    covered = {budget.accelerator for budget in rebalance.gpu_budget}
    used = {pools[name].spec.accelerator.name for name in policy.moved_pool_names if name in pools}
    return [
        f"rebalance.gpuBudget has no entry for accelerator {name}, which pools of the tiers use; add one"
        for name in sorted(used - covered)
    ]


def _problems(policy: RoutingPolicy, pools: Pools) -> Iterator[str]:
    for field, name in policy.verifiers:
        if name in pools and role_of(pools[name]) is not None:
            yield (
                f"{field} {name} has recipe.disaggregation.role {role_of(pools[name])}, and verifiers read their "
                "prompts themselves; remove disaggregation from the pool, or name another one"
            )
        if name not in pools:
            yield (
                f"{field} {name} is not an InferencePool of namespace {policy.metadata.namespace}; "
                "create it or correct the name"
            )
    for i, tier in enumerate(policy.spec.tiers):
        name = tier.pool_ref.name
        if name not in pools:
            yield (
                f"tiers[{i}].poolRef.name {name} is not an InferencePool of namespace {policy.metadata.namespace}; "
                "create it or correct the name"
            )
        else:
            yield from _budget_problems(f"tiers[{i}].budget", tier.budget, pools[name])
            yield from _load_problems(policy.spec.planning, pools[name])
            yield from division_problems(f"tiers[{i}]", tier, pools)
            yield from _forcing_problems(f"tiers[{i}].strategy", tier.strategy, pools[name])
    yield from _class_problems(policy, {t.name: pools.get(t.pool_ref.name) for t in policy.spec.tiers})


def _class_problems(policy: RoutingPolicy, by_tier: Mapping[str, InferencePool | None]) -> Iterator[str]:
    """Of the class table, and of what sends long prompts to a tier."""
    for i, rule in enumerate(policy.spec.classes):
        pool = by_tier.get(rule.tier)
        if rule.budget is not None and pool is not None:
            yield from _budget_problems(f"classes[{i}].budget", rule.budget, pool)
        if rule.strategy is not None and pool is not None:
            yield from _forcing_problems(f"classes[{i}].strategy", rule.strategy, pool)
    for i, threshold in enumerate(policy.spec.context):
        pool = by_tier.get(threshold.tier)
        context = pool.spec.model.context_tokens if pool else None
        if pool and context and threshold.min_prompt_tokens >= context:
            yield (
                f"context[{i}].minPromptTokens {threshold.min_prompt_tokens} does not fit into contextTokens {context} "
                f"of pool {pool.metadata.name}; lower it or choose a tier with a longer context"
            )


def _load_problems(planning: Planning, pool: InferencePool) -> Iterator[str]:
    if planning.spill_percent and pool.spec.model.shape is None:
        yield (
            f"planning.spillPercent {planning.spill_percent} needs model.shape on pool {pool.metadata.name}, "
            "without which its room is unknown; set it there, or set spillPercent to 0"
        )


def _budget_problems(field: str, budget: Budget, pool: InferencePool) -> Iterator[str]:
    model = pool.spec.model
    if budget.thinking_tokens and model.reasoning_parser is None:
        yield (
            f"{field}.thinkingTokens {budget.thinking_tokens} needs model.reasoningParser on pool "
            f"{pool.metadata.name}; set it there, or set thinkingTokens to 0"
        )
    asked = budget.thinking_tokens + budget.output_tokens
    if model.context_tokens and asked >= model.context_tokens:
        yield (
            f"{field} asks for {asked} tokens, and contextTokens of pool {pool.metadata.name} is "
            f"{model.context_tokens}, prompt included; lower the budget or raise contextTokens"
        )


def _forcing_problems(field: str, strategy: Strategy, pool: InferencePool) -> Iterator[str]:
    parser = pool.spec.model.reasoning_parser
    if forces(strategy) and parser not in _THINK_MARKS:
        yield (
            f"{field}.type BudgetForcing needs a model.reasoningParser of {', '.join(sorted(_THINK_MARKS))} on pool "
            f"{pool.metadata.name}, not {parser or 'none'}: no other thought can go on; set it there, or choose "
            "another type"
        )


def _tier(tier: Tier) -> TierConfig:
    return TierConfig(
        name=tier.name,
        pool=tier.pool_ref.name,
        prefill_pool=tier.prefill_pool_ref.name if tier.prefill_pool_ref else None,
        thinking_tokens=tier.budget.thinking_tokens,
        output_tokens=tier.budget.output_tokens,
        strategy=_strategy(tier.strategy),
    )


def _class(rule: ClassRule) -> ClassConfig:
    return ClassConfig(
        name=rule.name,
        tier=rule.tier,
        thinking_tokens=rule.budget.thinking_tokens if rule.budget else None,
        output_tokens=rule.budget.output_tokens if rule.budget else None,
        strategy=_strategy(rule.strategy) if rule.strategy else None,
        ceiling=_ceiling(rule.ceiling) if rule.ceiling else None,
        escalate=rule.escalate,
    )


def forces(strategy: Strategy) -> bool:
    """Its thoughts may be made to go on."""
    return strategy.type is StrategyType.BUDGET_FORCING


def _strategy(strategy: Strategy) -> StrategyConfig:
    return StrategyConfig(
        **strategy.model_dump(exclude={"stop", "verifier_pool_ref", "forcing"}),
        stop_rule=strategy.stop.rule,
        stop_percent=strategy.stop.percent,
        stop_window=strategy.stop.window,
        verifier_pool=strategy.verifier_pool_ref.name if strategy.verifier_pool_ref else None,
        forcing=ForcingConfig(**strategy.forcing.model_dump()) if forces(strategy) else None,
    )


def _ceiling(ceiling: Ceiling) -> CeilingConfig:
    return CeilingConfig(**ceiling.model_dump())


def _tenant(tenant: Tenant) -> TenantConfig:
    return TenantConfig(
        **tenant.model_dump(exclude={"api_keys", "ceiling"}),
        keyed=True if tenant.api_keys else None,
        ceiling=_ceiling(tenant.ceiling) if tenant.ceiling else None,
    )


def _planning(policy: RoutingPolicy) -> PlanningConfig | None:
    """None where nothing differs from the standard, so that the document stays as it was."""
    planning = policy.spec.planning
    if planning == Planning():
        return None
    return PlanningConfig(
        spill_percent=planning.spill_percent,
        explore_percent=planning.explore_percent,
        unsolvable=planning.unsolvable.value,
        unsolvable_percent=planning.unsolvable_percent,
        routers=max(1, policy.spec.router.replicas),
    )


def _pool(
    pool: InferencePool, addresses: Sequence[str] | None, canary: CanaryConfig | None, *, loaded: bool
) -> PoolConfig:
    name, speculation = pool.metadata.name, pool.spec.recipe.speculation
    prompt_seconds, output_seconds, latency_seconds = _costs(pool)
    return PoolConfig(
        name=name,
        served_name=pool.served_name,
        host=engine_host(name, pool.metadata.namespace) if addresses is None else None,
        port=ENGINE_PORT,
        addresses=list(addresses or ()),
        canary=canary,
        context_tokens=pool.spec.model.context_tokens,
        reasoning=pool.spec.model.reasoning_parser is not None,
        thinking_end=_THINKING_END if pool.spec.model.reasoning_parser in _THINK_MARKS else None,
        drops_sampling=(
            list(_REFUSED_WITH_SPECULATION)
            if speculation is not None and speculation.method is not SpeculationMethod.NONE
            else []
        ),
        prompt_token_seconds=prompt_seconds,
        output_token_seconds=output_seconds,
        output_token_latency_seconds=latency_seconds,
        gpu_hour_milli=pool.spec.cost.gpu_hour_milli,
        batch=_batch(pool) if loaded else None,
    )


def _batch(pool: InferencePool) -> int | None:
    """Answers that a replica is planned to write at once; None when the capacity is unknown."""
    replica = replica_for(pool)
    return None if replica is None else planned_rates(pool, replica).batch or None


def _costs(pool: InferencePool) -> tuple[float, float, float]:
    """GPU seconds of a prompt token and of an output token, and seconds between two tokens; zeros when unknown."""
    replica = replica_for(pool)
    if replica is None:
        return 0.0, 0.0, 0.0
    planned = planned_rates(pool, replica)
    if planned.batch == 0:
        return 0.0, 0.0, 0.0
    return (
        _significant(replica.gpus / planned.prompt_tokens_per_second),
        _significant(replica.gpus / planned.output_tokens_per_second),
        _significant(planned.time_per_output_token_seconds),
    )


def _significant(value: float) -> float:
    """Six significant digits: the document's bytes do not change with the last bit of a float."""
    return float(f"{value:.6g}")
