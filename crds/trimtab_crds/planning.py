"""How a RoutingPolicy plans beyond its ladder: tenants, load, what was learned, and queries that nothing solves."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from trimtab_crds.meta import Rule, Spec, Word
from trimtab_crds.scalars import Label, Percent, Tokens
from trimtab_crds.strategyspec import Ceiling, StrategyType


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


class SecretReference(Spec):
    """A Secret in the policy's namespace."""

    name: str = Field(
        description="Name of the Secret, in the policy's namespace.",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        max_length=253,
    )


class ApiKeys(Spec):
    """The API keys that name a tenant."""

    secret_ref: SecretReference = Field(
        description="The Secret whose values are the keys, each one of 16 to 512 visible ASCII characters; their names "
        "are yours. Routers follow its changes; while it is missing nothing names the tenant."
    )


class Tenant(Spec):
    """What the requests of one tenant may use.

    Without any `apiKeys` in the policy the header `x-trimtab-tenant` names it, and anybody may send that.
    """

    name: Label = Field(
        description="Name of the tenant; `default` is for requests without the header, or without an API key."
    )
    api_keys: ApiKeys | None = Field(
        default=None,
        description="The keys that name the tenant (`Authorization: Bearer KEY`). Where one tenant has them, requests "
        "need one, unless a tenant `default` without `apiKeys` takes those that send none.",
    )
    max_tier: Label | None = Field(default=None, description="Strongest tier; any when absent.")
    max_budget: Percent = Field(default=100, description="Highest budget by hand, as `manual.maxBudget`; 0 forbids.")
    max_thinking_tokens: Tokens | None = Field(
        default=None, description="Most thinking tokens; the tier's when absent."
    )
    ceiling: Ceiling | None = Field(
        default=None,
        description="Bound of one query over everything that is tried for it; the lowest of it, the class's and the "
        "policy's holds. Unlike those it holds for a pool that is asked for by name, too.",
    )


DEFAULT_TENANT = "default"
"""The tenant of requests that name none."""

_KEYED = "has(n.apiKeys)"
_NEEDLESS = f"(!self.tenants.exists(m, has(m.apiKeys)) || {_KEYED} || n.name == '{DEFAULT_TENANT}')"
_OWN_SECRET = (
    f"(!{_KEYED} || self.tenants.exists_one(m, has(m.apiKeys) && m.apiKeys.secretRef.name == n.apiKeys.secretRef.name))"
)


def _unreachable(spec: Any) -> list[str]:
    """Tenants that nothing can name: they have no key, and others do."""
    if all(n.api_keys is None for n in spec.tenants):
        return []
    return [n.name for n in spec.tenants if n.api_keys is None and n.name != DEFAULT_TENANT]


def _shared_secrets(spec: Any) -> list[str]:
    secrets = [n.api_keys.secret_ref.name for n in spec.tenants if n.api_keys is not None]
    return [secret for secret in secrets if secrets.count(secret) > 1]


TENANT_RULES: tuple[Rule, ...] = (
    Rule(
        f"self.tenants.all(n, {_NEEDLESS})",
        lambda s: not _unreachable(s),
        "tenants[] {tenant} has no apiKeys while others have, so that no request can name it; give it apiKeys or "
        "remove it",
        words={"tenant": Word(f"self.tenants.filter(n, !{_NEEDLESS})[0].name", lambda s: _unreachable(s)[0])},
    ),
    Rule(
        f"self.tenants.all(n, {_OWN_SECRET})",
        lambda s: not _shared_secrets(s),
        "tenants[].apiKeys.secretRef.name {secret} is used twice, so that its keys would name two tenants; give every "
        "tenant a Secret of its own",
        words={
            "secret": Word(
                f"self.tenants.filter(n, !{_OWN_SECRET})[0].apiKeys.secretRef.name", lambda s: _shared_secrets(s)[0]
            )
        },
    ),
)
"""Rules of `RoutingPolicySpec`."""
