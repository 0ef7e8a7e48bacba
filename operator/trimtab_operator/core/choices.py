"""What a recipe chooses: a preset, overridden field by field, fitted to the GPU and the checkpoint.

A preset's own choice that does not fit is left out and said so (`Drop`); what the user wrote is never changed here: it
is kept or, in checks.py, refused. Which technique helps when: vLLM's documentation and the papers named there; the
presets hold only what helps without knowing the traffic (a draft is trained for one model, so none names one).
"""

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Preset, Quantization, Recipe, SpeculationMethod
from trimtab_operator.core.autopreset import resolved_preset
from trimtab_operator.core.choicetypes import Choices, Drop, SpeculationChoice
from trimtab_operator.core.facts import (
    capability,
    checkpoint_bits,
    context_of,
    engine_defaults,
    has_fp8_attention,
    lacks_package,
    latent_attention,
    parallelism,
    runs_in_float32,
)
from trimtab_operator.core.presets import PRESETS, PresetChoices

#: Tokens guessed per step where the user names none: what the methods' authors publish or vLLM's own default.
_USUAL_TOKENS = MappingProxyType(
    {
        SpeculationMethod.NGRAM: 4,
        SpeculationMethod.SUFFIX: 24,
        SpeculationMethod.MTP: 1,
        SpeculationMethod.EAGLE3: 3,
        SpeculationMethod.DFLASH: 15,
        SpeculationMethod.DSPARK: 7,
        SpeculationMethod.DRAFT_MODEL: 4,
    }
)
_DFLASH_BATCHED_TOKENS = 32768


def choose(pool: InferencePool, gpu: Accelerator) -> tuple[Choices, list[Drop]]:
    """The choices of the pool's recipe on that GPU, and what of the preset was left out."""
    recipe = pool.spec.recipe
    name = resolved_preset(pool, gpu)[0]
    preset = PRESETS[name]
    drops: list[Drop] = []
    chosen = Choices(
        parallel=parallelism(pool),
        prefix_caching=recipe.prefix_caching is not False,
        performance_mode=preset.performance_mode,
        quantization=recipe.quantization or _preset_quantization(pool, name, gpu, drops),
        kv_dtype=recipe.kv_cache.dtype if recipe.kv_cache else _preset_kv_dtype(name, gpu, drops),
        max_queued_requests=recipe.batching.max_queued_requests if recipe.batching else None,
        chunked_prefill=recipe.batching is None or recipe.batching.chunked_prefill,
        speculation=_asked_speculation(recipe) if recipe.speculation else _preset_speculation(pool, name, drops),
    )
    chosen = _without_schedule(chosen, drops)
    chosen = _with_batching(chosen, pool, preset, gpu)
    chosen = _with_attention_backend(chosen, gpu, drops, latent=latent_attention(pool.spec.model))
    return chosen, drops + _weight_only(chosen, gpu) + _crowded(chosen, gpu) + _imprecise(pool, name)


def _preset_quantization(pool: InferencePool, name: Preset, gpu: Accelerator, drops: list[Drop]) -> Quantization:
    wished, model = PRESETS[name].quantization, pool.spec.model
    if wished is Quantization.CHECKPOINT:
        return wished
    if checkpoint_bits(model) is not None:
        why = f"model.name {model.name} is a quantized checkpoint already"
    elif runs_in_float32(model, gpu):
        why = f"{gpu.name} has no bfloat16 and model.shape.float16Overflows, and float32 excludes quantized weights"
    else:
        return wished
    drops.append(Drop(f"recipe.preset {name}: quantization {wished}", why))
    return Quantization.CHECKPOINT


def _preset_kv_dtype(name: Preset, gpu: Accelerator, drops: list[Drop]) -> str:
    preset = PRESETS[name]
    saves_memory = preset.kv_fp8_everywhere and capability(gpu) >= (8, 0)
    if not preset.kv_fp8 or saves_memory or has_fp8_attention(gpu):
        return "fp8" if preset.kv_fp8 else "auto"
    drops.append(
        Drop(
            f"recipe.preset {name}: kvCache.dtype fp8",
            f"FlashAttention reads an fp8 cache on compute capability 9.x and 10.x only, {gpu.name} has "
            f"{gpu.compute_capability}; set recipe.kvCache.dtype to fp8 to take the memory and the slower kernel",
        )
    )
    return "auto"


def _asked_speculation(recipe: Recipe) -> SpeculationChoice | None:
    asked = recipe.speculation
    if asked is None or asked.method is SpeculationMethod.NONE:
        return None
    by_batch = tuple(sorted((r.first, r.last, r.tokens) for r in asked.tokens_by_batch_size))
    tokens = asked.tokens or _most(by_batch) or _USUAL_TOKENS[asked.method]
    return SpeculationChoice(asked.method, tokens, asked.model, by_batch)


def _preset_speculation(pool: InferencePool, name: Preset, drops: list[Drop]) -> SpeculationChoice | None:
    """The preset's guesses; n-grams instead of suffixes where the image cannot do these."""
    guesses = PRESETS[name].guesses
    if guesses is None:
        return None
    if pool.spec.recipe.parallelism and pool.spec.recipe.parallelism.prefill_context > 1:
        why = "vLLM guesses beside recipe.parallelism.prefillContext with mtp and dspark only"
        drops.append(Drop(f"recipe.preset {name}: speculation {guesses.method}", why))
        return None
    if guesses.method is SpeculationMethod.SUFFIX and lacks_package(pool.spec.engine.image):
        why = f"engine.image {pool.spec.engine.image} lacks the Python package arctic-inference; ngram takes its place"
        drops.append(Drop(f"recipe.preset {name}: speculation {guesses.method}", why))
        guesses = replace(PRESETS[Preset.CODE].guesses or guesses)
    return SpeculationChoice(guesses.method, _most(guesses.by_batch), None, guesses.by_batch)


def _most(by_batch: Iterable[tuple[int, int, int]]) -> int:
    return max((tokens for _, _, tokens in by_batch), default=0)


def _without_schedule(chosen: Choices, drops: list[Drop]) -> Choices:
    """Ranks of data parallelism could guess different numbers of tokens, so vLLM drops the schedule."""
    asked = chosen.speculation
    if asked is None or not asked.by_batch or chosen.parallel.data == 1:
        return chosen
    why = (
        f"vLLM ignores it beside recipe.parallelism.data {chosen.parallel.data} and always guesses {asked.tokens} "
        "tokens; set recipe.speculation.tokens, or method to none"
    )
    drops.append(Drop("recipe.speculation.tokensByBatchSize", why))
    return replace(chosen, speculation=replace(asked, by_batch=()))


def _imprecise(pool: InferencePool, name: Preset) -> list[Drop]:
    bits = checkpoint_bits(pool.spec.model)
    if name is not Preset.HIGH_STAKES or bits is None:
        return []
    why = f"model.name {pool.spec.model.name} has weights of {bits} bits; name the unquantized checkpoint"
    return [Drop(f"recipe.preset {name}: full precision", why)]


def _with_batching(chosen: Choices, pool: InferencePool, preset: PresetChoices, gpu: Accelerator) -> Choices:
    """Where the user set one of the two limits, the preset's or the engine's other one yields to it."""
    asked, size = pool.spec.recipe.batching, 0 if gpu.memory_gib >= 70 else 1
    sequences = preset.max_sequences[size] if preset.max_sequences else None
    tokens = preset.max_batched_tokens[size] if preset.max_batched_tokens else None
    if chosen.speculation and chosen.speculation.method is SpeculationMethod.DFLASH:
        tokens = _DFLASH_BATCHED_TOKENS
    if not chosen.chunked_prefill:
        # A prompt that is not read in parts must fit into one step.
        tokens = max(tokens or engine_defaults(gpu)[1], context_of(pool.spec.model) or 0)
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
    needs |= {Quantization.FP8_PER_CHANNEL: (8, 9), Quantization.FP8_PER_BLOCK: (9, 0), Quantization.MXFP8: (10, 0)}
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
