"""Which loops an event wakes."""

from contextlib import ExitStack
from typing import Any

import pytest

from support.manifests import policy_manifest, tier
from support.operatorparts import Bench
from trimtab_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, POD, POLICY, POOL, Kind
from trimtab_operator.shell.eventpokes import poke_for
from trimtab_operator.shell.world import rebalance_key, wake_key

LONG = "a" * 70
#: Of policies: "chat" names low and high, "batch" high and the long pool, "far" low in another namespace.
LOOPS = {
    "pool low": wake_key(POOL, ("ns", "low")),
    "pool high": wake_key(POOL, ("ns", "high")),
    "long pool": wake_key(POOL, ("ns", LONG)),
    "pool alone": wake_key(POOL, ("ns", "alone")),
    "chat": wake_key(POLICY, ("ns", "chat")),
    "chat's rebalancer": rebalance_key(("ns", "chat")),
    "batch": wake_key(POLICY, ("ns", "batch")),
    "batch's rebalancer": rebalance_key(("ns", "batch")),
    "pool elsewhere": wake_key(POOL, ("other", "low")),
    "policy elsewhere": wake_key(POLICY, ("other", "far")),
}
CHAT, BATCH = {"chat", "chat's rebalancer"}, {"batch", "batch's rebalancer"}
LOW, POLICY_LABEL = {"trimtab.dev/pool": "low"}, {"trimtab.dev/policy": "chat"}


def policy(name: str, *pools: str, namespace: str = "ns") -> dict[str, Any]:
    tiers = [tier(f"tier-{i}", pool=pool) for i, pool in enumerate(pools)]
    return policy_manifest(name, metadata__namespace=namespace, spec__tiers=tiers)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    for made in (policy("chat", "low", "high"), policy("batch", "high", LONG), policy("far", "low", namespace="other")):
        bench.cluster.put(made)
    bench.refresh()
    return bench


def woken(bench: Bench, kind: Kind, meta: dict[str, Any], *, deleted: bool = False) -> set[str]:
    deps = bench.deps
    with ExitStack() as stack:
        events = {name: stack.enter_context(deps.wakeups.listening(key)) for name, key in LOOPS.items()}
        poke_for(deps, kind, {"namespace": "ns", **meta}, deleted=deleted)
        return {name for name, event in events.items() if event.is_set()}


@pytest.mark.parametrize(
    ("kind", "meta", "deleted", "loops"),
    [
        pytest.param(POOL, {"name": "low"}, False, {"pool low"} | CHAT, id="a pool, and the policy that names it"),
        pytest.param(POOL, {"name": "high"}, True, {"pool high"} | CHAT | BATCH, id="a pool that two policies name"),
        pytest.param(POOL, {"name": "alone"}, False, {"pool alone"}, id="a pool that no policy names"),
        pytest.param(
            POLICY,
            {"name": "chat"},
            False,
            {"pool low", "pool high"} | CHAT | BATCH,
            id="a policy, and who shares a pool",
        ),
        pytest.param(POD, {"name": "x", "labels": LOW}, False, {"pool low"}, id="a pod"),
        pytest.param(POD, {"name": "x", "labels": LOW}, True, {"pool low", "chat's rebalancer"}, id="GPUs got free"),
        pytest.param(DEPLOYMENT, {"name": "x", "labels": LOW}, False, {"pool low", "chat's rebalancer"}, id="a start"),
        pytest.param(DEPLOYMENT, {"name": "x", "labels": POLICY_LABEL}, False, {"chat"}, id="routers"),
        pytest.param(CONFIG_MAP, {"name": "x", "labels": POLICY_LABEL}, True, {"chat"}, id="a child is gone"),
        pytest.param(POD, {"name": "x", "labels": {"app": "web"}}, True, set(), id="nobody's"),
        pytest.param(POD, {"name": "x"}, False, set(), id="no labels"),
    ],
)
def test_an_event_wakes_whom_it_concerns(
    bench: Bench, kind: Kind, meta: dict[str, Any], deleted: bool, loops: set[str]
):
    assert woken(bench, kind, meta, deleted=deleted) == loops


def test_a_name_too_long_for_a_label_still_wakes_its_pool_and_its_rebalancer(bench: Bench):
    value = LOOPS["long pool"][2]
    assert len(value) == 63
    labels = {"trimtab.dev/pool": value}
    assert woken(bench, POD, {"name": "x", "labels": labels}, deleted=True) == {"long pool", "batch's rebalancer"}


def test_pools_that_a_policy_no_longer_names_wake_too(bench: Bench):
    woken(bench, POLICY, {"name": "chat"})
    bench.cluster.put(policy("chat", "alone"))
    bench.refresh()
    expected = {"pool low", "pool high", "pool alone"} | CHAT | BATCH
    assert woken(bench, POLICY, {"name": "chat"}) == expected
    assert woken(bench, POLICY, {"name": "chat"}) == {"pool alone"} | CHAT


def test_a_policy_that_is_gone_wakes_its_pools_and_who_may_have_them_now(bench: Bench):
    woken(bench, POLICY, {"name": "chat"})
    del bench.cluster.objects[POLICY.kind, "ns", "chat"]
    bench.refresh()
    assert woken(bench, POLICY, {"name": "chat"}, deleted=True) == {"pool low", "pool high"} | CHAT | BATCH


def test_a_policy_that_cannot_be_read_still_wakes_its_pools(bench: Bench):
    odd = policy("chat", "low")
    odd["spec"]["tiers"][0]["budget"] = "much"
    bench.cluster.put(odd)
    bench.refresh()
    assert woken(bench, POOL, {"name": "low"}) == {"pool low"} | CHAT
