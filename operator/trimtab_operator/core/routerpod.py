"""The pod of a router: reads one mounted document and needs no permission at all."""

from typing import Any

from trimtab_crds.routingpolicy import DecisionLog, RoutingPolicy
from trimtab_operator.core import childmeta, names

Manifest = dict[str, Any]

CONTAINER = "router"
CONFIG_FOLDER = "/etc/trimtab"
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
            ],
        },
    }


def _container(policy: RoutingPolicy, image: str) -> Manifest:
    router = policy.spec.router
    amounts = {"requests": dict(router.resources.requests), "limits": dict(router.resources.limits)}
    return {
        "name": CONTAINER,
        "image": router.image or image,
        "command": [*_command(router.workers), *_DECISION_LOG[router.decision_log]],
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
        ],
    }


def _command(workers: int) -> list[str]:
    return [
        *("trimtab", "router", "--config", f"{CONFIG_FOLDER}/{names.CONFIG_KEY}"),
        *("--listen", f"0.0.0.0:{names.ROUTER_PORT}", "--admin", f"0.0.0.0:{names.ROUTER_ADMIN_PORT}"),
        *("--workers", str(workers), "--drain-seconds", str(DRAIN_SECONDS)),
    ]
