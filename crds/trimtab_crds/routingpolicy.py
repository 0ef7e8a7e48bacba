"""RoutingPolicy: tiers, budgets and how replicas follow demand (`routingpolicies.trimtab.dev`)."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from trimtab_crds.meta import API_VERSION, Condition, LocalReference, ObjectMeta, Rule, Spec, Status, Word
from trimtab_crds.networkspec import Network
from trimtab_crds.planning import TENANT_RULES, Outcome, Planning, Tenant, Unsolvable
from trimtab_crds.scalars import (
    Gpus,
    Label,
    Milliseconds,
    ModelName,
    Percent,
    PositiveTokens,
    Replicas,
    Seconds,
    Tokens,
)
from trimtab_crds.strategyspec import Ceiling, Escalation, Strategy, StrategyType

KIND: Literal["RoutingPolicy"] = "RoutingPolicy"
_LIST_BY_NAME: dict[str, JsonValue] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class RebalanceMode(StrEnum):
    """What the rebalancer may do."""

    OFF = "Off"
    DRY_RUN = "DryRun"
    APPLY = "Apply"


class DecisionLog(StrEnum):
    """Where routers write what they decided."""

    OFF = "Off"
    STDOUT = "Stdout"


class Budget(Spec):
    """What one query may use on a tier."""

    thinking_tokens: Tokens = Field(
        default=0, description="Tokens of reasoning before the answer; 0 answers without thinking."
    )
    output_tokens: PositiveTokens = Field(default=1024, description="Tokens of the answer after the reasoning.")


class Tier(Spec):
    """A rung of the ladder, cheap to strong."""

    name: Label = Field(description="Name of the tier; requests ask for it with `x-trimtab-tier`.")
    pool_ref: LocalReference = Field(description="The InferencePool (trimtab.dev) that serves the tier.")
    prefill_pool_ref: LocalReference | None = Field(
        default=None,
        description="The InferencePool (trimtab.dev) with `recipe.disaggregation.role` Prefill that reads the tier's "
        "prompts; the one of `poolRef` has the role Decode and fetches what was read. Of this tier alone.",
    )
    budget: Budget = Field(default_factory=Budget, description="What a query may use here unless its class says more.")
    strategy: Strategy = Field(
        default_factory=Strategy, description="How queries spend the budget here unless their class says more."
    )
    weight: int = Field(
        default=1,
        description="Worth of serving this tier when GPUs are short, relative to the others.",
        ge=1,
        le=1000,
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.strategy.type != 'BudgetForcing' || "
            "self.budget.thinkingTokens >= self.strategy.forcing.minThinkingTokens",
            lambda s: _can_force(s.strategy, s.budget),
            "strategy.type BudgetForcing needs budget.thinkingTokens of at least strategy.forcing.minThinkingTokens "
            "{strategy.forcing.minThinkingTokens}, and it is {budget.thinkingTokens}; raise the budget, lower "
            "minThinkingTokens or choose another type",
        ),
    )


def _can_force(strategy: Strategy, budget: Budget) -> bool:
    """The thinking budget holds the thought that the strategy asks for, if it asks for one."""
    wanted = strategy.forcing.min_thinking_tokens if strategy.type is StrategyType.BUDGET_FORCING else 0
    return budget.thinking_tokens >= wanted


class ClassRule(Spec):
    """Where queries of one class go; overrides the packaged table line by line."""

    name: Label = Field(
        description="Class of the query: math, code, knowledge, chat, ... (`trimtab explain` shows it)."
    )
    tier: Label = Field(description="Name of the tier that serves the class.")
    budget: Budget | None = Field(default=None, description="Budget of the class; the tier's own when absent.")
    strategy: Strategy | None = Field(default=None, description="Strategy of the class; the tier's own when absent.")
    ceiling: Ceiling | None = Field(
        default=None, description="Ceiling of the class; where the policy has one, too, the lower value holds."
    )
    escalate: bool = Field(default=True, description="Whether the policy's `escalation` holds for the class.")


class ContextThreshold(Spec):
    """Sends long prompts to a tier whose pool can hold them."""

    min_prompt_tokens: PositiveTokens = Field(description="Prompts of at least this many (estimated) tokens.")
    tier: Label = Field(description="Name of the tier that serves them.")


class Manual(Spec):
    """How a request may choose by hand."""

    tier_header: bool = Field(default=True, description="Obey the header `x-trimtab-tier`.")
    reasoning_effort: bool = Field(default=True, description="Obey `reasoning_effort` of the body.")
    max_budget: Percent = Field(
        default=100,
        description="Highest budget a request may ask for (`x-trimtab-budget` or `trimtab.budget`); 0 forbids.",
    )


class Classifier(Spec):
    """The model that looks at the query."""

    deadline_milliseconds: Milliseconds = Field(
        default=50, description="When a decision takes longer, the query goes to the default tier."
    )
    default_tier: Label | None = Field(
        default=None, description="Safe tier for a miss or an unfamiliar query; the last tier when absent."
    )
    out_of_domain_percent: Percent = Field(
        default=98,
        description="Queries less familiar than this share of the training data go to the default tier; "
        "100 switches it off.",
    )


class RouterResources(Spec):
    """Requests and limits of one router pod."""

    requests: dict[str, str] = Field(
        default={"cpu": "250m", "memory": "256Mi"},
        description="cpu and memory.",
        max_length=8,
    )
    limits: dict[str, str] = Field(default={"memory": "512Mi"}, description="cpu, memory.", max_length=8)


class Router(Spec):
    """The router Deployment that serves the policy."""

    replicas: Replicas = Field(default=1, description="Router pods.")
    image: str | None = Field(
        default=None,
        description="Image of the router; the operator's own when absent.",
        min_length=1,
        max_length=512,
    )
    workers: int = Field(default=1, description="Processes per pod, one a core.", ge=1, le=64)
    resources: RouterResources = Field(default_factory=RouterResources, description="Requests and limits of a pod.")
    decision_log: DecisionLog = Field(
        default=DecisionLog.OFF,
        description="Stdout: one JSON line to the pod's log for every ended request and every `POST /v1/feedback`, "
        "without prompts; `trimtab classifier fit` learns from it.",
    )
    network: Network = Field(default_factory=Network, description="Who may reach the routers.")


class GpuBudget(Spec):
    """The most GPUs of one kind that the policy's pools may hold together; no move exceeds it."""

    accelerator: Label = Field(description="A name from the accelerator catalogue.")
    gpus: Gpus = Field(description="GPUs of that kind, starting and ending replicas included.")


class PrometheusSource(Spec):
    """Where demand is read from."""

    url: str = Field(
        default="http://prometheus-operated.monitoring.svc:9090",
        description="Address of the Prometheus that scrapes the routers.",
        pattern=r"^https?://[^\s/]+(/[^\s]*)?$",
        max_length=512,
    )


class Rebalance(Spec):
    """How replicas follow the demand for tiers."""

    mode: RebalanceMode = Field(
        default=RebalanceMode.DRY_RUN, description="Off, DryRun (decide and report only) or Apply."
    )
    gpu_budget: list[GpuBudget] = Field(
        default_factory=list,
        description="GPU budgets, one per accelerator. Apply needs one for every accelerator of the tiers' pools.",
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["accelerator"]},
    )
    prometheus: PrometheusSource = Field(default_factory=PrometheusSource, description="Where demand is read from.")
    interval_seconds: Seconds = Field(default=15, description="Time between two decisions.")
    window_seconds: Seconds = Field(
        default=300,
        description="Demand is the mean over this time; bursts shorter than a cold start are not chased.",
    )
    cooldown_seconds: Seconds = Field(default=60, description="Rest between two moves.")
    release_after_seconds: Seconds = Field(
        default=600,
        description="Replicas that the demand does not need are given back after this long without a move.",
    )
    min_gain_percent: Percent = Field(
        default=2, description="Move only when the expected share of demand served rises by this many points."
    )
    max_utilization_percent: int = Field(default=85, description="How full a replica is planned to be.", ge=10, le=100)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mode != 'Apply' || self.gpuBudget.size() > 0",
            lambda s: s.mode is not RebalanceMode.APPLY or len(s.gpu_budget) > 0,
            "rebalance.mode Apply needs rebalance.gpuBudget; add one entry for every accelerator of the tiers' pools",
        ),
        Rule(
            "self.windowSeconds >= self.intervalSeconds",
            lambda s: s.window_seconds >= s.interval_seconds,
            "rebalance.windowSeconds {windowSeconds} is below intervalSeconds {intervalSeconds}; "
            "raise windowSeconds or lower intervalSeconds",
        ),
    )


#: CEL: whether the tier that the entry `c` names exists.
_HAS_TIER = "self.tiers.exists(t, t.name == c.tier)"


def _tier_names(spec: "RoutingPolicySpec") -> set[str]:
    return {tier.name for tier in spec.tiers}


def _first_unknown_tier(entries: str) -> Word:
    """The first tier that an entry of `spec.classes` or `spec.context` names and that is not there."""
    return Word(
        f"self.{entries}.filter(c, !{_HAS_TIER})[0].tier",
        lambda s: next(c.tier for c in getattr(s, entries) if c.tier not in _tier_names(s)),
    )


def _unknown_max_tiers(spec: "RoutingPolicySpec") -> list[str]:
    return [n.max_tier for n in spec.tenants if n.max_tier is not None and n.max_tier not in _tier_names(spec)]


def _repeated_pools(spec: "RoutingPolicySpec") -> list[str]:
    pools = [tier.pool_ref.name for tier in spec.tiers]
    return [pool for pool in pools if pools.count(pool) > 1]


def _shared_prefills(spec: "RoutingPolicySpec") -> list[str]:
    readers = [tier.prefill_pool_ref.name for tier in spec.tiers if tier.prefill_pool_ref is not None]
    taken = [*readers, *(tier.pool_ref.name for tier in spec.tiers)]
    return [reader for reader in readers if taken.count(reader) > 1]


_OWN_PREFILL = (
    "(self.tiers.exists_one(u, has(u.prefillPoolRef) && u.prefillPoolRef.name == t.prefillPoolRef.name) && "
    "!self.tiers.exists(u, u.poolRef.name == t.prefillPoolRef.name))"
)


def _foreign_strategies(spec: "RoutingPolicySpec") -> list[str]:
    """Strategies of outcomes that no tier or class line of that tier has."""
    had = {(t.name, t.strategy.type) for t in spec.tiers}
    had |= {(c.tier, c.strategy.type) for c in spec.classes if c.strategy is not None}
    named = [(o.tier, o.strategy) for o in spec.outcomes if o.strategy not in (None, StrategyType.SINGLE)]
    return [str(strategy) for tier, strategy in named if (tier, strategy) not in had]


def _short_budgets(spec: "RoutingPolicySpec") -> list[str]:
    """Classes that force thoughts, by their own strategy or their tier's, beyond their budget."""
    tiers = {t.name: t for t in spec.tiers}
    return [
        c.name
        for c in spec.classes
        if c.tier in tiers and not _can_force(c.strategy or tiers[c.tier].strategy, c.budget or tiers[c.tier].budget)
    ]


_CAN_FORCE = (
    "!(has(c.strategy) || has(c.budget)) || self.tiers.all(t, t.name != c.tier "
    "|| (has(c.strategy) ? c.strategy.type : t.strategy.type) != 'BudgetForcing' "
    "|| (has(c.budget) ? c.budget.thinkingTokens : t.budget.thinkingTokens) >= "
    "(has(c.strategy) ? c.strategy.forcing.minThinkingTokens : t.strategy.forcing.minThinkingTokens))"
)
_HAS_STRATEGY = (
    "!has(o.strategy) || o.strategy == 'Single' "
    "|| self.tiers.exists(t, t.name == o.tier && t.strategy.type == o.strategy) "
    "|| self.classes.exists(c, c.tier == o.tier && has(c.strategy) && c.strategy.type == o.strategy)"
)


class RoutingPolicySpec(Spec):
    """The desired state of a policy."""

    models: list[ModelName] = Field(
        default=["auto"],
        description="The model names that requests ask for to be routed by this policy.",
        min_length=1,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    tiers: list[Tier] = Field(
        description="The ladder, cheap to strong.",
        min_length=1,
        max_length=16,
        json_schema_extra=_LIST_BY_NAME,
    )
    classes: list[ClassRule] = Field(
        default_factory=list,
        description="Lines of the class table that replace the packaged ones.",
        max_length=32,
        json_schema_extra=_LIST_BY_NAME,
    )
    quality: Percent = Field(
        default=50,
        description="The cost-quality knob: 0 is the cheapest that may do, 100 the strongest always.",
    )
    manual: Manual = Field(default_factory=Manual, description="How a request may choose by hand.")
    context: list[ContextThreshold] = Field(
        default_factory=list, description="Prompt lengths that select a tier.", max_length=16
    )
    ceiling: Ceiling = Field(
        default_factory=Ceiling, description="The hard bound of one query over everything that is tried for it."
    )
    escalation: Escalation = Field(
        default_factory=Escalation, description="Spending more after looking at a part of an answer."
    )
    planning: Planning = Field(default_factory=Planning, description="How plans are made from predictions.")
    outcomes: list[Outcome] = Field(
        default_factory=list,
        description="What was learned: how often tiers were right, by class. Corrects the predicted gain.",
        max_length=128,
    )
    tenants: list[Tenant] = Field(
        default_factory=list,
        description="Limits by tenant. Other names than these are refused; without any the header is.",
        max_length=64,
        json_schema_extra=_LIST_BY_NAME,
    )
    classifier: Classifier = Field(default_factory=Classifier, description="The model that looks at the query.")
    router: Router = Field(default_factory=Router, description="The router Deployment.")
    rebalance: Rebalance = Field(default_factory=Rebalance, description="How replicas follow demand.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.classes.all(c, {_HAS_TIER})",
            lambda s: all(c.tier in _tier_names(s) for c in s.classes),
            "classes[].tier {tier} is not the name of one of tiers[]; correct it or add the tier",
            words={"tier": _first_unknown_tier("classes")},
        ),
        Rule(
            f"self.classes.all(c, {_CAN_FORCE})",
            lambda s: not _short_budgets(s),
            "classes[] {class}: strategy BudgetForcing, its own or its tier's, needs budget.thinkingTokens of at least "
            "strategy.forcing.minThinkingTokens; raise the budget, lower minThinkingTokens or give the class another "
            "strategy",
            words={"class": Word(f"self.classes.filter(c, !({_CAN_FORCE}))[0].name", lambda s: _short_budgets(s)[0])},
        ),
        Rule(
            f"self.context.all(c, {_HAS_TIER})",
            lambda s: all(c.tier in _tier_names(s) for c in s.context),
            "context[].tier {tier} is not the name of one of tiers[]; correct it or add the tier",
            words={"tier": _first_unknown_tier("context")},
        ),
        Rule(
            f"self.outcomes.all(c, {_HAS_TIER})",
            lambda s: all(c.tier in _tier_names(s) for c in s.outcomes),
            "outcomes[].tier {tier} is not the name of one of tiers[]; correct it or remove the entry",
            words={"tier": _first_unknown_tier("outcomes")},
        ),
        Rule(
            f"self.outcomes.all(o, {_HAS_STRATEGY})",
            lambda s: not _foreign_strategies(s),
            "outcomes[].strategy {strategy} is neither that of the tier nor of a class line that names the tier; "
            "remove the entry or give the tier the strategy",
            words={
                "strategy": Word(
                    f"self.outcomes.filter(o, !({_HAS_STRATEGY}))[0].strategy", lambda s: _foreign_strategies(s)[0]
                )
            },
        ),
        Rule(
            "self.tenants.all(n, !has(n.maxTier) || self.tiers.exists(t, t.name == n.maxTier))",
            lambda s: not _unknown_max_tiers(s),
            "tenants[].maxTier {tier} is not the name of one of tiers[]; correct it or leave it out",
            words={
                "tier": Word(
                    "self.tenants.filter(n, has(n.maxTier) && !self.tiers.exists(t, t.name == n.maxTier))[0].maxTier",
                    lambda s: _unknown_max_tiers(s)[0],
                )
            },
        ),
        *TENANT_RULES,
        Rule(
            "self.planning.unsolvable == 'Off' || self.outcomes.size() > 0",
            lambda s: s.planning.unsolvable is Unsolvable.OFF or len(s.outcomes) > 0,
            "planning.unsolvable {planning.unsolvable} needs outcomes, which say what is hardly ever answered; "
            "add them (`trimtab classifier fit`) or set it to Off",
        ),
        Rule(
            "!has(self.classifier.defaultTier) || self.tiers.exists(t, t.name == self.classifier.defaultTier)",
            lambda s: s.classifier.default_tier is None or s.classifier.default_tier in _tier_names(s),
            "classifier.defaultTier {classifier.defaultTier} is not the name of one of tiers[]; "
            "correct it or add the tier",
        ),
        Rule(
            "self.tiers.all(t, self.tiers.exists_one(u, u.poolRef.name == t.poolRef.name))",
            lambda s: not _repeated_pools(s),
            "tiers[].poolRef.name {pool} is used twice; "
            "give every tier a pool of its own so that its demand can be told apart",
            words={
                "pool": Word(
                    "self.tiers.filter(t, !self.tiers.exists_one(u, u.poolRef.name == t.poolRef.name))[0].poolRef.name",
                    lambda s: _repeated_pools(s)[0],
                )
            },
        ),
        Rule(
            f"self.tiers.all(t, !has(t.prefillPoolRef) || {_OWN_PREFILL})",
            lambda s: not _shared_prefills(s),
            "tiers[].prefillPoolRef.name {pool} is a pool of another tier or the tier's own poolRef; give every tier a "
            "pool of its own to read its prompts",
            words={
                "pool": Word(
                    f"self.tiers.filter(t, has(t.prefillPoolRef) && !({_OWN_PREFILL}))[0].prefillPoolRef.name",
                    lambda s: _shared_prefills(s)[0],
                )
            },
        ),
    )


class Demand(Status):
    """What a tier was asked for, over the window."""

    requests_per_minute: int = Field(description="Requests admitted to the tier per minute.")
    prompt_tokens_per_minute: int = Field(description="Prompt tokens per minute.")
    output_tokens_per_minute: int = Field(description="Output tokens per minute, as expected at admission.")


class ReplicaCounts(Status):
    """Replicas of a tier's pool."""

    desired: Replicas = Field(description="What the rebalancer wants.")
    ready: Replicas = Field(description="Answering.")
    starting: Replicas = Field(description="Loading the model or waiting for a node.")
    draining: Replicas = Field(description="Ending; they still hold their GPUs.")


class TierStatus(Status):
    """How a tier stands."""

    name: str = Field(description="Name of the tier.")
    pool: str = Field(description="Name of its pool.")
    demand: Demand | None = Field(default=None, description="Absent while metrics are missing.")
    replicas: ReplicaCounts = Field(description="Replicas of its pool.")
    coverage_percent: int | None = Field(default=None, description="Share of the demand that ready replicas can serve.")
    limited_by: str = Field(
        default="",
        description="What keeps it from more: Budget, MaxReplicas, MinReplicas, Cooldown, MissingData, "
        "UnknownCapacity, BelowGainThreshold, WaitingForGpus, ScalingOwned, DryRun, Off or nothing.",
    )


class GpuUse(Status):
    """A GPU budget and what is held of it."""

    accelerator: str = Field(description="Name from the catalogue.")
    budget: Gpus = Field(description="The most that may be held.")
    held: Gpus = Field(description="What the pools' pods hold now.")


class Move(Status):
    """The last step of the rebalancer."""

    time: str = Field(description="When, RFC 3339.")
    pool: str = Field(description="The pool whose replicas changed.")
    from_replicas: Replicas = Field(description="Before.")
    to_replicas: Replicas = Field(description="After.")
    reason: str = Field(description="A sentence.")
    expected_gain_percent: int = Field(default=0, description="Expected rise of the share of demand served.")


class RoutingPolicyStatus(Status):
    """What the operator observed; never an input."""

    conditions: list[Condition] = Field(
        default_factory=list,
        description="Ready, Reconciling, Stalled, MetricsAvailable.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: int | None = Field(default=None, description="The generation this status speaks of.")
    config_hash: str = Field(default="", description="Hash of the document the routers read.")
    router_ready_replicas: Replicas = Field(default=0, description="Router pods that answer.")
    address: str = Field(default="", description="Where OpenAI clients connect, inside the cluster.")
    tiers: list[TierStatus] = Field(default_factory=list, description="Every tier.", json_schema_extra=_LIST_BY_NAME)
    gpus: list[GpuUse] = Field(
        default_factory=list,
        description="Budgets and what is held.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["accelerator"]},
    )
    decision: str = Field(default="", description="What the rebalancer decided last, and why.")
    last_move: Move | None = Field(default=None, description="The last step of the rebalancer.")


class RoutingPolicy(BaseModel):
    """The whole object."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    api_version: Literal["trimtab.dev/v1alpha1"] = API_VERSION
    kind: Literal["RoutingPolicy"] = KIND
    metadata: ObjectMeta
    spec: RoutingPolicySpec
    status: RoutingPolicyStatus | None = None

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def prefills(self) -> list[tuple[Tier, str]]:
        """The tiers whose prompts another pool reads, with the name of that pool."""
        return [(t, t.prefill_pool_ref.name) for t in self.spec.tiers if t.prefill_pool_ref is not None]

    @property
    def moved_pool_names(self) -> list[str]:
        """Every pool whose replicas follow the demand: of the tiers, cheap to strong, then their readers."""
        return [*(tier.pool_ref.name for tier in self.spec.tiers), *(name for _, name in self.prefills)]

    @property
    def pool_names(self) -> list[str]:
        """Every pool that its routers ask, once: those that the demand moves, then those that verify."""
        named = self.moved_pool_names
        return [*named, *sorted({name for _, name in self.verifiers} - set(named))]

    @property
    def verifiers(self) -> list[tuple[str, str]]:
        """Every pool that scores answers, after the field that names it."""
        named = [(f"tiers[{i}]", tier.strategy) for i, tier in enumerate(self.spec.tiers)]
        named += [(f"classes[{i}]", rule.strategy) for i, rule in enumerate(self.spec.classes) if rule.strategy]
        return [
            (f"{where}.strategy.verifierPoolRef.name", strategy.verifier_pool_ref.name)
            for where, strategy in named
            if strategy.verifier_pool_ref is not None
        ]
