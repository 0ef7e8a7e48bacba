"""Manifests that must be refused, each with the sentence that Python and the API server say.

`problems` is exactly what `trimtab_crds.load.load` raises. `server` is a part of the API server's message: the
cross-field rules say the same sentence in both places, types and bounds the API server words itself. `server` is
None where it cannot know: the accelerator catalogue is data, not schema.
"""

from dataclasses import dataclass
from typing import Any

from support.manifests import REMOVED, Manifest, compute_class, karpenter, policy_manifest, pool_manifest, shape, tier
from trimtab_crds.accelerators import CATALOGUE


@dataclass(frozen=True, slots=True)
class BadInput:
    """One manifest to refuse."""

    id: str
    manifest: Manifest
    problems: tuple[str, ...]
    server: str | None


def _rule(name: str, manifest: Manifest, where: str, sentence: str) -> BadInput:
    """A broken cross-field rule: one sentence, which both say."""
    return BadInput(name, manifest, (f"{where}: {sentence}",), f"{where}: Invalid value: {sentence}")


def _pool(name: str, problem: str, server: str | None, **changes: Any) -> BadInput:
    return BadInput(f"pool: {name}", pool_manifest(**changes), (problem,), server)


def _policy(name: str, problem: str, server: str | None, **changes: Any) -> BadInput:
    return BadInput(f"policy: {name}", policy_manifest(**changes), (problem,), server)


def _ngram(ranges: list[tuple[int, int, int]]) -> Manifest:
    by_batch = [{"from": first, "to": last, "tokens": tokens} for first, last, tokens in ranges]
    return {"speculation": {"method": "ngram", "tokensByBatchSize": by_batch}}


def _keys(secret: str) -> Manifest:
    return {"secretRef": {"name": secret}}


_KNOWN = ", ".join(sorted(CATALOGUE))
_NO_SUCH_FIELD = "no such field; remove it or correct its spelling (kubectl explain lists the fields)"

_FORCING = {"type": "BudgetForcing"}
BROKEN_RULES = (
    _rule(
        "pool: key heads that do not divide the query heads",
        pool_manifest(spec__model__shape=shape(kvHeads=5)),
        "spec.model.shape",
        "model.shape.kvHeads 5 does not divide attentionHeads 32; copy both from the model's config.json",
    ),
    _rule(
        "pool: more active parameters than parameters",
        pool_manifest(spec__model__shape=shape(activeParametersMillions=9000)),
        "spec.model.shape",
        "model.shape.activeParametersMillions 9000 is above parametersMillions 8190; lower it",
    ),
    _rule(
        "pool: more layers with full attention than layers",
        pool_manifest(spec__model__shape=shape(fullAttentionLayers=37)),
        "spec.model.shape",
        "model.shape.fullAttentionLayers 37 is above layers 36; lower it",
    ),
    _rule(
        "pool: a quantized checkpoint without its bits",
        pool_manifest(spec__model__shape=shape(quantization="awq")),
        "spec.model.shape",
        "model.shape.quantization awq needs weightBits; set it to the bits of one weight",
    ),
    _rule(
        "pool: latent attention with several key heads",
        pool_manifest(spec__model__shape=shape(latentAttention=True)),
        "spec.model.shape",
        "model.shape.kvHeads 8 beside latentAttention; set it to 1: all heads share one latent",
    ),
    _rule(
        "pool: a cache in two places",
        pool_manifest(spec__model__cache={"claimName": "models", "hostPath": "/mnt/models"}),
        "spec.model.cache",
        "model.cache needs exactly one of claimName, hostPath and image; set the one that holds the model",
    ),
    _rule(
        "pool: a model beside its cache",
        pool_manifest(spec__model__name="/other/qwen", spec__model__cache={"claimName": "models"}),
        "spec.model",
        "model.name /other/qwen is not below model.cache.mountPath /models; correct the path, or remove model.cache",
    ),
    _rule(
        "pool: a hub's id in an image of files",
        pool_manifest(spec__model__cache={"image": "registry.example.com/qwen:1"}),
        "spec.model",
        "model.name Qwen/Qwen3-8B is not a path and model.cache.image holds files; "
        "set model.name to the model's folder below /models",
    ),
    _rule(
        "pool: a download into a read-only cache",
        pool_manifest(spec__model__cache={"claimName": "models", "readOnly": True}),
        "spec.model",
        "model.cache.readOnly keeps Qwen/Qwen3-8B from being downloaded; "
        "set model.offline to true, or readOnly to false",
    ),
    _rule(
        "pool: offline with nothing at hand",
        pool_manifest(spec__model__offline=True),
        "spec.model",
        "model.offline with model.name Qwen/Qwen3-8B needs model.cache; set it to a volume that holds the model",
    ),
    _rule(
        "pool: a token that nobody asks for",
        pool_manifest(
            spec__model__offline=True, spec__model__name="/models/x", spec__model__tokenSecret={"name": "hf"}
        ),
        "spec.model",
        "model.tokenSecret has no effect with model.offline; remove one of them",
    ),
    _rule(
        "pool: a variable that the model sets too",
        pool_manifest(
            spec__model__tokenSecret={"name": "hf"}, spec__engine={"env": [{"name": "HF_TOKEN", "value": "x"}]}
        ),
        "spec",
        "engine.env HF_TOKEN would replace what spec.model sets; remove it, or model.cache, tokenSecret or offline",
    ),
    _rule(
        "pool: peers of a pool that is open to all",
        pool_manifest(spec__network={"allowFrom": [{"namespaceSelector": {}}]}),
        "spec.network",
        "network.allowFrom has no effect without network.isolated; set isolated to true or remove allowFrom",
    ),
    _rule(
        "pool: a method that needs a draft without one",
        pool_manifest(spec__recipe={"speculation": {"method": "eagle3"}}),
        "spec.recipe.speculation",
        "recipe.speculation.method eagle3 needs a draft; set recipe.speculation.model to one trained for this model",
    ),
    _rule(
        "pool: a draft for a method that takes none",
        pool_manifest(spec__recipe={"speculation": {"method": "ngram", "model": "org/draft"}}),
        "spec.recipe.speculation",
        "recipe.speculation.method ngram takes no draft; remove recipe.speculation.model",
    ),
    _rule(
        "pool: heads of a draft that is not there",
        pool_manifest(spec__recipe={"speculation": {"method": "ngram", "draftAttentionHeads": 16}}),
        "spec.recipe.speculation",
        "recipe.speculation.draftAttentionHeads 16 has no effect without recipe.speculation.model; set the draft, or "
        "remove draftAttentionHeads",
    ),
    _rule(
        "pool: guesses for all batch sizes and for each",
        pool_manifest(
            spec__recipe=_ngram([(1, 8, 4)]) | {"speculation": _ngram([(1, 8, 4)])["speculation"] | {"tokens": 4}}
        ),
        "spec.recipe.speculation",
        "recipe.speculation.tokens 4 beside tokensByBatchSize; remove one of them",
    ),
    _rule(
        "pool: guesses for larger batches alone",
        pool_manifest(spec__recipe=_ngram([(2, 8, 4)])),
        "spec.recipe.speculation",
        "recipe.speculation.tokensByBatchSize needs a range from 1 and one with tokens; add it",
    ),
    _rule(
        "pool: two numbers of guesses for a batch size",
        pool_manifest(spec__recipe=_ngram([(1, 8, 4), (8, 16, 2)])),
        "spec.recipe.speculation",
        "recipe.speculation.tokensByBatchSize has ranges that overlap; let each batch size be in one of them",
    ),
    _rule(
        "pool: batch sizes that go down",
        pool_manifest(spec__recipe=_ngram([(1, 8, 4), (32, 9, 2)])),
        "spec.recipe.speculation.tokensByBatchSize[1]",
        "recipe.speculation.tokensByBatchSize from 32 is above to 9; swap them",
    ),
    _rule(
        "pool: a limit on the chunks of prompts that are not chunked",
        pool_manifest(spec__recipe={"batching": {"chunkedPrefill": False, "longPrefillThreshold": 512}}),
        "spec.recipe.batching",
        "recipe.batching.longPrefillThreshold 512 has no effect without chunkedPrefill; "
        "remove it or set chunkedPrefill to true",
    ),
    _rule(
        "pool: a rank that no kernel has",
        pool_manifest(spec__recipe={"lora": {"modules": [{"name": "a", "path": "/a"}], "maxRank": 10}}),
        "spec.recipe.lora",
        "recipe.lora.maxRank 10 is none of vLLM's; use one of 1, 8, 16, 32, 64, 128, 256, 320, 512",
    ),
    _rule(
        "pool: fewer tokens a step than sequences",
        pool_manifest(spec__recipe={"batching": {"maxSequences": 512, "maxBatchedTokens": 256}}),
        "spec.recipe.batching",
        "recipe.batching.maxBatchedTokens 256 is below maxSequences 512; "
        "raise it: every running sequence needs one token a step",
    ),
    _rule(
        "pool: replicas above the scaling bounds",
        pool_manifest(spec__replicas=9, spec__scaling={"minReplicas": 1, "maxReplicas": 4}),
        "spec",
        "replicas 9 is outside scaling.minReplicas 1 to maxReplicas 4; "
        "set replicas to a number between them: the pool starts from it",
    ),
    _rule(
        "pool: the default of replicas below the scaling bounds",
        pool_manifest(spec__scaling={"minReplicas": 2, "maxReplicas": 4}),
        "spec",
        "replicas 1 is outside scaling.minReplicas 2 to maxReplicas 4; "
        "set replicas to a number between them: the pool starts from it",
    ),
    _rule(
        "pool: parallelism that does not use every GPU once",
        pool_manifest(spec__accelerator__count=4, spec__recipe={"parallelism": {"tensor": 2}}),
        "spec",
        "recipe.parallelism.tensor 2 times pipeline 1 times prefillContext 1 times data 1 is not accelerator.count 4; "
        "change one of them so that every GPU of a replica is used once",
    ),
    _rule(
        "pool: a managed flag with =",
        pool_manifest(spec__engine={"args": ["--disable-log-stats", "--port=9000"]}),
        "spec",
        "engine.args may not set --port=9000; use spec.model and spec.drain instead",
    ),
    _rule(
        "pool: a managed flag as a word",
        pool_manifest(spec__engine={"args": ["--max-model-len", "4096"]}),
        "spec",
        "engine.args may not set --max-model-len; use spec.model and spec.drain instead",
    ),
    _rule(
        "pool: two slices for one replica",
        pool_manifest(spec__accelerator={"name": "nvidia-h100-80gb-mig-3g-40gb", "count": 2}),
        "spec.accelerator",
        "accelerator.count 2 of nvidia-h100-80gb-mig-3g-40gb: MIG slices cannot work together; "
        "set count 1, or use whole GPUs",
    ),
    _rule(
        "pool: a device class for the device plugin",
        pool_manifest(spec__accelerator__deviceClassName="gpu.nvidia.com"),
        "spec.accelerator",
        "accelerator.deviceClassName gpu.nvidia.com has no effect with accelerator.allocation DevicePlugin; "
        "set allocation DRA or remove deviceClassName",
    ),
    _rule(
        "pool: GPUs that nodes cannot share evenly",
        pool_manifest(spec__accelerator={"name": "nvidia-h100-80gb", "count": 8, "nodes": 3}),
        "spec.accelerator",
        "accelerator.count 8 is no multiple of accelerator.nodes 3; change one of them: every node of a replica has "
        "as many GPUs",
    ),
    _rule(
        "pool: a topology for a single node",
        pool_manifest(spec__accelerator__exclusiveTopology="topology.kubernetes.io/zone"),
        "spec.accelerator",
        "accelerator.exclusiveTopology topology.kubernetes.io/zone has no effect with accelerator.nodes 1; "
        "remove it, or raise nodes",
    ),
    _rule(
        "pool: Karpenter without its part",
        pool_manifest(spec__nodes={"mode": "Karpenter"}),
        "spec.nodes",
        "nodes.mode Karpenter needs nodes.karpenter; set at least nodes.karpenter.nodeClassRef",
    ),
    _rule(
        "pool: Karpenter's part in another mode",
        pool_manifest(spec__nodes=karpenter(mode="Static")),
        "spec.nodes",
        "nodes.karpenter has no effect in nodes.mode Static; set nodes.mode Karpenter or remove nodes.karpenter",
    ),
    _rule(
        "pool: GKE without its part",
        pool_manifest(spec__nodes={"mode": "GKEComputeClass"}),
        "spec.nodes",
        "nodes.mode GKEComputeClass needs nodes.gkeComputeClass; set at least one of nodes.gkeComputeClass.priorities",
    ),
    _rule(
        "pool: GKE's part in another mode",
        pool_manifest(spec__nodes={"gkeComputeClass": {"priorities": [{"spot": True}]}}),
        "spec.nodes",
        "nodes.gkeComputeClass has no effect in nodes.mode Static; "
        "set nodes.mode GKEComputeClass or remove nodes.gkeComputeClass",
    ),
    _rule(
        "pool: a requirement without values",
        pool_manifest(spec__nodes=karpenter(requirements=[{"key": "topology.kubernetes.io/zone"}])),
        "spec.nodes.karpenter.requirements[0]",
        "nodes.karpenter.requirements[].operator In of topology.kubernetes.io/zone does not fit its values; "
        "Exists and DoesNotExist take none, the others need at least one",
    ),
    _rule(
        "pool: a schedule without a duration",
        pool_manifest(spec__nodes=karpenter(disruption={"budgets": [{"nodes": "0", "schedule": "@daily"}]})),
        "spec.nodes.karpenter.disruption.budgets[0]",
        "nodes.karpenter.disruption.budgets[].schedule and durationMinutes only work together; set both or remove both",
    ),
    _rule(
        "pool: a machine type and its family",
        pool_manifest(spec__nodes=compute_class({"machineType": "g2-standard-12", "machineFamily": "g2"})),
        "spec.nodes.gkeComputeClass.priorities[0]",
        "nodes.gkeComputeClass.priorities[].machineType g2-standard-12 says its machineFamily g2 already; "
        "remove one of them",
    ),
    _rule(
        "pool: spot with flex start",
        pool_manifest(spec__nodes=compute_class({"spot": True, "flexStart": True})),
        "spec.nodes.gkeComputeClass.priorities[0]",
        "nodes.gkeComputeClass.priorities[].spot and flexStart exclude each other; "
        "make two priorities of it, in the order to try them",
    ),
    _rule(
        "policy: a class on an unknown tier",
        policy_manifest(spec__classes=[{"name": "chat", "tier": "low"}, {"name": "math", "tier": "medium"}]),
        "spec",
        "classes[].tier medium is not the name of one of tiers[]; correct it or add the tier",
    ),
    _rule(
        "policy: a prompt length on an unknown tier",
        policy_manifest(spec__context=[{"minPromptTokens": 8000, "tier": "long"}]),
        "spec",
        "context[].tier long is not the name of one of tiers[]; correct it or add the tier",
    ),
    _rule(
        "policy: an unknown default tier",
        policy_manifest(spec__classifier={"defaultTier": "medium"}),
        "spec",
        "classifier.defaultTier medium is not the name of one of tiers[]; correct it or add the tier",
    ),
    _rule(
        "policy: two tiers on one pool",
        policy_manifest(spec__tiers=[tier("low", pool="small"), tier("high", pool="small")]),
        "spec",
        "tiers[].poolRef.name small is used twice; "
        "give every tier a pool of its own so that its demand can be told apart",
    ),
    _rule(
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
    _rule(
        "policy: a pool that reads for itself",
        policy_manifest(spec__tiers=[tier("low") | {"prefillPoolRef": {"name": "low"}}]),
        "spec",
        "tiers[].prefillPoolRef.name low is a pool of another tier or the tier's own poolRef; give every tier a "
        "pool of its own to read its prompts",
    ),
    _rule(
        "policy: Apply without a GPU budget",
        policy_manifest(spec__rebalance={"mode": "Apply"}),
        "spec.rebalance",
        "rebalance.mode Apply needs rebalance.gpuBudget; add one entry for every accelerator of the tiers' pools",
    ),
    _rule(
        "policy: a window shorter than the interval",
        policy_manifest(spec__rebalance={"windowSeconds": 10}),
        "spec.rebalance",
        "rebalance.windowSeconds 10 is below intervalSeconds 15; raise windowSeconds or lower intervalSeconds",
    ),
    _rule(
        "policy: a choice among answers without a verifier",
        policy_manifest(spec__tiers=[tier("low") | {"strategy": {"type": "BestOfN"}}]),
        "spec.tiers[0].strategy",
        "strategy.type BestOfN needs strategy.verifierPoolRef; name the pool that scores answers",
    ),
    _rule(
        "policy: a vote of one sample",
        policy_manifest(spec__tiers=[tier("low") | {"strategy": {"type": "SelfConsistency", "samples": 1}}]),
        "spec.tiers[0].strategy",
        "strategy.samples 1 is too few for type SelfConsistency; use 2 or more",
    ),
    _rule(
        "policy: thoughts forced on a tier that does not think",
        policy_manifest(spec__tiers=[tier("low") | {"budget": {"thinkingTokens": 0}, "strategy": _FORCING}]),
        "spec.tiers[0]",
        "strategy.type BudgetForcing needs budget.thinkingTokens of at least strategy.forcing.minThinkingTokens 512, "
        "and it is 0; raise the budget, lower minThinkingTokens or choose another type",
    ),
    _rule(
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
    _rule(
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
    _rule(
        "policy: an outcome of an unknown tier",
        policy_manifest(spec__outcomes=[_OUTCOME | {"tier": "huge"}]),
        "spec",
        "outcomes[].tier huge is not the name of one of tiers[]; correct it or remove the entry",
    ),
    _rule(
        "policy: an outcome of a strategy that nothing has",
        policy_manifest(spec__outcomes=[_OUTCOME | {"strategy": "Cascade"}]),
        "spec",
        "outcomes[].strategy Cascade is neither that of the tier nor of a class line that names the tier; "
        "remove the entry or give the tier the strategy",
    ),
    _rule(
        "policy: an outcome of nothing",
        policy_manifest(spec__outcomes=[_OUTCOME | {"right": 0}]),
        "spec.outcomes[0]",
        "outcomes[] of class math on tier low has neither right nor wrong; remove it or give its counts",
    ),
    _rule(
        "policy: a tenant's unknown tier",
        policy_manifest(spec__tenants=[{"name": "a"}, {"name": "b", "maxTier": "huge"}]),
        "spec",
        "tenants[].maxTier huge is not the name of one of tiers[]; correct it or leave it out",
    ),
    _rule(
        "policy: a tenant that nothing can name",
        policy_manifest(spec__tenants=[{"name": "default"}, {"name": "a", "apiKeys": _keys("a")}, {"name": "b"}]),
        "spec",
        "tenants[] b has no apiKeys while others have, so that no request can name it; give it apiKeys or remove it",
    ),
    _rule(
        "policy: two tenants with the keys of one Secret",
        policy_manifest(spec__tenants=[{"name": name, "apiKeys": _keys("same")} for name in ("a", "b")]),
        "spec",
        "tenants[].apiKeys.secretRef.name same is used twice, so that its keys would name two tenants; give every "
        "tenant a Secret of its own",
    ),
    _rule(
        "policy: unsolvable without outcomes",
        policy_manifest(spec__planning={"unsolvable": "Cap"}),
        "spec",
        "planning.unsolvable Cap needs outcomes, which say what is hardly ever answered; add them "
        "(`trimtab classifier fit`) or set it to Off",
    ),
)

BAD_POOLS = (
    BadInput(
        "pool: scaling bounds the wrong way round",
        pool_manifest(spec__replicas=3, spec__scaling={"minReplicas": 3, "maxReplicas": 2}),
        ("spec.scaling: scaling.minReplicas 3 is above maxReplicas 2; lower minReplicas or raise maxReplicas",),
        "spec.scaling: Invalid value: scaling.minReplicas 3 is above maxReplicas 2; "
        "lower minReplicas or raise maxReplicas",
    ),
    _pool(
        "a misspelt field",
        f"spec.model.contextLength: {_NO_SUCH_FIELD}",
        'unknown field "spec.model.contextLength"',
        spec__model__contextLength=4096,
    ),
    _pool("no model", "spec.model: required; set it", "spec.model: Required value", spec__model=REMOVED),
    _pool(
        "no name of the model",
        "spec.model.name: required; set it",
        "spec.model.name: Required value",
        spec__model__name=REMOVED,
    ),
    _pool("no spec", "spec: required; set it", "spec: Required value", spec=REMOVED),
    _pool(
        "a null for a required field", "spec.model: required; set it", "spec.model: Required value", spec__model=None
    ),
    _pool(
        "a list for a mapping",
        "spec.model: [] is refused; give a mapping of fields",
        'spec.model in body must be of type object: "array"',
        spec__model=[],
    ),
    _pool(
        "an empty model",
        "spec.model.name: '' is refused; use at least 1 character",
        "spec.model.name in body should be at least 1 chars long",
        spec__model__name="",
    ),
    _pool(
        "a model with a space",
        r"spec.model.name: 'two words' is refused; it must match ^(/[^\s]+|[A-Za-z0-9][\w.-]*(/[\w.-]+)?)$",
        'spec.model.name: Invalid value: "two words": spec.model.name in body should match',
        spec__model__name="two words",
    ),
    _pool(
        "an unknown preset",
        "spec.recipe.preset: 'fast' is refused; "
        "use 'auto', 'balanced', 'interactive', 'code', 'agentic', 'search', 'reasoning', 'long-context', "
        "'throughput', 'memory-saver', 'edge' or 'high-stakes'",
        'spec.recipe.preset: Unsupported value: "fast"',
        spec__recipe={"preset": "fast"},
    ),
    _pool(
        "an unknown method of speculation",
        "spec.recipe.speculation.method: 'medusa' is refused; "
        "use 'none', 'ngram', 'suffix', 'mtp', 'eagle3', 'dflash', 'dspark' or 'draft_model'",
        'spec.recipe.speculation.method: Unsupported value: "medusa"',
        spec__recipe={"speculation": {"method": "medusa"}},
    ),
    _pool(
        "an unknown cache type",
        "spec.recipe.kvCache.dtype: 'int4' is refused; use 'auto', 'fp8' or 'fp8_e5m2'",
        'spec.recipe.kvCache.dtype: Unsupported value: "int4"',
        spec__recipe={"kvCache": {"dtype": "int4"}},
    ),
    _pool(
        "negative replicas",
        "spec.replicas: -1 is refused; use at least 0",
        "spec.replicas in body should be greater than or equal to 0",
        spec__replicas=-1,
    ),
    _pool(
        "a digit in quotes for a number",
        "spec.replicas: '2' is refused; give a whole number",
        'spec.replicas in body must be of type integer: "string"',
        spec__replicas="2",
    ),
    _pool(
        "true for a number",
        "spec.replicas: true is refused; give a whole number",
        'spec.replicas in body must be of type integer: "boolean"',
        spec__replicas=True,
    ),
    _pool(
        "half a replica",
        "spec.replicas: 1.5 is refused; give a whole number",
        'spec.replicas in body must be of type integer: "number"',
        spec__replicas=1.5,
    ),
    _pool(
        "too many replicas",
        "spec.replicas: 1001 is refused; use at most 1000",
        "spec.replicas in body should be less than or equal to 1000",
        spec__replicas=1001,
    ),
    _pool(
        "no GPU",
        "spec.accelerator.count: 0 is refused; use at least 1",
        "spec.accelerator.count in body should be greater than or equal to 1",
        spec__accelerator__count=0,
    ),
    _pool(
        "an accelerator that is not in the catalogue",
        f"spec.accelerator.name: 'nvidia-h100' is not in the catalogue; use one of {_KNOWN}",
        None,
        spec__accelerator__name="nvidia-h100",
    ),
    _pool(
        "a slice that the GPU does not have",
        "spec.accelerator.name: 'nvidia-rtx-pro-6000-96gb-mig-3g-40gb' is not in the catalogue; "
        "use one of nvidia-rtx-pro-6000-96gb-mig-1g-24gb, nvidia-rtx-pro-6000-96gb-mig-2g-48gb",
        None,
        spec__accelerator__name="nvidia-rtx-pro-6000-96gb-mig-3g-40gb",
    ),
    _pool(
        "an accelerator that is no label",
        "spec.accelerator.name: 'NVIDIA H100' is refused; "
        "use lower-case letters and digits, with dashes only between them",
        'spec.accelerator.name: Invalid value: "NVIDIA H100"',
        spec__accelerator__name="NVIDIA H100",
    ),
    _pool(
        "root",
        "spec.engine.pod.runAsUser: 0 is refused; use at least 1",
        "spec.engine.pod.runAsUser in body should be greater than or equal to 1",
        spec__engine={"pod": {"runAsUser": 0}},
    ),
    _pool(
        "a number for a quantity",
        "spec.engine.pod.requests.cpu: 1 is refused; give text, numbers in quotes",
        'spec.engine.pod.requests.cpu in body must be of type string: "integer"',
        spec__engine={"pod": {"requests": {"cpu": 1}}},
    ),
    _pool(
        "a version that is none",
        "spec.engine.version: 'latest' is refused; use three numbers such as 0.32.0",
        'spec.engine.version: Invalid value: "latest"',
        spec__engine={"version": "latest"},
    ),
    _pool(
        "an empty command",
        "spec.engine.command: [] is refused; give at least 1 entry",
        "spec.engine.command in body should have at least 1 items",
        spec__engine={"command": []},
    ),
    _pool(
        "a variable that no shell takes",
        "spec.engine.env[0].name: '1X' is refused; it must match ^[A-Za-z_][A-Za-z0-9_]*$",
        'spec.engine.env[0].name: Invalid value: "1X"',
        spec__engine={"env": [{"name": "1X"}]},
    ),
    _pool(
        "no time to drain",
        "spec.drain.deadlineSeconds: 0 is refused; use at least 1",
        "spec.drain.deadlineSeconds in body should be greater than or equal to 1",
        spec__drain={"deadlineSeconds": 0},
    ),
)

BAD_POLICIES = (
    _policy("no tiers", "spec.tiers: required; set it", "spec.tiers: Required value", spec__tiers=REMOVED),
    _policy(
        "an empty list of tiers",
        "spec.tiers: [] is refused; give at least 1 entry",
        "spec.tiers in body should have at least 1 items",
        spec__tiers=[],
    ),
    _policy(
        "a word for a list",
        "spec.tiers: 'low' is refused; give a list",
        'spec.tiers in body must be of type array: "string"',
        spec__tiers="low",
    ),
    _policy(
        "a tier without a pool",
        "spec.tiers[0].poolRef: required; set it",
        "spec.tiers[0].poolRef: Required value",
        spec__tiers=[{"name": "low"}],
    ),
    _policy(
        "two tiers of one name",
        "spec: tiers[1].name 'low' is there twice; remove one of the entries or rename it",
        'spec.tiers[1]: Duplicate value: {"name":"low"}',
        spec__tiers=[tier("low"), tier("low", pool="other")],
    ),
    _policy(
        "two lines for one class",
        "spec: classes[1].name 'math' is there twice; remove one of the entries or rename it",
        'spec.classes[1]: Duplicate value: {"name":"math"}',
        spec__classes=[{"name": "math", "tier": "low"}, {"name": "math", "tier": "high"}],
    ),
    _policy(
        "two budgets for one accelerator",
        "spec.rebalance: gpuBudget[1].accelerator 'nvidia-l4-24gb' is there twice; "
        "remove one of the entries or rename it",
        'spec.rebalance.gpuBudget[1]: Duplicate value: {"accelerator":"nvidia-l4-24gb"}',
        spec__rebalance={"gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": n} for n in (4, 8)]},
    ),
    _policy(
        "one model twice",
        "spec: models[1] 'auto' is there twice; remove one of the entries or rename it",
        'spec.models[1]: Duplicate value: "auto"',
        spec__models=["auto", "auto"],
    ),
    _policy(
        "a tier's name that is no label",
        "spec.tiers[0].name: 'Low Tier' is refused; use lower-case letters and digits, with dashes only between them",
        'spec.tiers[0].name: Invalid value: "Low Tier"',
        spec__tiers=[tier("Low Tier", pool="low")],
    ),
    _policy(
        "negative thinking",
        "spec.tiers[0].budget.thinkingTokens: -1 is refused; use at least 0",
        "spec.tiers[0].budget.thinkingTokens in body should be greater than or equal to 0",
        spec__tiers=[tier("low", thinking_tokens=-1)],
    ),
    _policy(
        "quality above 100",
        "spec.quality: 101 is refused; use at most 100",
        "spec.quality in body should be less than or equal to 100",
        spec__quality=101,
    ),
    _policy(
        "an unknown mode",
        "spec.rebalance.mode: 'On' is refused; use 'Off', 'DryRun' or 'Apply'",
        'spec.rebalance.mode: Unsupported value: "On"',
        spec__rebalance={"mode": "On"},
    ),
    _policy(
        "Off without quotes",
        "spec.rebalance.mode: false is refused; use 'Off', 'DryRun' or 'Apply' in quotes: "
        "YAML reads a bare On, Off, Yes or No as true or false",
        'spec.rebalance.mode in body must be of type string: "boolean"',
        spec__rebalance={"mode": False},
    ),
    _policy(
        "an address without a scheme",
        "spec.rebalance.prometheus.url: 'prometheus:9090' is refused; use a URL such as http://host:9090",
        'spec.rebalance.prometheus.url: Invalid value: "prometheus:9090"',
        spec__rebalance={"prometheus": {"url": "prometheus:9090"}},
    ),
    _policy(
        "a budget for an accelerator that is not in the catalogue",
        f"spec.rebalance.gpuBudget[0].accelerator: 'h100' is not in the catalogue; use one of {_KNOWN}",
        None,
        spec__rebalance={"gpuBudget": [{"accelerator": "h100", "gpus": 8}]},
    ),
    _policy(
        "no time to decide",
        "spec.classifier.deadlineMilliseconds: 0 is refused; use at least 1",
        "spec.classifier.deadlineMilliseconds in body should be greater than or equal to 1",
        spec__classifier={"deadlineMilliseconds": 0},
    ),
    _policy(
        "a tier worth nothing",
        "spec.tiers[0].weight: 0 is refused; use at least 1",
        "spec.tiers[0].weight in body should be greater than or equal to 1",
        spec__tiers=[tier("low") | {"weight": 0}],
    ),
    _policy(
        "a tenant twice",
        "spec: tenants[1].name 'a' is there twice; remove one of the entries or rename it",
        'spec.tenants[1]: Duplicate value: {"name":"a"}',
        spec__tenants=[{"name": "a"}, {"name": "a"}],
    ),
    _policy(
        "the name of no Secret",
        "spec.tenants[0].apiKeys.secretRef.name: 'Keys' is refused; use lower-case letters and digits, "
        "with dashes and dots only between them",
        'spec.tenants[0].apiKeys.secretRef.name: Invalid value: "Keys"',
        spec__tenants=[{"name": "a", "apiKeys": _keys("Keys")}],
    ),
    _policy(
        "a tenant's ceiling of nothing",
        "spec.tenants[0].ceiling.tokens: 0 is refused; use at least 1",
        "spec.tenants[0].ceiling.tokens in body should be greater than or equal to 1",
        spec__tenants=[{"name": "a", "ceiling": {"tokens": 0}}],
    ),
    BadInput(
        "policy: two faults, both told",
        policy_manifest(spec__quality=101, spec__manual={"maxBudget": 200}),
        ("spec.quality: 101 is refused; use at most 100", "spec.manual.maxBudget: 200 is refused; use at most 100"),
        "spec.manual.maxBudget in body should be less than or equal to 100",
    ),
)

BAD_INPUTS = (*BROKEN_RULES, *BAD_POOLS, *BAD_POLICIES)
