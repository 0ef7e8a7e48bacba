"""What a recipe chooses: a preset, overridden field by field, fitted to the GPU and the checkpoint.

A preset's own choice that does not fit is left out and said so (`Drop`); what the user wrote is never changed here: it
is kept or, in checks.py, refused. Which technique helps when: vLLM's documentation and the papers named there; the
presets hold only what helps without knowing the traffic (speculation needs a draft or a measurement, so none has it).
"""

import re
from dataclasses import dataclass, replace
from types import MappingProxyType

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.inferencepool import (
    InferencePool,
    Model,
    Parallelism,
    Preset,
    Quantization,
    Recipe,
    SpeculationMethod,
)

#: Tokens guessed per step where the user names none: what the methods' authors publish or vLLM's own default.
_USUAL_TOKENS = MappingProxyType(
    {
        SpeculationMethod.NGRAM: 4,
        SpeculationMethod.SUFFIX: 24,
        SpeculationMethod.MTP: 1,
        SpeculationMethod.EAGLE3: 3,
        SpeculationMethod.DFLASH: 15,
        SpeculationMethod.DRAFT_MODEL: 4,
    }
)
_DFLASH_BATCHED_TOKENS = 32768
_QUANTIZED_NAME = (
    (4, re.compile(r"awq|gptq|int4|w4a16|fp4|gpt-oss|4bit", re.IGNORECASE)),
    (8, re.compile(r"fp8|int8|w8a8|8bit", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class Drop:
    """A part of the recipe that has no effect here, or less than its name says."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class SpeculationChoice:
    """Speculative decoding; `tokens` are guessed per step, `slots` is what one sequence takes of a step for them."""

    method: SpeculationMethod
    tokens: int
    model: str | None

    @property
    def slots(self) -> int:
        """Tokens of a step that drafting takes per running sequence."""
        return {SpeculationMethod.DFLASH: self.tokens, SpeculationMethod.DRAFT_MODEL: 1}.get(self.method, 0)


@dataclass(frozen=True, slots=True)
class Choices:
    """All choices of one recipe. None leaves a choice to vLLM."""

    tensor: int
    pipeline: int
    prefix_caching: bool
    performance_mode: str | None = None
    quantization: Quantization = Quantization.CHECKPOINT
    kv_dtype: str = "auto"
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    max_queued_requests: int | None = None
    speculation: SpeculationChoice | None = None
    attention_backend: str | None = None


@dataclass(frozen=True, slots=True)
class _Preset:
    """What a preset chooses; pairs are (GPUs with 70 GiB and more, smaller ones)."""

    performance_mode: str | None = None
    max_sequences: tuple[int, int] | None = None
    max_batched_tokens: tuple[int, int] | None = None
    quantization: Quantization = Quantization.CHECKPOINT
    kv_fp8: bool = False


_PRESETS = MappingProxyType(
    {
        Preset.BALANCED: _Preset(),
        # Small steps keep the time between two tokens even; few sequences keep it short.
        Preset.INTERACTIVE: _Preset(
            performance_mode="interactivity", max_sequences=(64, 32), max_batched_tokens=(2048, 1024)
        ),
        # Long answers decode for minutes: many at once, and room for prompts beside them.
        Preset.REASONING: _Preset(max_sequences=(512, 192), max_batched_tokens=(8192, 4096)),
        # Big steps read a long prompt in few passes; the cache, not the batch, is the limit.
        Preset.LONG_CONTEXT: _Preset(max_sequences=(64, 16), max_batched_tokens=(16384, 8192), kv_fp8=True),
        Preset.THROUGHPUT: _Preset(
            performance_mode="throughput", max_sequences=(1024, 512), max_batched_tokens=(16384, 8192)
        ),
        Preset.MEMORY_SAVER: _Preset(
            max_sequences=(32, 16), max_batched_tokens=(2048, 1024), quantization=Quantization.FP8, kv_fp8=True
        ),
    }
)


def capability(gpu: Accelerator) -> tuple[int, int]:
    """Compute capability (SM) as numbers that compare."""
    major, minor = gpu.compute_capability.split(".")
    return int(major), int(minor)


def has_fp8_attention(gpu: Accelerator) -> bool:
    """Whether FlashAttention reads an fp8 cache (FA3 on SM 9.x, FA4 on SM 10.x); elsewhere vLLM uses Triton."""
    return capability(gpu)[0] in (9, 10)


def checkpoint_bits(model: Model) -> int | None:
    """Bits per weight of a quantized checkpoint, by its shape or else by its name; None for an unquantized one."""
    shape = model.shape
    if shape is not None and shape.weight_bits is not None:
        return shape.weight_bits if shape.quantization else None
    return next((bits for bits, pattern in _QUANTIZED_NAME if pattern.search(model.name)), None)


def checkpoint_type(model: Model) -> str:
    """vLLM's name of the checkpoint's quantization, by its shape or else guessed from its name; empty if there is none.

    Of a name only `fp8` and `mxfp4` are told apart: rules rest on these two.
    """
    shape, name = model.shape, model.name.lower()
    if shape is not None and shape.weight_bits is not None:
        return shape.quantization or ""
    if "mxfp4" in name or "gpt-oss" in name:
        return "mxfp4"
    return "fp8" if "fp8" in name else ""


def latent_attention(model: Model) -> bool:
    """Whether the model is known to cache latents (MLA)."""
    return model.shape is not None and model.shape.latent_attention


def engine_defaults(gpu: Accelerator) -> tuple[int, int]:
    """Sequences and tokens of a step that `vllm serve` picks by itself on that GPU."""
    if gpu.memory_gib >= 160:
        return 1024, 16384
    if gpu.memory_gib >= 70 and "a100" not in gpu.name:
        return 1024, 8192
    return 256, 2048


def choose(pool: InferencePool, gpu: Accelerator) -> tuple[Choices, list[Drop]]:
    """The choices of the pool's recipe on that GPU, and what of the preset was left out."""
    recipe = pool.spec.recipe
    preset = _PRESETS[recipe.preset]
    drops: list[Drop] = []
    parallel = recipe.parallelism or Parallelism(tensor=pool.spec.accelerator.count)
    chosen = Choices(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        prefix_caching=recipe.prefix_caching is not False,
        performance_mode=preset.performance_mode,
        quantization=recipe.quantization or _preset_quantization(pool, preset, drops),
        kv_dtype=recipe.kv_cache.dtype if recipe.kv_cache else _preset_kv_dtype(recipe, gpu, drops),
        max_queued_requests=recipe.batching.max_queued_requests if recipe.batching else None,
        speculation=_speculation(recipe),
    )
    chosen = _with_batching(chosen, recipe, gpu)
    chosen = _with_attention_backend(chosen, gpu, drops, latent=latent_attention(pool.spec.model))
    return chosen, drops + _weight_only(chosen, gpu) + _crowded(chosen, gpu)


def _preset_quantization(pool: InferencePool, preset: _Preset, drops: list[Drop]) -> Quantization:
    if preset.quantization is Quantization.CHECKPOINT or checkpoint_bits(pool.spec.model) is None:
        return preset.quantization
    drops.append(
        Drop(
            f"recipe.preset {pool.spec.recipe.preset}: quantization {preset.quantization}",
            f"model.name {pool.spec.model.name} is a quantized checkpoint already",
        )
    )
    return Quantization.CHECKPOINT


def _preset_kv_dtype(recipe: Recipe, gpu: Accelerator, drops: list[Drop]) -> str:
    preset = _PRESETS[recipe.preset]
    saves_memory = recipe.preset is Preset.MEMORY_SAVER and capability(gpu) >= (8, 0)
    if not preset.kv_fp8 or saves_memory or has_fp8_attention(gpu):
        return "fp8" if preset.kv_fp8 else "auto"
    drops.append(
        Drop(
            f"recipe.preset {recipe.preset}: kvCache.dtype fp8",
            f"FlashAttention reads an fp8 cache on compute capability 9.x and 10.x only, {gpu.name} has "
            f"{gpu.compute_capability}; set recipe.kvCache.dtype to fp8 to take the memory and the slower kernel",
        )
    )
    return "auto"


def _speculation(recipe: Recipe) -> SpeculationChoice | None:
    asked = recipe.speculation
    if asked is None or asked.method is SpeculationMethod.NONE:
        return None
    return SpeculationChoice(asked.method, asked.tokens or _USUAL_TOKENS[asked.method], asked.model)


def _with_batching(chosen: Choices, recipe: Recipe, gpu: Accelerator) -> Choices:
    """Where the user set one of the two limits, the preset's or the engine's other one yields to it."""
    preset, asked, size = _PRESETS[recipe.preset], recipe.batching, 0 if gpu.memory_gib >= 70 else 1
    sequences = preset.max_sequences[size] if preset.max_sequences else None
    tokens = preset.max_batched_tokens[size] if preset.max_batched_tokens else None
    if chosen.speculation and chosen.speculation.method is SpeculationMethod.DFLASH:
        tokens = _DFLASH_BATCHED_TOKENS
    asked_sequences = asked.max_sequences if asked else None
    asked_tokens = asked.max_batched_tokens if asked else None
    slots = chosen.speculation.slots if chosen.speculation else 0
    if not (asked_sequences or asked_tokens or sequences or tokens or slots):
        return chosen
    sequences = asked_sequences or sequences or engine_defaults(gpu)[0]
    tokens = asked_tokens or max(tokens or engine_defaults(gpu)[1], sequences * (slots + 1))
    if not asked_sequences:
        sequences = min(sequences, max(1, tokens // (slots + 1)))
    return replace(chosen, max_sequences=sequences, max_batched_tokens=tokens)


def _with_attention_backend(chosen: Choices, gpu: Accelerator, drops: list[Drop], *, latent: bool) -> Choices:
    """DFlash drafts attend without a causal mask; its publishers run it on FlashAttention."""
    if chosen.speculation is None or chosen.speculation.method is not SpeculationMethod.DFLASH:
        return chosen
    if latent:
        drops.append(
            Drop(
                "recipe.speculation.method dflash: --attention-backend flash_attn",
                "FlashAttention does not read latents (model.shape.latentAttention true), so vLLM picks its own",
            )
        )
        return chosen
    reads_cache = chosen.kv_dtype == "auto" or (chosen.kv_dtype == "fp8" and has_fp8_attention(gpu))
    if capability(gpu) >= (8, 0) and reads_cache:
        return replace(chosen, attention_backend="flash_attn")
    drops.append(
        Drop(
            "recipe.speculation.method dflash: --attention-backend flash_attn",
            "FlashAttention needs compute capability 8.0, and 9.x or 10.x for an fp8 cache; "
            f"{gpu.name} has {gpu.compute_capability}, so vLLM picks another backend",
        )
    )
    return chosen


def _weight_only(chosen: Choices, gpu: Accelerator) -> list[Drop]:
    """Quantized weights that this GPU widens before it multiplies: memory is saved, operations are not."""
    needs = {Quantization.FP8: (8, 9), Quantization.NVFP4: (10, 0), Quantization.MXFP4: (10, 0)}
    needed = needs.get(chosen.quantization)
    if needed is None or capability(gpu) >= needed:
        return []
    why = (
        f"{gpu.name} has compute capability {gpu.compute_capability}, the type is native from "
        f"{needed[0]}.{needed[1]}: weights are widened before they are multiplied, "
        "which saves memory and bandwidth but no operations"
    )
    return [Drop(f"recipe.quantization {chosen.quantization}: faster arithmetic", why)]


def _crowded(chosen: Choices, gpu: Accelerator) -> list[Drop]:
    """Steps without room for the guesses of all sequences: vLLM runs fewer at a time or cuts guesses off."""
    asked = chosen.speculation
    if asked is None:
        return []
    default_sequences, default_tokens = engine_defaults(gpu)
    tokens, sequences = chosen.max_batched_tokens or default_tokens, chosen.max_sequences or default_sequences
    needed = sequences * (asked.slots + 1) if asked.slots else asked.tokens + 1
    if tokens >= needed:
        return []
    return [
        Drop(
            f"recipe.speculation.method {asked.method}: {asked.tokens} tokens for each of {sequences} sequences",
            f"a step of recipe.batching.maxBatchedTokens {tokens} has no room for all of them; raise it to {needed} "
            "or lower maxSequences or speculation.tokens",
        )
    ]
