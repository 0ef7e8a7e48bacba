"""How a query's budget is spent: strategies, the ceiling over all attempts, escalation from partial output."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from trimtab_crds.meta import LocalReference, Rule, Spec
from trimtab_crds.scalars import Percent, PositiveTokens, Seconds


class StrategyType(StrEnum):
    """How the budget of one query is spent."""

    SINGLE = "Single"
    SELF_CONSISTENCY = "SelfConsistency"
    MIXED_FORM = "MixedForm"
    BEST_OF_N = "BestOfN"
    REFINE = "Refine"
    CASCADE = "Cascade"
    SHORT_DRAFT = "ShortDraft"
    BUDGET_FORCING = "BudgetForcing"


class StopRule(StrEnum):
    """When enough samples agree."""

    POSTERIOR = "Posterior"
    WINDOW = "Window"
    ALL_SAMPLES = "AllSamples"


class Signal(StrEnum):
    """What in a partial answer asks for more."""

    BUDGET_EXHAUSTED = "BudgetExhausted"
    LOW_CONFIDENCE = "LowConfidence"
    REPETITION = "Repetition"
    BRANCHING = "Branching"
    DISAGREEMENT = "Disagreement"


class Stop(Spec):
    """When sampling ends before the last sample."""

    rule: StopRule = Field(
        default=StopRule.POSTERIOR,
        description="Posterior: the first answer is the most frequent one with probability `percent` "
        "(Adaptive-Consistency); Window: the last `window` answers are equal (ESC); AllSamples: never.",
    )
    percent: int = Field(default=95, description="Probability that the posterior rule needs.", ge=51, le=99)
    window: int = Field(default=5, description="Equal answers in a row that the window rule needs.", ge=2, le=16)


class Forcing(Spec):
    """How a thought that ends too early is made to go on (budget forcing; s1, arXiv 2501.19393)."""

    min_thinking_tokens: PositiveTokens = Field(
        default=512, description="A thought that ends before this many tokens goes on; at most the thinking budget."
    )
    continuations: int = Field(default=2, description="The most times that one thought is made to go on.", ge=1, le=10)
    text: str = Field(
        default="Wait",
        description="What takes the place of the mark that ends the thought, so that the model looks at it again.",
        min_length=1,
        max_length=64,
        pattern=r"\S",
    )


_SEVERAL = (StrategyType.SELF_CONSISTENCY, StrategyType.MIXED_FORM, StrategyType.BEST_OF_N, StrategyType.REFINE)


class Strategy(Spec):
    """How the budget of one query is spent."""

    type: StrategyType = Field(
        default=StrategyType.SINGLE,
        description="Single: one answer, passed through. SelfConsistency: samples vote. MixedForm: a direct and a "
        "reasoned answer (with 3 samples a program-like one, too) must agree, else the next tier answers. BestOfN: the "
        "verifier chooses. Refine: the verifier's objections go into the next answer. Cascade: the next tier answers "
        "when samples disagree or are unsure. ShortDraft: one answer whose reasoning is asked to be a short draft. "
        "BudgetForcing: a thought that ends too early is made to go on, as `forcing` says; measured, it gains nothing.",
    )
    samples: int = Field(
        default=3,
        description="The most answers of the tier: samples to vote or to choose from, forms, rounds of refinement; "
        "with Cascade those that must agree, where 1 asks the token probabilities or the verifier instead.",
        ge=1,
        le=40,
    )
    wave: int = Field(default=4, description="The most samples at the same time.", ge=1, le=16)
    temperature_percent: int = Field(
        default=70,
        description="Temperature of samples in hundredths, where the request sets none.",
        ge=1,
        le=200,
    )
    stop: Stop = Field(default_factory=Stop, description="When SelfConsistency ends before the last sample.")
    forcing: Forcing = Field(default_factory=Forcing, description="When and how BudgetForcing makes a thought go on.")
    accept_percent: Percent = Field(
        default=70,
        description="What is good enough: the verifier's score (BestOfN, Refine, Cascade with a verifier), the "
        "agreement of samples or the mean token probability (Cascade).",
    )
    verifier_pool_ref: LocalReference | None = Field(
        default=None, description="The InferencePool (trimtab.dev) whose model scores answers from 0 to 100."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(self.type in ['BestOfN', 'Refine']) || has(self.verifierPoolRef)",
            lambda s: s.type not in (StrategyType.BEST_OF_N, StrategyType.REFINE) or s.verifier_pool_ref is not None,
            "strategy.type {type} needs strategy.verifierPoolRef; name the pool that scores answers",
        ),
        Rule(
            "self.samples > 1 || !(self.type in ['SelfConsistency', 'MixedForm', 'BestOfN', 'Refine'])",
            lambda s: s.samples > 1 or s.type not in _SEVERAL,
            "strategy.samples {samples} is too few for type {type}; use 2 or more",
        ),
    )


class Ceiling(Spec):
    """The hard bound of one query over all attempts, samples, retries and escalations; absent values do not bound."""

    tokens: PositiveTokens | None = Field(default=None, description="Generated tokens, reasoning included.")
    seconds: Seconds | None = Field(default=None, description="Time from the decision to the last byte.")
    cost_micros: int | None = Field(
        default=None,
        description="GPU cost in millionths of the currency unit, by the pools' `cost.gpuHourMilli` and capacity.",
        ge=1,
        le=1_000_000_000,
    )


class Escalation(Spec):
    """Spending more after looking at a part of an answer."""

    max_steps: int = Field(
        default=0, description="The most escalations of one query; 0 looks at no partial answer.", ge=0, le=4
    )
    signals: list[Signal] = Field(
        default=list(Signal),
        description="What counts: the thinking budget is used up, token probabilities are low, the text repeats "
        "itself, the reasoning turns around again and again, samples disagree.",
        min_length=1,
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    confidence_percent: Percent = Field(
        default=40, description="LowConfidence: mean token probability over the window below this."
    )
    window_tokens: int = Field(default=64, description="Tokens of the rolling mean.", ge=8, le=4096)
    patience_tokens: int = Field(
        default=32,
        description="Tokens for which a signal must hold in a row before it counts, so that one dip does nothing.",
        ge=1,
        le=4096,
    )
    budget_percent: int = Field(
        default=200,
        description="Thinking budget of the next step, as a share of the one that was used up.",
        ge=110,
        le=1000,
    )
