"""NetworkPolicies of pools and policies that ask for isolation.

Rules of several policies that select one pod add up. So a pool's own lets in the operator and Prometheus, and every
RoutingPolicy lets its routers in to the pools that it uses: neither has to know of changes of the other.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.networkspec import Network
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import childmeta, names
from trimtab_operator.core.kinds import NETWORK_POLICY

Manifest = dict[str, Any]

_ANYWHERE: Manifest = {"namespaceSelector": {}}
#: The operator's pods, by the labels of the chart.
_OPERATOR = {
    **_ANYWHERE,
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "trimtab", "app.kubernetes.io/component": "operator"}},
}
#: Prometheus, by the label that its operator and its chart set.
_PROMETHEUS = {**_ANYWHERE, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
_DNS: Manifest = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def of_engines(pool: InferencePool) -> Manifest | None:
    """Who may reach the pool's engines besides routers, and with `model.offline` what they may reach."""
    network, selector = pool.spec.network, {"matchLabels": {names.POOL_LABEL: names.label_value(pool.metadata.name)}}
    if not network.isolated:
        return None
    # Nodes of a replica choose the ports that they meet at.
    same = [{"podSelector": selector}] if pool.spec.accelerator.nodes > 1 else []
    spec: Manifest = {
        "podSelector": selector,
        "policyTypes": ["Ingress"],
        "ingress": [
            _from([_OPERATOR, _PROMETHEUS, *network.allow_from], names.ENGINE_PORT),
            *({"from": [peer]} for peer in same),
        ],
    }
    if pool.spec.model.offline:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": [_DNS, *({"to": [peer]} for peer in same)]}
    labels = childmeta.labels(component="engine", instance=pool.metadata.name, key=names.POOL_LABEL)
    return _policy(childmeta.metadata(pool, names.engine_name(pool.metadata.name), labels), spec)


def of_routers(policy: RoutingPolicy, pools: Mapping[str, InferencePool]) -> Iterable[Manifest]:
    """What lets the policy's routers in to isolated pools, and the isolation of the routers themselves."""
    used = [pools[name] for name in policy.pool_names if name in pools]
    name = names.router_name(policy.metadata.name)
    labels = childmeta.labels(component="router", instance=policy.metadata.name, key=names.POLICY_LABEL)
    routers = {"matchLabels": {names.POLICY_LABEL: names.label_value(policy.metadata.name)}}
    if isolated := [pool for pool in used if pool.spec.network.isolated]:
        spec = {
            "podSelector": _any_of(isolated),
            "policyTypes": ["Ingress"],
            "ingress": [_from([{"podSelector": routers}], names.ENGINE_PORT)],
        }
        yield _policy(childmeta.metadata(policy, f"{name}-engines", labels), spec)
    for suffix, spec in _transfers(policy, pools):
        yield _policy(childmeta.metadata(policy, f"{name}-{suffix}", labels), spec)
    if policy.spec.router.network.isolated:
        yield _policy(childmeta.metadata(policy, name, labels), _isolation(policy.spec.router.network, routers, used))


def _transfers(policy: RoutingPolicy, pools: Mapping[str, InferencePool]) -> Iterable[tuple[str, Manifest]]:
    """Engines that fetch what others have read may meet, on ports that they choose.

    Those that are closed in both directions need a way out, too. It is a policy of its own: one with the type Egress
    would close the way out of all pods that it selects, and the others load their models that way.
    """
    for tier, reader in policy.prefills:
        pair = [pools[name] for name in (tier.pool_ref.name, reader) if name in pools]
        peers = {"podSelector": _any_of(pair)}
        if isolated := [pool for pool in pair if pool.spec.network.isolated]:
            ingress = {"policyTypes": ["Ingress"], "ingress": [{"from": [peers]}]}
            yield f"transfers-{tier.name}", {"podSelector": _any_of(isolated), **ingress}
        if offline := [pool for pool in isolated if pool.spec.model.offline]:
            egress = {"policyTypes": ["Egress"], "egress": [{"to": [peers]}]}
            yield f"fetches-{tier.name}", {"podSelector": _any_of(offline), **egress}


def _isolation(network: Network, routers: Manifest, used: Iterable[InferencePool]) -> Manifest:
    clients = {"from": network.allow_from} if network.allow_from else {}
    return {
        "podSelector": routers,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {**clients, "ports": [_tcp(names.ROUTER_PORT)]},
            _from([_OPERATOR, _PROMETHEUS], names.ROUTER_ADMIN_PORT),
        ],
        "egress": [{"to": [{"podSelector": _any_of(used)}], "ports": [_tcp(names.ENGINE_PORT)]}, _DNS],
    }


def _any_of(pools: Iterable[InferencePool]) -> Manifest:
    """Selects the engines of all these pools."""
    values = sorted({names.label_value(pool.metadata.name) for pool in pools})
    return {"matchExpressions": [{"key": names.POOL_LABEL, "operator": "In", "values": values}]}


def _from(peers: list[Manifest], port: int) -> Manifest:
    return {"from": peers, "ports": [_tcp(port)]}


def _tcp(port: int) -> Manifest:
    return {"protocol": "TCP", "port": port}


def _policy(metadata: Manifest, spec: Manifest) -> Manifest:
    return {"apiVersion": NETWORK_POLICY.api_version, "kind": NETWORK_POLICY.kind, "metadata": metadata, "spec": spec}
