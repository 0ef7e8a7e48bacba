"""Every child that a pool or a policy should have, as full manifests for server-side apply.

Pure and complete: whoever holds the manifests can compare, apply or print them. `.spec.replicas` of a pool's workload
appears only where the caller passes it (at creation): from then on it has another writer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_crds.wire import RouterConfig
from trimtab_operator.core import childmeta, names, networkpolicies, routerpod, workloads
from trimtab_operator.core.recipe import Resolution

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What children depend on besides their owner: the image of routers whose policy names none."""

    router_image: str


def policy_selector(policy: RoutingPolicy) -> dict[str, str]:
    """The labels that only the policy's router pods have."""
    return {names.POLICY_LABEL: names.label_value(policy.metadata.name)}


def pool_objects(pool: InferencePool, resolution: Resolution, *, replicas: int | None) -> list[Manifest]:
    """Services, PodDisruptionBudget, NetworkPolicy and the present revision's workload of a pool that was accepted.

    The workload (a Deployment, or a LeaderWorkerSet where a replica has several nodes) comes last. Its name ends in a
    digest of its pod template: another template is another workload. With a canary the revision has a Service of its
    own. `replicas` None leaves the number of replicas to its own writer.
    """
    name, selector = names.engine_name(pool.metadata.name), childmeta.pool_selector(pool)
    labels = childmeta.labels(component="engine", instance=pool.metadata.name, key=names.POOL_LABEL)
    revision, workload = workloads.revision(pool, resolution.flags, labels)
    serving = {**selector, names.SERVING_LABEL: names.SERVING}
    services = [_engine_service(pool, name, labels, serving)]
    if pool.spec.rollout.canary is not None:
        own = workloads.service_of(pool, revision)
        services.append(_engine_service(pool, own, labels, {**serving, names.REVISION_LABEL: revision}))
    budget = childmeta.disruption_budget(pool, name, child_labels=labels, selector=selector)
    network = networkpolicies.of_engines(pool)
    # The NetworkPolicy before the pods that it isolates.
    before = [*services, budget, *([network] if network else [])]
    children = [childmeta.stamped(manifest) for manifest in (*before, workload)]
    if replicas is not None:
        # After the digest: creating and keeping a workload is the same desire.
        children[-1]["spec"]["replicas"] = replicas
    return children


def _engine_service(pool: InferencePool, name: str, labels: dict[str, str], selector: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": childmeta.metadata(pool, name, labels),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": False,
            "selector": selector,
            "ports": [{"name": "http", "port": names.ENGINE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def policy_objects(
    policy: RoutingPolicy,
    config: RouterConfig,
    settings: ChildSettings,
    pools: Mapping[str, InferencePool] = MappingProxyType({}),
) -> list[Manifest]:
    """ConfigMap, Service, Deployment, NetworkPolicies and, with more than one router, PodDisruptionBudget of a policy.

    `pools` are those of the namespace; NetworkPolicies speak of the ones that tiers use.
    """
    name, selector = names.router_name(policy.metadata.name), policy_selector(policy)
    labels = childmeta.labels(component="router", instance=policy.metadata.name, key=names.POLICY_LABEL)
    meta = childmeta.metadata(policy, name, labels)
    children = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {names.CONFIG_KEY: config.document()}},
        _router_service(meta, selector),
        *networkpolicies.of_routers(policy, pools),
        _router_deployment(policy, meta, settings, labels),
    ]
    if policy.spec.router.replicas > 1:
        children.append(childmeta.disruption_budget(policy, name, child_labels=labels, selector=selector))
    return [childmeta.stamped(manifest) for manifest in children]


def router_address(policy: RoutingPolicy) -> str:
    """Where OpenAI clients connect, inside the cluster."""
    return f"http://{names.router_name(policy.metadata.name)}.{policy.metadata.namespace}.svc/v1"


def _router_service(meta: Manifest, selector: dict[str, str]) -> Manifest:
    port = {"name": "http", "port": names.ROUTER_SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}
    spec = {"type": "ClusterIP", "selector": selector, "ports": [port]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _router_deployment(
    policy: RoutingPolicy, meta: Manifest, settings: ChildSettings, labels: dict[str, str]
) -> Manifest:
    template = routerpod.pod_template(policy, image=settings.router_image, config_map=meta["name"], labels=labels)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": policy.spec.router.replicas,
            "selector": {"matchLabels": policy_selector(policy)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }
