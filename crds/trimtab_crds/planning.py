"""How a RoutingPolicy plans beyond its ladder: tenants, load, what was learned, and queries that nothing solves."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from trimtab_crds.meta import Rule, Spec
from trimtab_crds.scalars import Label, Percent, Tokens
from trimtab_crds.strategyspec import StrategyType


class Unsolvable(StrEnum):
    """What to do with a query whose class no arm is known to answer."""

    OFF = "Off"
    CAP = "Cap"
    TOP = "Top"


class Planning(Spec):
    """How plans are made from predictions."""

    spill_percent: int = Field(
        default=0,
        description="A pool that holds more than this share of the answers it is planned for passes queries to the "
        "next stronger tier that has room; 0 never does. Needs model.shape on the pool.",
        ge=0,
        le=1000,
    )
    explore_percent: Percent = Field(
        default=0,
        description="Share of the queries whose tier is drawn by a hash of their text, so that "
        "`trimtab classifier fit` can compare tiers on the same kind of query.",
    )
    unsolvable: Unsolvable = Field(
        default=Unsolvable.OFF,
        description="A query of a class that `outcomes` says is hardly ever answered: Cap takes the cheapest tier, Top "
        "the strongest, Off plans it as any other.",
    )
    unsolvable_percent: Percent = Field(
        default=10,
        description="Hardly ever: no tier is right for more than this share, even at the upper end of what is likely.",
    )


class Outcome(Spec):
    """How often one way to answer was right for one class; `trimtab classifier fit` writes these lines."""

    class_name: Label = Field(description="Class of the queries.")
    tier: Label = Field(description="Name of the tier.")
    thinking_tokens: Tokens = Field(default=0, description="Its thinking budget.")
    strategy: StrategyType | None = Field(
        default=None, description="How the budget was spent; as the tier says when absent."
    )
    right: int = Field(
        description="Judged answers that were right, as many as the estimate is worth.", ge=0, le=10_000_000
    )
    wrong: int = Field(description="Those that were not.", ge=0, le=10_000_000)
    gain_milli: int = Field(
        default=0,
        description="Mean gain that the classifier predicted for those queries, in thousandths.",
        ge=-1000,
        le=1000,
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.right + self.wrong > 0",
            lambda s: s.right + s.wrong > 0,
            "outcomes[] of class {className} on tier {tier} has neither right nor wrong; remove it or give its counts",
        ),
    )


class Tenant(Spec):
    """What the requests of one tenant may use; the header `x-trimtab-tenant` names it."""

    name: Label = Field(description="Name of the tenant; `default` is for requests without the header.")
    max_tier: Label | None = Field(default=None, description="Strongest tier; any when absent.")
    max_budget: Percent = Field(default=100, description="Highest budget by hand, as `manual.maxBudget`; 0 forbids.")
    max_thinking_tokens: Tokens | None = Field(
        default=None, description="Most thinking tokens; the tier's when absent."
    )
