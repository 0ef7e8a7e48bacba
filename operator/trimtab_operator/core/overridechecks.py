"""Checks of what only the user can ask for: context and expert parallelism, offload, sleep, chunks of prompts.

As in checks.py: sentences that name the field, the value and the fix, and the source where vLLM's configuration says
nothing.
"""

from collections.abc import Iterator

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Attention, Parallelism, SpeculationMethod
from trimtab_operator.core.choicetypes import Choices
from trimtab_operator.core.facts import (
    capability,
    context_of,
    engine_defaults,
    has_fp8_attention,
    latent_attention,
    linear_layers,
)

_FLASH_ATTENTION_CAPABILITY = (8, 0)
_NOT_SERVED = {
    Attention.LAZY: (
        "Lazy Attention with Elastic-Softmax (arXiv 2601.00919) is trained into a model, and no engine serves it; for "
        "long contexts use recipe.preset long-context"
    ),
    Attention.RING: (
        "no engine serves ring attention (vLLM gathers the cache instead); use recipe.parallelism.prefillContext for "
        "models with latent attention, or recipe.parallelism.tensor"
    ),
    Attention.BYTE_LATENT: (
        "no engine serves models of byte-latent patches; use a model with a tokenizer, and recipe.speculation to write "
        "several tokens a step"
    ),
}


def attention(pool: InferencePool, _chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """What papers have and no engine."""
    asked = pool.spec.recipe.attention
    if asked in _NOT_SERVED:
        yield f"recipe.attention {asked}: {_NOT_SERVED[asked]}; set it to standard (source: vLLM docs, features)"


def experts(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """Expert parallelism needs experts, and data parallelism is for them alone."""
    parallel, shape = chosen.parallel, pool.spec.model.shape
    if parallel.expert and shape is not None and shape.experts == 0:
        yield (
            "recipe.parallelism.expert is set and model.shape.experts is 0; remove it "
            "(source: vLLM, config/model.py, _verify_with_expert_parallelism)"
        )
    if parallel.data > 1 and not parallel.expert:
        yield (
            f"recipe.parallelism.data {parallel.data} without recipe.parallelism.expert holds the whole model "
            f"{parallel.data} times; raise replicas instead, which are routed to one by one, or set expert to true "
            "(source: vLLM docs, serving/data_parallel_deployment)"
        )


def nodes(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """A rank of data parallelism has whole nodes, or a node has whole ranks."""
    gpus, parallel = pool.spec.accelerator, chosen.parallel
    if gpus.nodes == 1:
        return
    if pool.spec.recipe.disaggregation:
        yield (
            f"recipe.disaggregation beside accelerator.nodes {gpus.nodes} is not served: caches are fetched by one "
            "address and without pipeline stages; set accelerator.nodes to 1 "
            "(source: vLLM, distributed/kv_transfer/kv_connector/v1/nixl/base_worker.py)"
        )
    per_rank = gpus.count // parallel.data
    if gpus.gpus_per_node % per_rank and per_rank % gpus.gpus_per_node:
        yield (
            f"recipe.parallelism.data {parallel.data} makes ranks of {per_rank} GPUs, and accelerator.nodes "
            f"{gpus.nodes} have {gpus.gpus_per_node} GPUs each; change one so that a node holds whole ranks, or a rank "
            "whole nodes (source: vLLM, config/parallel.py, nnodes_within_dp)"
        )


def prefill_context(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """Prompts that several GPUs read together: latent attention only, and hardly anything beside it."""
    parallel, source = chosen.parallel, "(source: vLLM, v1/worker/gpu, prefill context parallelism)"
    if parallel.prefill_context == 1:
        return
    shape, field = pool.spec.model.shape, f"recipe.parallelism.prefillContext {parallel.prefill_context}"
    if shape is None or not shape.latent_attention:
        yield (
            f"{field} needs latent attention (MLA) and model.shape.latentAttention does not say so; set it to 1 and "
            f"use recipe.parallelism.tensor {source}"
        )
    if pool.spec.recipe.lora:
        yield f"{field} beside recipe.lora is not served; remove one of them {source}"
    if chosen.speculation and chosen.speculation.method not in (SpeculationMethod.MTP, SpeculationMethod.DSPARK):
        yield (
            f"{field} beside recipe.speculation.method {chosen.speculation.method} is not served; use mtp or dspark "
            f"{source}"
        )


def decode_context(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """A cache that is split by tokens: sizes that divide, and kernels that can merge parts."""
    parallel = chosen.parallel
    dcp = parallel.decode_context
    if dcp == 1:
        return
    sizes = _decode_sizes(parallel)
    if dcp not in sizes:
        yield f"recipe.parallelism.decodeContext {dcp} does not fit tensor {parallel.tensor}; use one of {sizes}"
    yield from _shared_heads(pool, parallel)
    shape = pool.spec.model.shape
    if shape is not None and shape.window_tokens and shape.full_attention_layers != shape.layers:
        yield (
            f"recipe.parallelism.decodeContext {dcp} does not split layers with a window (model.shape.windowTokens "
            f"{shape.window_tokens}); set it to 1 (source: vLLM, v1/core/kv_cache_utils.py)"
        )
    # FlashAttention reads no e5m2 on any GPU (vLLM, v1/attention/backends/flash_attn.py, supported_kv_cache_dtypes).
    slow_cache = chosen.kv_dtype == "fp8_e5m2" or (chosen.kv_dtype != "auto" and not has_fp8_attention(gpu))
    if capability(gpu) < _FLASH_ATTENTION_CAPABILITY or slow_cache:
        yield (
            f"recipe.parallelism.decodeContext {dcp} needs FlashAttention, which accelerator.name {gpu.name} (compute "
            f"capability {gpu.compute_capability}) lacks for kvCache.dtype {chosen.kv_dtype}; set it to 1 "
            "(source: vLLM, v1/attention/backends, can_return_lse_for_decode)"
        )


def _decode_sizes(parallel: Parallelism) -> list[int]:
    if parallel.prefill_context > 1:
        return sorted({1, parallel.prefill_context, parallel.tensor * parallel.prefill_context})
    return [size for size in range(1, parallel.tensor + 1) if parallel.tensor % size == 0]


def _shared_heads(pool: InferencePool, parallel: Parallelism) -> Iterator[str]:
    """Only copies of key heads can be split (vLLM, config/model.py, verify_with_parallel_config)."""
    shape = pool.spec.model.shape
    if shape is None or shape.latent_attention:
        return
    most, per_head = parallel.tensor // shape.kv_heads, shape.attention_heads // shape.kv_heads
    dcp = parallel.decode_context
    if parallel.tensor <= shape.kv_heads or dcp > most or per_head % dcp:
        yield (
            f"recipe.parallelism.decodeContext {dcp} splits copies of key heads, and tensor {parallel.tensor} makes "
            f"{max(most, 1)} of each of the {shape.kv_heads} (model.shape.kvHeads, {per_head} query heads each); set "
            "it to 1 or to a divisor of both"
        )


def chunks(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """Prompts that are not read in parts must fit into one step."""
    batching, context = pool.spec.recipe.batching, context_of(pool.spec.model)
    if batching is None:
        return
    threshold = batching.long_prefill_threshold
    if threshold and context and threshold > context:
        yield f"recipe.batching.longPrefillThreshold {threshold} is above the context of {context} tokens; lower it"
    if batching.chunked_prefill:
        return
    if linear_layers(pool.spec.model) and chosen.prefix_caching:
        yield (
            "recipe.batching.chunkedPrefill false beside prefixCaching is refused for models with linear layers "
            "(model.shape.fullAttentionLayers); set chunkedPrefill to true or prefixCaching to false"
        )
    if context is None:
        yield (
            "recipe.batching.chunkedPrefill false needs steps of a whole context, which is not known; set "
            "model.contextTokens (source: vLLM, config/scheduler.py)"
        )
    elif (chosen.max_batched_tokens or 0) < context:
        yield (
            f"recipe.batching.maxBatchedTokens {chosen.max_batched_tokens} is below the context of {context} tokens, "
            "which recipe.batching.chunkedPrefill false needs; raise it or set chunkedPrefill to true"
        )


def offload(pool: InferencePool, _chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """LMCache is a server of its own."""
    cache = pool.spec.recipe.kv_cache
    if cache is None or cache.offload_backend == "native":
        return
    if cache.offload_gib is None:
        yield (
            "recipe.kvCache.offloadBackend lmcache has no effect without offloadGib; remove it "
            "(source: vLLM, config/vllm.py, kv_offloading_size)"
        )
    else:
        yield (
            "recipe.kvCache.offloadBackend lmcache needs an LMCache server at localhost:5555 of the pod, which the "
            "operator does not run; set it to native (source: vLLM, config/vllm.py, LMCacheMPConnector)"
        )


def disaggregation(pool: InferencePool, chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """One connector moves the cache, out of memory that stays where it is, and it knows few ways to split it."""
    recipe, parallel = pool.spec.recipe, chosen.parallel
    if recipe.disaggregation is None:
        return
    field = f"recipe.disaggregation.role {recipe.disaggregation.role}"
    if recipe.kv_cache is not None and recipe.kv_cache.offload_gib is not None:
        yield (
            f"{field} beside recipe.kvCache.offloadGib {recipe.kv_cache.offload_gib}: vLLM lets the offload replace "
            "the transfer and says nothing; remove one of them "
            "(source: vLLM, config/vllm.py, _post_init_kv_transfer_config)"
        )
    dcp, ranks = parallel.decode_context, max(parallel.tensor, parallel.prefill_context)
    if dcp > 1 and (dcp != ranks or not latent_attention(pool.spec.model)):
        yield (
            f"{field} beside recipe.parallelism.decodeContext {dcp}; set decodeContext to 1, or with latent attention "
            f"to {ranks} (source: vLLM, config/vllm.py, kv_transfer_config)"
        )
    allocator = next((e.value for e in pool.spec.engine.env if e.name == "PYTORCH_CUDA_ALLOC_CONF"), "")
    pinned = recipe.sleep_mode or "--enable-cumem-allocator" in pool.spec.engine.args
    if "expandable_segments:True" in allocator and not pinned:
        yield (
            f"{field} beside engine.env PYTORCH_CUDA_ALLOC_CONF {allocator}: the network card would read memory that "
            "has moved; remove expandable_segments (source: vLLM, config/vllm.py, _verify_kv_transfer_compat)"
        )


def adapters(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Iterator[str]:
    """Adapters are applied to all tokens of a step, so it must have room for every sequence's guesses."""
    asked, defaults = chosen.speculation, engine_defaults(gpu)
    if asked is None or pool.spec.recipe.lora is None:
        return
    sequences = chosen.max_sequences or defaults[0]
    tokens, needed = chosen.max_batched_tokens or defaults[1], sequences * (asked.tokens + 1)
    if tokens < needed:
        yield (
            f"recipe.lora beside recipe.speculation.method {asked.method} with {asked.tokens} tokens needs steps of "
            f"{needed} tokens for {sequences} sequences, and recipe.batching.maxBatchedTokens is {tokens}; raise it, "
            "lower maxSequences or set speculation.method to none"
        )


def sleep(pool: InferencePool, _chosen: Choices, _gpu: Accelerator) -> Iterator[str]:
    """The endpoints are there in development mode alone."""
    env = {variable.name: variable.value for variable in pool.spec.engine.env}
    if pool.spec.recipe.sleep_mode and env.get("VLLM_SERVER_DEV_MODE") != "1":
        yield (
            "recipe.sleepMode has no effect while the engine has no POST /sleep; add VLLM_SERVER_DEV_MODE with the "
            "value 1 to engine.env (source: vLLM docs, features/sleep_mode)"
        )


OVERRIDE_CHECKS = (
    attention,
    experts,
    nodes,
    prefill_context,
    decode_context,
    chunks,
    offload,
    disaggregation,
    adapters,
    sleep,
)
