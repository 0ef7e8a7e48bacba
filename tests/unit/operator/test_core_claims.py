"""One policy moves one pool."""

from typing import Any

from trimtab_operator.core.claims import claims, referenced


def policy(name: str, *pools: str, mode: str = "DryRun", created: str = "2026-01-01T00:00:00Z", **meta: Any) -> Any:
    tiers = [{"name": p, "poolRef": {"name": p}} for p in pools]
    return {
        "metadata": {"name": name, "creationTimestamp": created, **meta},
        "spec": {"tiers": tiers, "rebalance": {"mode": mode}},
    }


def test_every_pool_of_one_policy_is_its_own():
    assert claims([policy("a", "low", "high")]) == {"low": "a", "high": "a"}


def test_the_older_one_wins_then_the_name():
    older = policy("z", "low", created="2025-01-01T00:00:00Z")
    assert claims([policy("a", "low", "high"), older]) == {"low": "z", "high": "a"}
    assert claims([policy("b", "low"), policy("a", "low")]) == {"low": "a"}


def test_one_that_applies_goes_before_one_that_only_looks():
    looks = policy("a", "low", created="2025-01-01T00:00:00Z")
    assert claims([looks, policy("b", "low", mode="Apply")]) == {"low": "b"}


def test_one_that_ends_claims_nothing():
    assert claims([policy("a", "low", deletionTimestamp="2026-01-01T00:00:00Z")]) == {}


def test_a_policy_that_cannot_be_read_claims_what_it_names():
    odd = {"metadata": {"name": "a"}, "spec": {"tiers": ["?", {"poolRef": {"name": "low"}}, {"poolRef": {}}]}}
    assert referenced(odd) == ["low"]
    assert claims([odd]) == {"low": "a"}
    assert referenced({"metadata": {"name": "b"}}) == []
