"""Builders of valid manifests, and of the same with some fields changed."""

import copy
from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]

#: The accelerator of pools on kwok.
H100 = "nvidia-h100-80gb"
#: As a value of `changed`: take the field away.
REMOVED = object()


def pool_manifest(name: str = "low", **changes: Any) -> Manifest:
    """A valid InferencePool; `spec__model__name="x"` changes `spec.model.name`."""
    manifest = {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": {"name": "Qwen/Qwen3-8B", "contextTokens": 32768, "reasoningParser": "qwen3"},
            "accelerator": {"name": "nvidia-l4-24gb", "count": 1},
        },
    }
    return _changed(manifest, changes)


def kwok_pool(name: str = "low", *, namespace: str, **changes: Any) -> Manifest:
    """An InferencePool on the nodes of kwok; drains are short: no engine in its pods could say that it is idle."""
    plain = {
        "metadata__namespace": namespace,
        "spec__accelerator__name": H100,
        "spec__model__shape": shape(),
        "spec__nodes": {"selector": {"type": "kwok"}},
        "spec__drain": {"deadlineSeconds": 2},
    }
    return pool_manifest(name, **plain | changes)


def policy_manifest(name: str = "chat", **changes: Any) -> Manifest:
    """A valid RoutingPolicy of the tiers low and high, on the pools of the same names."""
    manifest = {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"tiers": [tier("low"), tier("high", thinking_tokens=4096)]},
    }
    return _changed(manifest, changes)


def tier(name: str, *, pool: str | None = None, thinking_tokens: int = 0) -> Manifest:
    """One entry of `spec.tiers`."""
    return {"name": name, "poolRef": {"name": pool or name}, "budget": {"thinkingTokens": thinking_tokens}}


def shape(**changes: Any) -> Manifest:
    """A valid `spec.model.shape`: Qwen3-8B."""
    whole = {"parametersMillions": 8190, "layers": 36, "attentionHeads": 32, "kvHeads": 8, "headDim": 128}
    return whole | changes


def karpenter(*, mode: str = "Karpenter", **changes: Any) -> Manifest:
    """A valid `spec.nodes` of mode Karpenter."""
    reference = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"}
    return {"mode": mode, "karpenter": {"nodeClassRef": reference, **changes}}


def compute_class(*priorities: Manifest) -> Manifest:
    """A valid `spec.nodes` of mode GKEComputeClass."""
    return {"mode": "GKEComputeClass", "gkeComputeClass": {"priorities": list(priorities)}}


def changed(manifest: Manifest, changes: Mapping[str, Any]) -> Manifest:
    """A copy with the dotted paths set, or taken away where the value is REMOVED."""
    out = copy.deepcopy(manifest)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = out
        for part in parents:
            place = place.setdefault(part, {})
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return out


def _changed(manifest: Manifest, changes: Mapping[str, Any]) -> Manifest:
    return changed(manifest, {path.replace("__", "."): value for path, value in changes.items()})
