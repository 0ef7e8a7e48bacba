"""The manifests of the story: three pools of a real vLLM, one policy over them."""

from typing import Any

from testcluster.prometheus import IN_CLUSTER_URL
from testcluster.vllm import CPU_FLAGS, PodMount

Manifest = dict[str, Any]

NAMESPACE = "story"
POLICY = "chat"
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


def pool(name: str, *, image: str, vllm: PodMount, **spec: Any) -> Manifest:
    """A pool of the tiny model; the engine's own pod has the scratch space that `vllm` would bring along."""
    node_folders = [v for v in vllm.volumes if "hostPath" in v]
    mounted = {v["name"] for v in node_folders}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "name": vllm.model_at,
                "contextTokens": 8192,
                "reasoningParser": "qwen3",
                "shape": SHAPE,
            },
            "engine": {
                "image": image,
                "args": [f for f in CPU_FLAGS if f.split("=")[0] not in _RESOLVED],
                "env": vllm.env,
                "pod": {
                    # Without a request a pod has next to no share of a busy machine's processors.
                    "requests": {"cpu": "300m"},
                    "volumes": node_folders,
                    "volumeMounts": [m for m in vllm.volume_mounts if m["name"] in mounted],
                },
            },
            "accelerator": {"name": ACCELERATOR},
            "recipe": {"preset": "balanced", "batching": {"maxSequences": 16}},
            "replicas": START.get(name, 1),
            "scaling": {"minReplicas": 1, "maxReplicas": 3},
            "drain": {"deadlineSeconds": 20},
            "cost": {"gpuHourMilli": 800},
            **spec,
        },
    }


def policy(**spec: Any) -> Manifest:
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
                "prometheus": {"url": IN_CLUSTER_URL},
                "intervalSeconds": 2,
                "windowSeconds": 30,
                "cooldownSeconds": 5,
                # The story is about moves, not about idle replicas.
                "releaseAfterSeconds": 3600,
            },
            **spec,
        },
    }


def scrape_configs() -> list[Manifest]:
    """Every pod that asks to be scraped, as its annotations say."""
    annotation = "__meta_kubernetes_pod_annotation_prometheus_io"
    return [
        {
            "job_name": "pods",
            "kubernetes_sd_configs": [{"role": "pod"}],
            "relabel_configs": [
                {"source_labels": [f"{annotation}_scrape"], "action": "keep", "regex": "true"},
                {
                    "source_labels": ["__meta_kubernetes_pod_ip", f"{annotation}_port"],
                    "separator": ":",
                    "target_label": "__address__",
                },
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                # One target a pod, not one a container port.
                {
                    "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                    "action": "keep",
                    "regex": "http|admin|metrics",
                },
            ],
        }
    ]
