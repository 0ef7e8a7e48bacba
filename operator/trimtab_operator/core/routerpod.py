"""The pod of a router: reads one mounted document, and mounted API keys, and needs no permission at all."""

from typing import Any

from trimtab_crds.planning import Tenant
from trimtab_crds.routingpolicy import DecisionLog, RoutingPolicy
from trimtab_operator.core import childmeta, names

Manifest = dict[str, Any]

CONTAINER = "router"
CONFIG_FOLDER = "/etc/trimtab"
KEYS_FOLDER = "/etc/trimtab-keys"
#: Read by the pod's user and group alone; the kubelet gives the files to `fsGroup`.
_KEYS_MODE = 0o440
#: Open streams of reasoning models last for minutes; a router that ends lets them end.
DRAIN_SECONDS = 570
GRACE_SECONDS = childmeta.PRE_STOP_SECONDS + DRAIN_SECONDS + 25
_USER = 1000
_DECISION_LOG = {DecisionLog.OFF: (), DecisionLog.STDOUT: ("--decision-log", "-")}


def pod_template(policy: RoutingPolicy, *, image: str, config_map: str, labels: dict[str, str]) -> Manifest:
    """The pod template of the policy's Deployment.

    The document's digest is not in it on purpose: routers reload the mounted file, and a new pod would cut streams.
    """
    return {
        "metadata": {"labels": labels, "annotations": childmeta.scraped(names.ROUTER_ADMIN_PORT)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": childmeta.pod_security(_USER),
            "containers": [_container(policy, image)],
            "volumes": [
                {"name": "config", "configMap": {"name": config_map}},
                {"name": "tmp", "emptyDir": {}},
                *(_keys_volume(tenant) for tenant in _keyed(policy)),
            ],
        },
    }


def _keyed(policy: RoutingPolicy) -> list[Tenant]:
    return [tenant for tenant in policy.spec.tenants if tenant.api_keys is not None]


def _keys_volume(tenant: Tenant) -> Manifest:
    """Optional: a Secret that is missing keeps its own tenant out, and not the router from starting."""
    secret = "" if tenant.api_keys is None else tenant.api_keys.secret_ref.name
    return {
        "name": names.keys_volume(tenant.name),
        "secret": {"secretName": secret, "optional": True, "defaultMode": _KEYS_MODE},
    }


def _keys_mount(tenant: Tenant) -> Manifest:
    path = f"{KEYS_FOLDER}/{tenant.name}"
    return {"name": names.keys_volume(tenant.name), "mountPath": path, "readOnly": True}


def _container(policy: RoutingPolicy, image: str) -> Manifest:
    router = policy.spec.router
    amounts = {"requests": dict(router.resources.requests), "limits": dict(router.resources.limits)}
    return {
        "name": CONTAINER,
        "image": router.image or image,
        "command": [*_command(policy), *_DECISION_LOG[router.decision_log]],
        "ports": [
            {"name": "http", "containerPort": names.ROUTER_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": names.ROUTER_ADMIN_PORT, "protocol": "TCP"},
        ],
        # The API server drops empty ones, which would look like drift.
        "resources": {kind: amount for kind, amount in amounts.items() if amount},
        "readinessProbe": childmeta.http_probe("/readyz", "admin", period_seconds=5, failures=2),
        "livenessProbe": childmeta.http_probe("/healthz", "admin", period_seconds=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": childmeta.PRE_STOP_SECONDS}}},
        "securityContext": childmeta.container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            *(_keys_mount(tenant) for tenant in _keyed(policy)),
        ],
    }


def _command(policy: RoutingPolicy) -> list[str]:
    return [
        *("trimtab", "router", "--config", f"{CONFIG_FOLDER}/{names.CONFIG_KEY}"),
        *("--listen", f"0.0.0.0:{names.ROUTER_PORT}", "--admin", f"0.0.0.0:{names.ROUTER_ADMIN_PORT}"),
        *("--workers", str(policy.spec.router.workers), "--drain-seconds", str(DRAIN_SECONDS)),
        *(("--keys", KEYS_FOLDER) if _keyed(policy) else ()),
    ]
