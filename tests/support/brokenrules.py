"""Manifests that break a rule of trimtab_crds, one for every rule."""

from support.badinput import rule
from support.manifests import Manifest, compute_class, karpenter, policy_manifest, pool_manifest, shape, tier


def _ngram(ranges: list[tuple[int, int, int]]) -> Manifest:
    by_batch = [{"from": first, "to": last, "tokens": tokens} for first, last, tokens in ranges]
    return {"speculation": {"method": "ngram", "tokensByBatchSize": by_batch}}


def _keys(secret: str) -> Manifest:
    return {"secretRef": {"name": secret}}


_FORCING = {"type": "BudgetForcing"}
BROKEN_RULES = (
    rule(
        "pool: key heads that do not divide the query heads",
        pool_manifest(spec__model__shape=shape(kvHeads=5)),
        "spec.model.shape",
        "model.shape.kvHeads 5 does not divide attentionHeads 32; copy both from the model's config.json",
    ),
    rule(
        "pool: more active parameters than parameters",
        pool_manifest(spec__model__shape=shape(activeParametersMillions=9000)),
        "spec.model.shape",
        "model.shape.activeParametersMillions 9000 is above parametersMillions 8190; lower it",
    ),
    rule(
        "pool: more layers with full attention than layers",
        pool_manifest(spec__model__shape=shape(fullAttentionLayers=37)),
        "spec.model.shape",
        "model.shape.fullAttentionLayers 37 is above layers 36; lower it",
    ),
    rule(
        "pool: a quantized checkpoint without its bits",
        pool_manifest(spec__model__shape=shape(quantization="awq")),
        "spec.model.shape",
        "model.shape.quantization awq needs weightBits; set it to the bits of one weight",
    ),
    rule(
        "pool: latent attention with several key heads",
        pool_manifest(spec__model__shape=shape(latentAttention=True)),
        "spec.model.shape",
        "model.shape.kvHeads 8 beside latentAttention; set it to 1: all heads share one latent",
    ),
    rule(
        "pool: a cache in two places",
        pool_manifest(spec__model__cache={"claimName": "models", "hostPath": "/mnt/models"}),
        "spec.model.cache",
        "model.cache needs exactly one of claimName, hostPath and image; set the one that holds the model",
    ),
    rule(
        "pool: a model beside its cache",
        pool_manifest(spec__model__name="/other/qwen", spec__model__cache={"claimName": "models"}),
        "spec.model",
        "model.name /other/qwen is not below model.cache.mountPath /models; correct the path, or remove model.cache",
    ),
    rule(
        "pool: a hub's id in an image of files",
        pool_manifest(spec__model__cache={"image": "registry.example.com/qwen:1"}),
        "spec.model",
        "model.name Qwen/Qwen3-8B is not a path and model.cache.image holds files; "
        "set model.name to the model's folder below /models",
    ),
    rule(
        "pool: a download into a read-only cache",
        pool_manifest(spec__model__cache={"claimName": "models", "readOnly": True}),
        "spec.model",
        "model.cache.readOnly keeps Qwen/Qwen3-8B from being downloaded; "
        "set model.offline to true, or readOnly to false",
    ),
    rule(
        "pool: offline with nothing at hand",
        pool_manifest(spec__model__offline=True),
        "spec.model",
        "model.offline with model.name Qwen/Qwen3-8B needs model.cache; set it to a volume that holds the model",
    ),
    rule(
        "pool: a token that nobody asks for",
        pool_manifest(
            spec__model__offline=True, spec__model__name="/models/x", spec__model__tokenSecret={"name": "hf"}
        ),
        "spec.model",
        "model.tokenSecret has no effect with model.offline; remove one of them",
    ),
    rule(
        "pool: a variable that the model sets too",
        pool_manifest(
            spec__model__tokenSecret={"name": "hf"}, spec__engine={"env": [{"name": "HF_TOKEN", "value": "x"}]}
        ),
        "spec",
        "engine.env HF_TOKEN would replace what spec.model sets; remove it, or model.cache, tokenSecret or offline",
    ),
    rule(
        "pool: peers of a pool that is open to all",
        pool_manifest(spec__network={"allowFrom": [{"namespaceSelector": {}}]}),
        "spec.network",
        "network.allowFrom has no effect without network.isolated; set isolated to true or remove allowFrom",
    ),
    rule(
        "pool: a method that needs a draft without one",
        pool_manifest(spec__recipe={"speculation": {"method": "eagle3"}}),
        "spec.recipe.speculation",
        "recipe.speculation.method eagle3 needs a draft; set recipe.speculation.model to one trained for this model",
    ),
    rule(
        "pool: a draft for a method that takes none",
        pool_manifest(spec__recipe={"speculation": {"method": "ngram", "model": "org/draft"}}),
        "spec.recipe.speculation",
        "recipe.speculation.method ngram takes no draft; remove recipe.speculation.model",
    ),
    rule(
        "pool: heads of a draft that is not there",
        pool_manifest(spec__recipe={"speculation": {"method": "ngram", "draftAttentionHeads": 16}}),
        "spec.recipe.speculation",
        "recipe.speculation.draftAttentionHeads 16 has no effect without recipe.speculation.model; set the draft, or "
        "remove draftAttentionHeads",
    ),
    rule(
        "pool: guesses for all batch sizes and for each",
        pool_manifest(
            spec__recipe=_ngram([(1, 8, 4)]) | {"speculation": _ngram([(1, 8, 4)])["speculation"] | {"tokens": 4}}
        ),
        "spec.recipe.speculation",
        "recipe.speculation.tokens 4 beside tokensByBatchSize; remove one of them",
    ),
    rule(
        "pool: guesses for larger batches alone",
        pool_manifest(spec__recipe=_ngram([(2, 8, 4)])),
        "spec.recipe.speculation",
        "recipe.speculation.tokensByBatchSize needs a range from 1 and one with tokens; add it",
    ),
    rule(
        "pool: two numbers of guesses for a batch size",
        pool_manifest(spec__recipe=_ngram([(1, 8, 4), (8, 16, 2)])),
        "spec.recipe.speculation",
        "recipe.speculation.tokensByBatchSize has ranges that overlap; let each batch size be in one of them",
    ),
    rule(
        "pool: batch sizes that go down",
        pool_manifest(spec__recipe=_ngram([(1, 8, 4), (32, 9, 2)])),
        "spec.recipe.speculation.tokensByBatchSize[1]",
        "recipe.speculation.tokensByBatchSize from 32 is above to 9; swap them",
    ),
    rule(
        "pool: a limit on the chunks of prompts that are not chunked",
        pool_manifest(spec__recipe={"batching": {"chunkedPrefill": False, "longPrefillThreshold": 512}}),
        "spec.recipe.batching",
        "recipe.batching.longPrefillThreshold 512 has no effect without chunkedPrefill; "
        "remove it or set chunkedPrefill to true",
    ),
    rule(
        "pool: a rank that no kernel has",
        pool_manifest(spec__recipe={"lora": {"modules": [{"name": "a", "path": "/a"}], "maxRank": 10}}),
        "spec.recipe.lora",
        "recipe.lora.maxRank 10 is none of vLLM's; use one of 1, 8, 16, 32, 64, 128, 256, 320, 512",
    ),
    rule(
        "pool: fewer tokens a step than sequences",
        pool_manifest(spec__recipe={"batching": {"maxSequences": 512, "maxBatchedTokens": 256}}),
        "spec.recipe.batching",
        "recipe.batching.maxBatchedTokens 256 is below maxSequences 512; "
        "raise it: every running sequence needs one token a step",
    ),
    rule(
        "pool: replicas above the scaling bounds",
        pool_manifest(spec__replicas=9, spec__scaling={"minReplicas": 1, "maxReplicas": 4}),
        "spec",
        "replicas 9 is outside scaling.minReplicas 1 to maxReplicas 4; "
        "set replicas to a number between them: the pool starts from it",
    ),
    rule(
        "pool: the default of replicas below the scaling bounds",
        pool_manifest(spec__scaling={"minReplicas": 2, "maxReplicas": 4}),
        "spec",
        "replicas 1 is outside scaling.minReplicas 2 to maxReplicas 4; "
        "set replicas to a number between them: the pool starts from it",
    ),
    rule(
        "pool: parallelism that does not use every GPU once",
        pool_manifest(spec__accelerator__count=4, spec__recipe={"parallelism": {"tensor": 2}}),
        "spec",
        "recipe.parallelism.tensor 2 times pipeline 1 times prefillContext 1 times data 1 is not accelerator.count 4; "
        "change one of them so that every GPU of a replica is used once",
    ),
    rule(
        "pool: a managed flag with =",
        pool_manifest(spec__engine={"args": ["--disable-log-stats", "--port=9000"]}),
        "spec",
        "engine.args may not set --port=9000; use spec.model and spec.drain instead",
    ),
    rule(
        "pool: a managed flag as a word",
        pool_manifest(spec__engine={"args": ["--max-model-len", "4096"]}),
        "spec",
        "engine.args may not set --max-model-len; use spec.model and spec.drain instead",
    ),
    rule(
        "pool: two slices for one replica",
        pool_manifest(spec__accelerator={"name": "nvidia-h100-80gb-mig-3g-40gb", "count": 2}),
        "spec.accelerator",
        "accelerator.count 2 of nvidia-h100-80gb-mig-3g-40gb: MIG slices cannot work together; "
        "set count 1, or use whole GPUs",
    ),
    rule(
        "pool: a device class for the device plugin",
        pool_manifest(spec__accelerator__deviceClassName="gpu.nvidia.com"),
        "spec.accelerator",
        "accelerator.deviceClassName gpu.nvidia.com has no effect with accelerator.allocation DevicePlugin; "
        "set allocation DRA or remove deviceClassName",
    ),
    rule(
        "pool: GPUs that nodes cannot share evenly",
        pool_manifest(spec__accelerator={"name": "nvidia-h100-80gb", "count": 8, "nodes": 3}),
        "spec.accelerator",
        "accelerator.count 8 is no multiple of accelerator.nodes 3; change one of them: every node of a replica has "
        "as many GPUs",
    ),
    rule(
        "pool: a topology for a single node",
        pool_manifest(spec__accelerator__exclusiveTopology="topology.kubernetes.io/zone"),
        "spec.accelerator",
        "accelerator.exclusiveTopology topology.kubernetes.io/zone has no effect with accelerator.nodes 1; "
        "remove it, or raise nodes",
    ),
    rule(
        "pool: Karpenter without its part",
        pool_manifest(spec__nodes={"mode": "Karpenter"}),
        "spec.nodes",
        "nodes.mode Karpenter needs nodes.karpenter; set at least nodes.karpenter.nodeClassRef",
    ),
    rule(
        "pool: Karpenter's part in another mode",
        pool_manifest(spec__nodes=karpenter(mode="Static")),
        "spec.nodes",
        "nodes.karpenter has no effect in nodes.mode Static; set nodes.mode Karpenter or remove nodes.karpenter",
    ),
    rule(
        "pool: GKE without its part",
        pool_manifest(spec__nodes={"mode": "GKEComputeClass"}),
        "spec.nodes",
        "nodes.mode GKEComputeClass needs nodes.gkeComputeClass; set at least one of nodes.gkeComputeClass.priorities",
    ),
    rule(
        "pool: GKE's part in another mode",
        pool_manifest(spec__nodes={"gkeComputeClass": {"priorities": [{"spot": True}]}}),
        "spec.nodes",
        "nodes.gkeComputeClass has no effect in nodes.mode Static; "
        "set nodes.mode GKEComputeClass or remove nodes.gkeComputeClass",
    ),
    rule(
        "pool: a requirement without values",
        pool_manifest(spec__nodes=karpenter(requirements=[{"key": "topology.kubernetes.io/zone"}])),
        "spec.nodes.karpenter.requirements[0]",
        "nodes.karpenter.requirements[].operator In of topology.kubernetes.io/zone does not fit its values; "
        "Exists and DoesNotExist take none, the others need at least one",
    ),
    rule(
        "pool: a schedule without a duration",
        pool_manifest(spec__nodes=karpenter(disruption={"budgets": [{"nodes": "0", "schedule": "@daily"}]})),
        "spec.nodes.karpenter.disruption.budgets[0]",
        "nodes.karpenter.disruption.budgets[].schedule and durationMinutes only work together; set both or remove both",
    ),
    rule(
        "pool: a machine type and its family",
        pool_manifest(spec__nodes=compute_class({"machineType": "g2-standard-12", "machineFamily": "g2"})),
        "spec.nodes.gkeComputeClass.priorities[0]",
        "nodes.gkeComputeClass.priorities[].machineType g2-standard-12 says its machineFamily g2 already; "
        "remove one of them",
    ),
    rule(
        "pool: spot with flex start",
        pool_manifest(spec__nodes=compute_class({"spot": True, "flexStart": True})),
        "spec.nodes.gkeComputeClass.priorities[0]",
        "nodes.gkeComputeClass.priorities[].spot and flexStart exclude each other; "
        "make two priorities of it, in the order to try them",
    ),
    rule(
        "policy: a class on an unknown tier",
        policy_manifest(spec__classes=[{"name": "chat", "tier": "low"}, {"name": "math", "tier": "medium"}]),
        "spec",
        "classes[].tier medium is not the name of one of tiers[]; correct it or add the tier",
    ),
    rule(
        "policy: a prompt length on an unknown tier",
        policy_manifest(spec__context=[{"minPromptTokens": 8000, "tier": "long"}]),
        "spec",
        "context[].tier long is not the name of one of tiers[]; correct it or add the tier",
    ),
    rule(
        "policy: an unknown default tier",
        policy_manifest(spec__classifier={"defaultTier": "medium"}),
        "spec",
        "classifier.defaultTier medium is not the name of one of tiers[]; correct it or add the tier",
    ),
    rule(
        "policy: two tiers on one pool",
        policy_manifest(spec__tiers=[tier("low", pool="small"), tier("high", pool="small")]),
        "spec",
        "tiers[].poolRef.name small is used twice; "
        "give every tier a pool of its own so that its demand can be told apart",
    ),
    rule(
        "policy: a pool that reads for two tiers",
        policy_manifest(
            spec__tiers=[
                tier("low") | {"prefillPoolRef": {"name": "reader"}},
                tier("high") | {"prefillPoolRef": {"name": "reader"}},
            ]
        ),
        "spec",
        "tiers[].prefillPoolRef.name reader is a pool of another tier or the tier's own poolRef; give every tier a "
        "pool of its own to read its prompts",
    ),
    rule(
        "policy: a pool that reads for itself",
        policy_manifest(spec__tiers=[tier("low") | {"prefillPoolRef": {"name": "low"}}]),
        "spec",
        "tiers[].prefillPoolRef.name low is a pool of another tier or the tier's own poolRef; give every tier a "
        "pool of its own to read its prompts",
    ),
    rule(
        "policy: Apply without a GPU budget",
        policy_manifest(spec__rebalance={"mode": "Apply"}),
        "spec.rebalance",
        "rebalance.mode Apply needs rebalance.gpuBudget; add one entry for every accelerator of the tiers' pools",
    ),
    rule(
        "policy: a window shorter than the interval",
        policy_manifest(spec__rebalance={"windowSeconds": 10}),
        "spec.rebalance",
        "rebalance.windowSeconds 10 is below intervalSeconds 15; raise windowSeconds or lower intervalSeconds",
    ),
    rule(
        "policy: a choice among answers without a verifier",
        policy_manifest(spec__tiers=[tier("low") | {"strategy": {"type": "BestOfN"}}]),
        "spec.tiers[0].strategy",
        "strategy.type BestOfN needs strategy.verifierPoolRef; name the pool that scores answers",
    ),
    rule(
        "policy: a vote of one sample",
        policy_manifest(spec__tiers=[tier("low") | {"strategy": {"type": "SelfConsistency", "samples": 1}}]),
        "spec.tiers[0].strategy",
        "strategy.samples 1 is too few for type SelfConsistency; use 2 or more",
    ),
    rule(
        "policy: thoughts forced on a tier that does not think",
        policy_manifest(spec__tiers=[tier("low") | {"budget": {"thinkingTokens": 0}, "strategy": _FORCING}]),
        "spec.tiers[0]",
        "strategy.type BudgetForcing needs budget.thinkingTokens of at least strategy.forcing.minThinkingTokens 512, "
        "and it is 0; raise the budget, lower minThinkingTokens or choose another type",
    ),
    rule(
        "policy: thoughts forced beyond the budget of a class",
        policy_manifest(
            spec__tiers=[tier("low") | {"budget": {"thinkingTokens": 512}, "strategy": _FORCING}],
            spec__classes=[{"name": "chat", "tier": "low", "budget": {"thinkingTokens": 511}}],
        ),
        "spec",
        "classes[] chat: strategy BudgetForcing, its own or its tier's, needs budget.thinkingTokens of at least "
        "strategy.forcing.minThinkingTokens; raise the budget, lower minThinkingTokens or give the class another "
        "strategy",
    ),
    rule(
        "policy: thoughts forced by a class on a tier that does not think",
        policy_manifest(
            spec__tiers=[tier("low") | {"budget": {"thinkingTokens": 0}}],
            spec__classes=[{"name": "math", "tier": "low", "strategy": _FORCING}],
        ),
        "spec",
        "classes[] math: strategy BudgetForcing, its own or its tier's, needs budget.thinkingTokens of at least "
        "strategy.forcing.minThinkingTokens; raise the budget, lower minThinkingTokens or give the class another "
        "strategy",
    ),
)

_OUTCOME = {"className": "math", "tier": "low", "right": 1, "wrong": 0}
BROKEN_RULES += (
    rule(
        "policy: an outcome of an unknown tier",
        policy_manifest(spec__outcomes=[_OUTCOME | {"tier": "huge"}]),
        "spec",
        "outcomes[].tier huge is not the name of one of tiers[]; correct it or remove the entry",
    ),
    rule(
        "policy: an outcome of a strategy that nothing has",
        policy_manifest(spec__outcomes=[_OUTCOME | {"strategy": "Cascade"}]),
        "spec",
        "outcomes[].strategy Cascade is neither that of the tier nor of a class line that names the tier; "
        "remove the entry or give the tier the strategy",
    ),
    rule(
        "policy: an outcome of nothing",
        policy_manifest(spec__outcomes=[_OUTCOME | {"right": 0}]),
        "spec.outcomes[0]",
        "outcomes[] of class math on tier low has neither right nor wrong; remove it or give its counts",
    ),
    rule(
        "policy: a tenant's unknown tier",
        policy_manifest(spec__tenants=[{"name": "a"}, {"name": "b", "maxTier": "huge"}]),
        "spec",
        "tenants[].maxTier huge is not the name of one of tiers[]; correct it or leave it out",
    ),
    rule(
        "policy: a tenant that nothing can name",
        policy_manifest(spec__tenants=[{"name": "default"}, {"name": "a", "apiKeys": _keys("a")}, {"name": "b"}]),
        "spec",
        "tenants[] b has no apiKeys while others have, so that no request can name it; give it apiKeys or remove it",
    ),
    rule(
        "policy: two tenants with the keys of one Secret",
        policy_manifest(spec__tenants=[{"name": name, "apiKeys": _keys("same")} for name in ("a", "b")]),
        "spec",
        "tenants[].apiKeys.secretRef.name same is used twice, so that its keys would name two tenants; give every "
        "tenant a Secret of its own",
    ),
    rule(
        "policy: unsolvable without outcomes",
        policy_manifest(spec__planning={"unsolvable": "Cap"}),
        "spec",
        "planning.unsolvable Cap needs outcomes, which say what is hardly ever answered; add them "
        "(`trimtab classifier fit`) or set it to Off",
    ),
)
