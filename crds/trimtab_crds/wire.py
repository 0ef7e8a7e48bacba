"""RouterConfig: the one document that the operator writes and the router reads (JSON).

The operator compiles it from a RoutingPolicy and its pools; `trimtab compile` writes the same from files. The
router needs nothing else and no Kubernetes permission: a pool's replicas are found by its headless Service's name
or are listed as addresses.
"""

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from trimtab_crds.strategyspec import Signal, StopRule, StrategyType

FORMAT: Literal[1] = 1


class Wire(BaseModel):
    """Base of the document's parts."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class CanaryConfig(Wire):
    """Replicas of a pool that are tried with a share of its requests; they are among the pool's own replicas."""

    host: str
    """DNS name whose addresses are these replicas."""
    weight_percent: int = Field(ge=1, le=99)


class PoolConfig(Wire):
    """A pool as the router sees it."""

    name: str
    served_name: str
    """The model name that the engine answers to; requests are rewritten to it."""
    host: str | None = None
    """DNS name whose addresses are the replicas (a headless Service), resolved again and again."""
    port: int = 8000
    addresses: list[str] = Field(default_factory=list)
    """`host:port` of every replica, where there is no DNS name."""
    canary: CanaryConfig | None = None
    """A revision that is being tried; without it every replica is like any other."""
    context_tokens: int | None = None
    reasoning: bool = False
    """The engine has a reasoning parser, so `thinking_token_budget` may be sent."""
    drops_sampling: list[str] = Field(default_factory=list)
    """Request fields this pool's engine refuses (speculation refuses `min_p` and `logit_bias`)."""
    prompt_token_seconds: float = 0.0
    """GPU seconds one prompt token costs (0 when the capacity is unknown)."""
    output_token_seconds: float = 0.0
    """GPU seconds one output token costs at the batch the pool is planned for."""
    output_token_latency_seconds: float = 0.0
    """Time between two tokens of one answer."""
    thinking_end: str | None = None
    """What ends the reasoning in the engine's text; None where a thought cannot be continued."""
    gpu_hour_milli: int = 1000
    """Price of a GPU hour in thousandths of a currency unit."""

    batch: int | None = None
    """Answers that a replica is planned to write at once; given where the policy looks at the load."""

    @model_validator(mode="after")
    def _has_replicas(self) -> Self:
        if self.host is not None and self.addresses:
            raise ValueError(f"pool {self.name}: give host or addresses, not both")
        return self


class ForcingConfig(Wire):
    """How a thought that ends too early is made to go on (`strategyspec.Forcing`)."""

    min_thinking_tokens: int = Field(default=512, ge=1)
    continuations: int = Field(default=2, ge=1)
    text: str = Field(default="Wait", min_length=1)


class StrategyConfig(Wire):
    """How a budget is spent (`strategyspec.Strategy`)."""

    type: StrategyType = StrategyType.SINGLE
    samples: int = Field(default=3, ge=1)
    wave: int = Field(default=4, ge=1)
    temperature_percent: int = Field(default=70, ge=1)
    stop_rule: StopRule = StopRule.POSTERIOR
    stop_percent: int = Field(default=95, ge=51, le=99)
    stop_window: int = Field(default=5, ge=2)
    accept_percent: int = 70
    verifier_pool: str | None = None
    forcing: ForcingConfig | None = None
    """With BudgetForcing only, so that other documents stay as they are."""


class CeilingConfig(Wire):
    """The hard bound of one query."""

    tokens: int | None = None
    seconds: int | None = None
    cost_micros: int | None = None


class EscalationConfig(Wire):
    """Spending more after looking at a part of an answer (`strategyspec.Escalation`)."""

    max_steps: int = 0
    signals: list[Signal] = Field(default_factory=lambda: list(Signal))
    confidence_percent: int = 40
    window_tokens: int = Field(default=64, ge=1)
    patience_tokens: int = Field(default=32, ge=1)
    budget_percent: int = 200


class TierConfig(Wire):
    """A tier: its pool and its default budget."""

    name: str
    pool: str
    thinking_tokens: int = 0
    output_tokens: int = 1024
    strategy: StrategyConfig = Field(default_factory=StrategyConfig)
    prefill_pool: str | None = None
    """The pool that reads its prompts, where `pool` only answers (NIXL)."""


class ClassConfig(Wire):
    """A line of the class table."""

    name: str
    tier: str
    thinking_tokens: int | None = None
    output_tokens: int | None = None
    strategy: StrategyConfig | None = None
    """None: the tier's."""
    ceiling: CeilingConfig | None = None
    """The lower of it and the policy's holds."""
    escalate: bool = True


class ContextConfig(Wire):
    """A prompt length that selects a tier."""

    min_prompt_tokens: int
    tier: str


class ManualConfig(Wire):
    """How a request may choose by hand."""

    tier_header: bool = True
    reasoning_effort: bool = True
    max_budget: int = 100


class PlanningConfig(Wire):
    """How plans are made from predictions."""

    spill_percent: int = 0
    explore_percent: int = 0
    unsolvable: Literal["Off", "Cap", "Top"] = "Off"
    unsolvable_percent: int = 10
    routers: int = 1
    """Routers that share the load; each sees its part only."""


class OutcomeConfig(Wire):
    """How often one way to answer was right for one class."""

    class_name: str
    tier: str
    thinking_tokens: int = 0
    strategy: StrategyType | None = None
    """None: the tier's."""
    right: int
    wrong: int
    gain_milli: int = 0


class TenantConfig(Wire):
    """What one tenant's requests may use."""

    name: str
    max_tier: str | None = None
    max_budget: int = 100
    max_thinking_tokens: int | None = None
    keyed: Literal[True] | None = None
    """API keys name it: the files of the folder with its name in the router's `--keys`."""
    ceiling: CeilingConfig | None = None
    """The lowest of it, the class's and the policy's holds."""


class ClassifierConfig(Wire):
    """How the classifier's answer is used."""

    deadline_milliseconds: int = 50
    default_tier: str
    out_of_domain_percent: int = 98


class RouterConfig(Wire):
    """The whole document. Tiers are ordered cheap to strong; every name it uses is defined in it."""

    format: Literal[1] = FORMAT
    policy: str
    """`namespace/name` of the policy; the label `policy` of every metric."""
    models: list[str]
    tiers: list[TierConfig] = Field(min_length=1)
    pools: list[PoolConfig]
    classes: list[ClassConfig] = Field(default_factory=list)
    quality: int = 50
    manual: ManualConfig = Field(default_factory=ManualConfig)
    context: list[ContextConfig] = Field(default_factory=list)
    ceiling: CeilingConfig = Field(default_factory=CeilingConfig)
    escalation: EscalationConfig = Field(default_factory=EscalationConfig)
    planning: PlanningConfig | None = None
    outcomes: list[OutcomeConfig] | None = None
    tenants: list[TenantConfig] | None = None
    classifier: ClassifierConfig

    @model_validator(mode="after")
    def _names_are_defined(self) -> Self:
        tiers, pools = {t.name for t in self.tiers}, {p.name for p in self.pools}
        used = [("classes", c.tier) for c in self.classes] + [("context", c.tier) for c in self.context]
        used += [("outcomes", o.tier) for o in self.outcomes or ()]
        used += [("tenants", t.max_tier) for t in self.tenants or () if t.max_tier is not None]
        used.append(("classifier.defaultTier", self.classifier.default_tier))
        for where, tier in used:
            if tier not in tiers:
                raise ValueError(f"{where} names tier {tier!r}, which is not in tiers: {', '.join(sorted(tiers))}")
        for t in self.tiers:
            if t.pool not in pools:
                raise ValueError(f"tiers: {t.name} names pool {t.pool!r}, which is not in pools")
            if t.prefill_pool is not None and t.prefill_pool not in pools:
                raise ValueError(f"tiers: {t.name} names prefillPool {t.prefill_pool!r}, which is not in pools")
        for s in (*(t.strategy for t in self.tiers), *(c.strategy for c in self.classes)):
            if s is not None and s.verifier_pool is not None and s.verifier_pool not in pools:
                raise ValueError(f"strategy.verifierPool names pool {s.verifier_pool!r}, which is not in pools")
        return self

    def pool(self, name: str) -> PoolConfig:
        """The pool of that name; the document defines every name it uses."""
        return next(p for p in self.pools if p.name == name)

    def document(self) -> str:
        """The JSON text, keys sorted, so that equal configurations are equal bytes."""
        return json.dumps(self.model_dump(by_alias=True, exclude_none=True), sort_keys=True, indent=1) + "\n"

    def digest(self) -> str:
        """Sixteen hex digits that name this content."""
        return hashlib.sha256(self.document().encode()).hexdigest()[:16]
