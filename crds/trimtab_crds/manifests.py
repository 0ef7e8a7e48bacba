"""The two CustomResourceDefinitions: names, printer columns, subresources and schemas."""

from typing import Any

from pydantic import BaseModel

from trimtab_crds.inferencepool import InferencePoolSpec, InferencePoolStatus
from trimtab_crds.meta import GROUP, VERSION
from trimtab_crds.routingpolicy import RoutingPolicySpec, RoutingPolicyStatus
from trimtab_crds.schema import structural_schema

Manifest = dict[str, Any]


def _condition(kind: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")]'


def _column(name: str, path: str, kind: str = "string", **more: Any) -> Manifest:
    return {"name": name, "type": kind, "jsonPath": path, **more}


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_READY = [
    _column("Ready", _condition("Ready") + ".status"),
    _column("Reason", _condition("Ready") + ".reason", priority=1),
]
_POOL_COLUMNS = [
    _column("Model", ".spec.model.name"),
    _column("Accelerator", ".spec.accelerator.name"),
    _column("Desired", ".status.desiredReplicas", "integer"),
    _column("Replicas", ".status.replicas", "integer"),
    _column("Available", ".status.readyReplicas", "integer"),
    _column("GPUs", ".status.gpus", "integer"),
    *_READY,
    _AGE,
]
_POLICY_COLUMNS = [
    _column("Mode", ".spec.rebalance.mode"),
    _column("Quality", ".spec.quality", "integer"),
    _column("Routers", ".status.routerReadyReplicas", "integer"),
    *_READY,
    _column("Decision", ".status.decision", priority=1),
    _AGE,
]


def _definition(*, kind: str, plural: str, short: str, versions: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["trimtab"],
            },
            "versions": versions,
        },
    }


def _version(
    about: str,
    spec: type[BaseModel],
    status: type[BaseModel],
    columns: list[Manifest],
    subresources: Manifest,
) -> Manifest:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "subresources": subresources,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": about,
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": structural_schema(spec),
                    "status": structural_schema(status),
                },
            }
        },
    }


def inference_pool() -> Manifest:
    """The CRD `inferencepools.trimtab.dev`."""
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    about = "InferencePool: identical replicas of one model with one recipe on one GPU shape, run by vLLM."
    version = _version(about, InferencePoolSpec, InferencePoolStatus, _POOL_COLUMNS, {"status": {}, "scale": scale})
    return _definition(kind="InferencePool", plural="inferencepools", short="tpool", versions=[version])


def routing_policy() -> Manifest:
    """The CRD `routingpolicies.trimtab.dev`."""
    about = "RoutingPolicy: tiers of pools, budgets per query, and how GPU replicas follow the demand for tiers."
    version = _version(about, RoutingPolicySpec, RoutingPolicyStatus, _POLICY_COLUMNS, {"status": {}})
    return _definition(kind="RoutingPolicy", plural="routingpolicies", short="tpolicy", versions=[version])


def definitions() -> dict[str, Manifest]:
    """File name to CRD, as committed in `crds/generated/`."""
    return {f"{m['metadata']['name']}.yaml": m for m in (inference_pool(), routing_policy())}
