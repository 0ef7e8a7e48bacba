"""Which loops a watch event wakes: the object's own, and those of objects whose state depends on it.

A policy's document and budget depend on the pools that it names, a pool's writer of replicas on the policies that name
it, and of two policies with one pool each on the other.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import names
from trimtab_operator.core.claims import referenced
from trimtab_operator.core.groups import is_member
from trimtab_operator.core.kinds import DEPLOYMENT, POLICY, POOL, Kind
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.world import Key, child_key, rebalance_key, wake_key


def poke_for(deps: Deps, kind: Kind, meta: Mapping[str, Any], *, deleted: bool) -> None:
    """Wake every loop that an event of this object concerns."""
    namespace = meta["namespace"]
    if kind == POOL:
        deps.wakeups.poke(wake_key(POOL, (namespace, meta["name"])))
        _poke_policies(deps, namespace, {meta["name"]})
    elif kind == POLICY:
        _policy_changed(deps, (namespace, meta["name"]))
    elif (key := child_key(meta)) is not None:
        owner = POOL if key[1].endswith("/pool") else POLICY
        deps.wakeups.poke((owner.kind, namespace, key[2]))
        if owner == POOL and (kind == DEPLOYMENT or deleted or is_member(meta)):
            _poke_rebalancers(deps, namespace, label_value=key[2])


def _policy_changed(deps: Deps, key: Key) -> None:
    """Also pools that it no longer names have another writer of replicas now."""
    before = deps.named.pop(key, frozenset())
    if (live := deps.world.one(POLICY, key)) is not None:
        deps.named[key] = _named(deps, live)
    pools = before | deps.named.get(key, frozenset())
    deps.wakeups.poke(wake_key(POLICY, key))
    deps.wakeups.poke(rebalance_key(key))
    for pool in pools:
        deps.wakeups.poke(wake_key(POOL, (key[0], pool)))
    _poke_policies(deps, key[0], pools)


def _poke_policies(deps: Deps, namespace: str, pools: Iterable[str]) -> None:
    for live in deps.world.all(POLICY, namespace):
        if not _named(deps, live).isdisjoint(pools):
            key = (namespace, live["metadata"]["name"])
            deps.wakeups.poke(wake_key(POLICY, key))
            deps.wakeups.poke(rebalance_key(key))


def _poke_rebalancers(deps: Deps, namespace: str, *, label_value: str) -> None:
    for live in deps.world.all(POLICY, namespace):
        if any(names.label_value(pool) == label_value for pool in _named(deps, live)):
            deps.wakeups.poke(rebalance_key((namespace, live["metadata"]["name"])))


def _named(deps: Deps, live: Mapping[str, Any]) -> frozenset[str]:
    """Pools that a policy names; of one that cannot be read, those of its tiers."""
    policy, _ = deps.parsed.of(live)
    return frozenset(policy.pool_names if isinstance(policy, RoutingPolicy) else referenced(live))
