"""What vLLM would refuse, ignore or die of, found before a pod starts.

Every check takes the pool, its choices and the GPU and yields sentences that name the field, the value and the fix.
The rules are those of vLLM 0.32 and 0.33: argument and configuration checks, and what only fails while weights load or
is ignored. vLLM's configuration says nothing of the latter, so these sentences name their source.
"""

from collections.abc import Callable, Iterator

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.capacity import Replica
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Quantization, SpeculationMethod
from trimtab_operator.core import modelvolume
from trimtab_operator.core.choicetypes import Choices, SpeculationChoice
from trimtab_operator.core.engineargs import refused_args, unknown_args
from trimtab_operator.core.facts import (
    capability,
    checkpoint_bits,
    checkpoint_type,
    engine_defaults,
    lacks_package,
    latent_attention,
    runs_in_float32,
)
from trimtab_operator.core.names import OWN_VOLUMES
from trimtab_operator.core.overridechecks import OVERRIDE_CHECKS
from trimtab_operator.core.reasoningparsers import unknown_parser
from trimtab_operator.core.replica import replica_of

Check = Callable[[InferencePool, Choices, Accelerator], Iterator[str]]
KNOWN_VERSIONS = ("0.32", "0.33")
_GIB = 2**30
_MXFP4_CAPABILITY = (8, 0)
_MXFP4_SOURCE = "vLLM, model_executor/layers/quantization/mxfp4.py"
_DRAFT_IN_STAGES = (SpeculationMethod.EAGLE3, SpeculationMethod.DFLASH, SpeculationMethod.DSPARK)


def version(pool: InferencePool, _chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """Flags differ between versions; those of an unknown one are a guess."""
    asked = pool.spec.engine.version
    if asked.rsplit(".", 1)[0] not in KNOWN_VERSIONS:
        known = " and ".join(f"{v}.x" for v in KNOWN_VERSIONS)
        yield f"engine.version {asked} is not known; flags can be resolved for {known}: set engine.image and version"


def parallelism(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """vLLM shards whole heads and whole layers."""
    shape, tensor = pool.spec.model.shape, chosen.parallel.tensor
    if shape is None:
        return
    fix = "set recipe.parallelism so that tensor times pipeline is accelerator.count"
    if shape.attention_heads % tensor:
        yield (
            f"recipe.parallelism.tensor {tensor} does not divide model.shape.attentionHeads {shape.attention_heads}; "
            f"{fix} and tensor divides it"
        )
    elif shape.kv_heads % tensor and tensor % shape.kv_heads:
        yield (
            f"recipe.parallelism.tensor {tensor} and model.shape.kvHeads {shape.kv_heads} do not divide each other; "
            f"{fix} and one divides the other (source: vLLM, model_executor/layers/linear.py, QKVParallelLinear)"
        )
    if chosen.parallel.pipeline > shape.layers:
        yield (
            f"recipe.parallelism.pipeline {chosen.parallel.pipeline} is above model.shape.layers {shape.layers}; "
            "a stage needs at least one layer: lower it (source: vLLM, distributed/utils.py, get_pp_indices)"
        )


def quantization(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """Quantization that the GPU cannot read, that the checkpoint already has, or that covers nothing of the model."""
    model, asked = pool.spec.model, chosen.quantization
    native_mxfp4 = "mxfp4" in checkpoint_type(model)
    if capability(gpu) < _MXFP4_CAPABILITY and (native_mxfp4 or asked is Quantization.MXFP4):
        yield (
            f"accelerator.name {gpu.name} has compute capability {gpu.compute_capability} and mxfp4 weights need 8.0; "
            f"use a newer accelerator or a model of another type (source: {_MXFP4_SOURCE}, get_min_capability)"
        )
    elif asked is Quantization.CHECKPOINT or (native_mxfp4 and asked is Quantization.MXFP4):
        return
    elif checkpoint_bits(model):
        yield (
            f"recipe.quantization {asked}: model.name {model.name} is a quantized checkpoint already, and another type "
            "is refused or ignored; set recipe.quantization to checkpoint "
            "(source: vLLM, config/model.py, _verify_quantization)"
        )
    elif asked is Quantization.MXFP4:
        yield from _mxfp4(pool)


def _mxfp4(pool: InferencePool) -> Iterator[str]:
    shape = pool.spec.model.shape
    if shape is None:
        yield (
            "recipe.quantization mxfp4 covers MoE experts only and model.shape does not say whether there are any; "
            "set model.shape, or set recipe.quantization to fp8 or checkpoint "
            f"(source: {_MXFP4_SOURCE})"
        )
    elif shape.experts == 0:
        yield (
            "recipe.quantization mxfp4 has no effect on a dense model (model.shape.experts 0): vLLM quantizes MoE "
            f"experts only and says nothing; set recipe.quantization to fp8 or int8 (source: {_MXFP4_SOURCE})"
        )


def kv_cache(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """vLLM refuses fp8_e5m2 entries beside fp8 weights and in a cache of latents."""
    model = pool.spec.model
    fp8_weights = chosen.quantization is Quantization.FP8 or "fp8" in checkpoint_type(model)
    if chosen.kv_dtype == "fp8_e5m2" and latent_attention(model):
        yield (
            "recipe.kvCache.dtype fp8_e5m2 is read by no kernel for latent attention (model.shape.latentAttention "
            "true); set it to fp8 or auto (source: vLLM, v1/attention/backends/mla)"
        )
    elif chosen.kv_dtype == "fp8_e5m2" and fp8_weights:
        yield (
            "recipe.kvCache.dtype fp8_e5m2 is refused by vLLM beside fp8 weights; "
            "set recipe.kvCache.dtype to fp8 or recipe.quantization to another type "
            "(source: vLLM, model_executor/layers/attention/attention.py, _init_kv_cache_quant)"
        )


def speculation(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """Drafts across pipeline stages, packages that the image lacks, and steps too small for a single guess."""
    asked = chosen.speculation
    if asked is None:
        return
    if asked.method in _DRAFT_IN_STAGES and chosen.parallel.pipeline > 1:
        yield (
            f"recipe.speculation.method {asked.method} needs hidden states of all layers, which most models' pipeline "
            f"stages do not pass on; set recipe.parallelism.pipeline {chosen.parallel.pipeline} to 1 or use another "
            "method (source: vLLM, v1/worker/gpu/spec_decode/eagle/eagle3_utils.py)"
        )
    if asked.method is SpeculationMethod.SUFFIX and lacks_package(pool.spec.engine.image):
        yield (
            "recipe.speculation.method suffix needs the Python package arctic-inference, which engine.image "
            f"{pool.spec.engine.image} does not have; use an image that has it or the method ngram"
        )
    yield from _mtp(pool, asked)
    yield from _draft(pool, chosen.parallel.tensor)
    tokens = chosen.max_batched_tokens or engine_defaults(gpu)[1]
    if tokens <= asked.slots:
        yield (
            f"recipe.batching.maxBatchedTokens {tokens} is too small for recipe.speculation.method {asked.method} with "
            f"{asked.tokens} tokens; raise it to at least {asked.slots + 1} or lower speculation.tokens"
        )


def _draft(pool: InferencePool, tensor: int) -> Iterator[str]:
    """A draft is spread over as many GPUs as its target."""
    asked = pool.spec.recipe.speculation
    heads = asked.draft_attention_heads if asked else None
    if heads is not None and heads % tensor:
        yield (
            f"recipe.speculation.draftAttentionHeads {heads} is no multiple of recipe.parallelism.tensor {tensor}; "
            "set recipe.parallelism so that tensor divides it, or use another draft "
            "(source: vLLM, config/speculative.py, verify_with_parallel_config)"
        )


def _mtp(pool: InferencePool, asked: SpeculationChoice) -> Iterator[str]:
    """MTP runs layers of the checkpoint; several are run in turn, so their number divides the tokens."""
    layers = pool.spec.model.shape.mtp_layers if pool.spec.model.shape else None
    if asked.method is not SpeculationMethod.MTP or layers is None:
        return
    if layers == 0:
        yield (
            "recipe.speculation.method mtp needs layers for it in the checkpoint and model.shape.mtpLayers is 0; use "
            "another method, or correct model.shape (source: vLLM, config/speculative.py, hf_config_override)"
        )
    elif asked.tokens > layers and asked.tokens % layers:
        yield (
            f"recipe.speculation.tokens {asked.tokens} is no multiple of model.shape.mtpLayers {layers}; set it to "
            f"{asked.tokens - asked.tokens % layers} (source: vLLM, config/speculative.py, n_predict)"
        )


def dtype(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """Without bfloat16 vLLM takes float16, or float32 where that overflows; float32 excludes quantization."""
    model = pool.spec.model
    if not runs_in_float32(model, gpu):
        return
    quantized = checkpoint_type(model) or chosen.quantization
    if quantized != Quantization.CHECKPOINT:
        yield (
            f"recipe.quantization {quantized}: accelerator.name {gpu.name} (compute capability "
            f"{gpu.compute_capability}) has no bfloat16, model.shape.float16Overflows leaves float32, and quantized "
            "weights are not multiplied in it; use an accelerator from compute capability 8.0 on"
            " (source: vLLM, config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS)"
        )


def context(pool: InferencePool, _chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """A context above the model's own needs rope scaling, or vLLM's word that the user knows better."""
    model, engine = pool.spec.model, pool.spec.engine
    longest = model.shape.max_context_tokens if model.shape else None
    scaled = any(arg.replace("_", "-").startswith("--hf-overrides") for arg in engine.args)
    allowed = any(env.name == "VLLM_ALLOW_LONG_MAX_MODEL_LEN" and env.value == "1" for env in engine.env)
    if model.context_tokens and longest and model.context_tokens > longest and not (scaled or allowed):
        yield (
            f"model.contextTokens {model.context_tokens} is above model.shape.maxContextTokens {longest}; lower it, or "
            "scale the positions by engine.args --hf-overrides "
            "(source: vLLM, config/model.py, _get_and_verify_max_len)"
        )


def reasoning(pool: InferencePool, _chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """A parser that vLLM does not have."""
    asked = pool.spec.model.reasoning_parser
    sentence = unknown_parser(asked, pool.spec.engine.version) if asked else None
    if sentence:
        yield sentence


def batching(_pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """Every running sequence needs a token of a step."""
    sequences, tokens = chosen.max_sequences, chosen.max_batched_tokens
    if sequences and tokens and tokens < sequences:
        yield (
            f"recipe.batching.maxBatchedTokens {tokens} is below maxSequences {sequences}; "
            f"raise it to at least {sequences}"
        )


def memory(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """Weights and the cache of one full context must fit."""
    replica = replica_of(pool, chosen, gpu)
    if replica is None:
        return
    count, fix = pool.spec.accelerator.count, "raise accelerator.count or use a larger accelerator"
    if replica.kv_capacity_bytes <= 0:
        weights = replica.shape.weight_bytes
        yield (
            f"model.shape.parametersMillions {replica.shape.parameters // 10**6} takes {weights / _GIB:.1f} GiB at "
            f"{replica.shape.weight_bits} bits, and {count} x {gpu.name} leave "
            f"{(replica.kv_capacity_bytes + weights) / _GIB:.1f} GiB for weights; {fix}{_smaller(pool, chosen)} "
            "(source: vLLM docs, configuration/conserving_memory)"
        )
        return
    yield from _context(pool, replica, fix)


def _context(pool: InferencePool, replica: Replica, fix: str) -> Iterator[str]:
    asked = pool.spec.model.context_tokens
    if asked is None or replica.kv_capacity_bytes >= replica.shape.kv_bytes(asked):
        return
    fp8 = ", set recipe.kvCache.dtype to fp8" if replica.shape.kv_bits == 16 else ""
    yield (
        f"model.contextTokens {asked} does not fit: beside the weights the cache holds {replica.kv_capacity_tokens} "
        f"tokens, less than one sequence; lower it{fp8} or {fix} "
        "(source: vLLM, v1/core/kv_cache_utils.py, check_enough_kv_cache_memory)"
    )


def _smaller(pool: InferencePool, chosen: Choices) -> str:
    quantizable = chosen.quantization is Quantization.CHECKPOINT and checkpoint_bits(pool.spec.model) is None
    return ", or set recipe.quantization to fp8" if quantizable else ""


def arguments(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """Arguments that would override the recipe, or that vLLM does not have."""
    engine = pool.spec.engine
    yield from refused_args(engine.args, _set_fields(pool, chosen))
    yield from unknown_args(engine.args, engine.version)


def _set_fields(pool: InferencePool, chosen: Choices) -> list[str]:
    """The fields of `OWNED_WHERE_SET` that this recipe sets: before these fields came, engine.args were the place."""
    recipe, asked, parallel = pool.spec.recipe, chosen.speculation, chosen.parallel
    batching, cache = recipe.batching, recipe.kv_cache
    fields = {
        "accelerator.nodes": pool.spec.accelerator.nodes > 1,
        "recipe.speculation.method dflash": asked is not None and asked.method is SpeculationMethod.DFLASH,
        "recipe.parallelism": parallel.expert or parallel.data > 1 or parallel.decode_context > 1,
        "recipe.batching": not chosen.chunked_prefill or (batching and batching.long_prefill_threshold),
        "recipe.kvCache": cache is not None and cache.offload_gib is not None,
        "recipe.disaggregation": recipe.disaggregation is not None,
        "recipe.scheduling": recipe.scheduling != "fcfs",
        "recipe.sleepMode": recipe.sleep_mode,
        "recipe.lora": recipe.lora is not None,
    }
    return [field for field, is_set in fields.items() if is_set]


def pod(pool: InferencePool, _chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """Overrides of the pod that meet what the pool itself puts there."""
    overrides = pool.spec.engine.pod
    for field, resources in (("requests", overrides.requests), ("limits", overrides.limits)):
        if gpu.resource in resources:
            asked = resources[gpu.resource]
            yield f"engine.pod.{field} sets {gpu.resource} {asked}; remove it and use accelerator.count"
    for i, volume in enumerate(overrides.volumes):
        if volume.get("name") in (*OWN_VOLUMES, modelvolume.VOLUME):
            yield f"engine.pod.volumes[{i}].name {volume['name']} is the operator's own; choose another name"
    cache = pool.spec.model.cache
    for i, mount in enumerate(overrides.volume_mounts):
        if cache is not None and mount.get("mountPath") == cache.mount_path:
            yield (
                f"engine.pod.volumeMounts[{i}].mountPath {cache.mount_path} is model.cache.mountPath too; "
                "change one of them"
            )


CHECKS: tuple[Check, ...] = (
    version,
    parallelism,
    quantization,
    kv_cache,
    batching,
    speculation,
    dtype,
    context,
    reasoning,
    memory,
    arguments,
    pod,
    *OVERRIDE_CHECKS,
)
