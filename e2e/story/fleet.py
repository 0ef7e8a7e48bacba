"""The manifests of the story: three pools of a real vLLM, one policy over them."""

from pathlib import Path
from typing import Any

from testcluster.vllm import CPU_FLAGS, ENVIRONMENT

Manifest = dict[str, Any]

NAMESPACE = "story"
POLICY = "chat"
IMAGE = "localhost/trimtab:test"
ACCELERATOR = "nvidia-l4-24gb"
GPU_BUDGET = 4
THINKING = {"low": 0, "medium": 128, "high": 256}
ANSWER = {"low": 64, "medium": 128, "high": 256}
START = {"low": 2, "medium": 1, "high": 1}
LONG_PROMPT_TOKENS = 3000
# The tiny model stands in for a real 8B one: its declared shape gives the capacity that the rebalancer plans with.
SHAPE = {"parametersMillions": 8190, "layers": 36, "attentionHeads": 32, "kvHeads": 8, "headDim": 128}
# What the recipe or the pool sets itself; the rest are flags that a CPU needs.
_RESOLVED = ("--max-model-len", "--max-num-seqs")


def namespace() -> Manifest:
    """The namespace of the story."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def pool(name: str, *, vllm: Path, model: Path, **spec: Any) -> Manifest:
    """A pool of the tiny model; vLLM and the model come from the node's disk."""
    volumes = {"vllm": (vllm, "/opt/vllm"), "model": (model, "/models/tiny")}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "name": "/models/tiny",
                "contextTokens": 8192,
                "reasoningParser": "qwen3",
                "shape": SHAPE,
            },
            "engine": {
                "image": IMAGE,
                "command": ["/opt/vllm/bin/vllm", "serve"],
                "args": [f for f in CPU_FLAGS if f.split("=")[0] not in _RESOLVED],
                "env": [{"name": k, "value": v} for k, v in ENVIRONMENT.items()],
                "pod": {
                    "volumes": [{"name": k, "hostPath": {"path": str(p)}} for k, (p, _) in volumes.items()],
                    "volumeMounts": [{"name": k, "mountPath": m, "readOnly": True} for k, (_, m) in volumes.items()],
                },
            },
            "accelerator": {"name": ACCELERATOR},
            "recipe": {"preset": "balanced", "batching": {"maxSequences": 16}},
            "replicas": START[name],
            "scaling": {"minReplicas": 1, "maxReplicas": 3},
            "drain": {"deadlineSeconds": 20},
            "cost": {"gpuHourMilli": 800},
            **spec,
        },
    }


def policy(*, prometheus: str, **spec: Any) -> Manifest:
    """The policy over the three pools."""
    tiers = [
        {
            "name": name,
            "poolRef": {"name": name},
            "budget": {"thinkingTokens": THINKING[name], "outputTokens": ANSWER[name]},
        }
        for name in START
    ]
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": POLICY, "namespace": NAMESPACE},
        "spec": {
            "models": ["auto"],
            "tiers": tiers,
            "context": [{"minPromptTokens": LONG_PROMPT_TOKENS, "tier": "medium"}],
            "classifier": {"defaultTier": "medium"},
            "rebalance": {
                "mode": "Apply",
                "gpuBudget": [{"accelerator": ACCELERATOR, "gpus": GPU_BUDGET}],
                "prometheus": {"url": prometheus},
                "intervalSeconds": 2,
                "windowSeconds": 30,
                "cooldownSeconds": 5,
            },
            **spec,
        },
    }
