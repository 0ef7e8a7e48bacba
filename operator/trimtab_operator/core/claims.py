"""Which policy moves which pool: at most one, so that replicas have one writer and GPUs one budget.

A policy in mode Apply goes before others, an older one before a younger one, then the name decides. Raw manifests are
read on purpose: a policy that cannot be parsed still holds its pools back from growing without a budget.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Manifest = Mapping[str, Any]


def referenced(policy: Manifest) -> list[str]:
    """Names of the pools that a policy's tiers name, to answer or to read prompts."""
    tiers = [tier for tier in policy.get("spec", {}).get("tiers") or [] if isinstance(tier, Mapping)]
    found = ((tier.get(field) or {}).get("name") for field in ("poolRef", "prefillPoolRef") for tier in tiers)
    return [name for name in found if isinstance(name, str)]


def claims(policies: Iterable[Manifest]) -> dict[str, str]:
    """Pool to policy, by names within one namespace. A policy that is being deleted claims nothing."""
    alive = [p for p in policies if not p["metadata"].get("deletionTimestamp")]
    owners: dict[str, str] = {}
    for policy in sorted(alive, key=_precedence):
        for pool in referenced(policy):
            owners.setdefault(pool, policy["metadata"]["name"])
    return owners


def _precedence(policy: Manifest) -> tuple[bool, str, str]:
    meta = policy["metadata"]
    mode = policy.get("spec", {}).get("rebalance", {}).get("mode")
    return mode != "Apply", meta.get("creationTimestamp", ""), meta["name"]
