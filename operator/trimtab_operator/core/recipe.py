"""A pool's recipe to vLLM's flags, or to the reasons why not.

`resolve` never guesses: what vLLM would refuse, silently ignore or die of is refused here with the field, the value and
the fix; what a preset would like but the GPU or checkpoint does not have is left out and listed. The order of flags is
fixed, so equal pools have equal command lines.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from trimtab_crds.accelerators import accelerator
from trimtab_crds.capacity import Replica
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Parallelism, Quantization
from trimtab_operator.core import nodeflags
from trimtab_operator.core.autopreset import resolved_preset
from trimtab_operator.core.checks import CHECKS
from trimtab_operator.core.choices import choose
from trimtab_operator.core.choicetypes import Choices, Drop, SpeculationChoice
from trimtab_operator.core.names import ENGINE_PORT
from trimtab_operator.core.replica import replica_of

__all__ = ["Drop", "Resolution", "replica_for", "resolve"]

#: vLLM's names of the schemes that quantize an unquantized checkpoint while it loads.
_QUANTIZATION_FLAG = {
    Quantization.FP8: "fp8",
    Quantization.INT8: "int8_per_channel_weight_only",
    Quantization.NVFP4: "nvfp4_per_token",
    Quantization.MXFP4: "mxfp4",
    Quantization.FP8_PER_BLOCK: "fp8_per_block",
    Quantization.FP8_PER_CHANNEL: "fp8_per_channel",
    Quantization.MXFP8: "mxfp8",
}

#: Both roles have the same connector, which tells them apart by the request (vLLM docs, features/nixl_connector_usage).
#: An engine that cannot fetch what another has read reads it itself.
_TRANSFER = json.dumps(
    {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_load_failure_policy": "recompute"},
    separators=(",", ":"),
)


@dataclass(frozen=True, slots=True)
class Resolution:
    """The result. `flags` follow `vllm serve MODEL` and are empty when the recipe is refused for `reasons`.

    `preset` is the one that the choices start from, and `preset_why` what made `auto` choose it.
    """

    accepted: bool
    flags: tuple[str, ...]
    dropped: tuple[Drop, ...]
    reasons: tuple[str, ...]
    preset: str = ""
    preset_why: str = ""


def resolve(pool: InferencePool) -> Resolution:
    """The flags of the pool's engines, or why there are none."""
    try:
        gpu = accelerator(pool.spec.accelerator.name)
    except ValueError as error:
        return Resolution(accepted=False, flags=(), dropped=(), reasons=(f"accelerator.name: {error}",))
    chosen, drops = choose(pool, gpu)
    reasons = tuple(reason for check in CHECKS for reason in check(pool, chosen, gpu))
    preset, why = resolved_preset(pool, gpu)
    return Resolution(
        accepted=not reasons,
        flags=() if reasons else flags_of(pool, chosen),
        dropped=tuple(drops),
        reasons=reasons,
        preset=preset.value,
        preset_why=why,
    )


def flags_of(pool: InferencePool, chosen: Choices) -> tuple[str, ...]:
    """The choices as flags, checked or not."""
    return (*_identity(pool), *nodeflags.of_all(pool), *_engine(chosen), *_extras(pool), *_ending(pool))


def replica_for(pool: InferencePool) -> Replica | None:
    """The pool's replica for the capacity model; None without model.shape, or when the GPU is unknown."""
    try:
        gpu = accelerator(pool.spec.accelerator.name)
    except ValueError:
        return None
    return replica_of(pool, choose(pool, gpu)[0], gpu)


def _identity(pool: InferencePool) -> Iterator[str]:
    model = pool.spec.model
    yield from ("--served-model-name", pool.served_name, "--host", "0.0.0.0", "--port", str(ENGINE_PORT))  # noqa: S104
    if model.revision:
        yield from ("--revision", model.revision)
    if model.context_tokens:
        yield from ("--max-model-len", str(model.context_tokens))
    if model.reasoning_parser:
        yield from ("--reasoning-parser", model.reasoning_parser)


def _engine(chosen: Choices) -> Iterator[str]:
    values = (
        *_parallelism(chosen.parallel),
        ("--performance-mode", chosen.performance_mode),
        ("--quantization", _QUANTIZATION_FLAG.get(chosen.quantization)),
        ("--kv-cache-dtype", None if chosen.kv_dtype == "auto" else chosen.kv_dtype),
        ("--max-num-seqs", chosen.max_sequences),
        ("--max-num-batched-tokens", chosen.max_batched_tokens),
        ("--max-num-queued-reqs", chosen.max_queued_requests),
        ("--attention-backend", chosen.attention_backend),
        ("--speculative-config", _speculative_config(chosen.speculation)),
    )
    for flag, value in values:
        if value is not None:
            yield from (flag, str(value))
    # `--no-enable-X` is understood by 0.32 and 0.33; `--disable-X` by 0.33 alone.
    if not chosen.chunked_prefill:
        yield "--no-enable-chunked-prefill"
    yield "--enable-prefix-caching" if chosen.prefix_caching else "--no-enable-prefix-caching"


def _parallelism(parallel: Parallelism) -> Iterator[tuple[str, int | None]]:
    sizes = (
        ("--tensor-parallel-size", parallel.tensor),
        ("--pipeline-parallel-size", parallel.pipeline),
        ("--data-parallel-size", parallel.data),
        ("--prefill-context-parallel-size", parallel.prefill_context),
        ("--decode-context-parallel-size", parallel.decode_context),
    )
    for flag, size in sizes:
        yield flag, size if size > 1 else None


def _extras(pool: InferencePool) -> Iterator[str]:
    """What only the user can ask for."""
    recipe = pool.spec.recipe
    if recipe.parallelism and recipe.parallelism.expert:
        yield "--enable-expert-parallel"
    if recipe.batching and recipe.batching.long_prefill_threshold:
        yield from ("--long-prefill-token-threshold", str(recipe.batching.long_prefill_threshold))
    if recipe.kv_cache and recipe.kv_cache.offload_gib:
        yield from ("--kv-offloading-size", str(recipe.kv_cache.offload_gib), "--kv-offloading-backend", "native")
    if recipe.disaggregation:
        yield from ("--kv-transfer-config", _TRANSFER)
    if recipe.scheduling != "fcfs":
        yield from ("--scheduling-policy", recipe.scheduling)
    if recipe.sleep_mode:
        yield "--enable-sleep-mode"
    if recipe.lora:
        modules = [f"{module.name}={module.path}" for module in recipe.lora.modules]
        yield from ("--enable-lora", "--max-loras", str(len(modules)), "--max-lora-rank", str(recipe.lora.max_rank))
        yield from ("--lora-modules", *modules)


def _speculative_config(chosen: SpeculationChoice | None) -> str | None:
    if chosen is None:
        return None
    config: dict[str, object] = {"method": chosen.method.value, "num_speculative_tokens": chosen.tokens}
    if chosen.model:
        config["model"] = chosen.model
    if chosen.by_batch:
        config["num_speculative_tokens_per_batch_size"] = chosen.by_batch
    return json.dumps(config, separators=(",", ":"))


def _ending(pool: InferencePool) -> Iterator[str]:
    # Without a timeout vLLM aborts running answers at once and may hang with an open stream.
    yield from ("--shutdown-timeout", str(pool.spec.drain.deadline_seconds))
    yield from pool.spec.engine.args
