"""One replica of a pool as the capacity model sees it, and what it can do.

Rates are planned for a typical query (1,024 prompt tokens, 512 of answer) where the caller knows no better.
"""

from dataclasses import replace

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.capacity import Rates, Replica, rates
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Parallelism, Quantization
from trimtab_crds.specshape import model_shape
from trimtab_operator.core.choicetypes import Choices
from trimtab_operator.core.facts import checkpoint_bits, engine_defaults

PLANNED_PROMPT_TOKENS = 1024
PLANNED_OUTPUT_TOKENS = 512

_BITS = {Quantization.FP8: 8, Quantization.INT8: 8, Quantization.NVFP4: 4, Quantization.MXFP4: 4}
_BITS |= {Quantization.FP8_PER_BLOCK: 8, Quantization.FP8_PER_CHANNEL: 8, Quantization.MXFP8: 8}


def replica_of(pool: InferencePool, chosen: Choices, gpu: Accelerator) -> Replica | None:
    """The pool's replica; None where the pool does not say its model's shape."""
    shape = pool.spec.model.shape
    if shape is None:
        return None
    bits = _BITS.get(chosen.quantization) or checkpoint_bits(pool.spec.model)
    whole = model_shape(shape, weight_bits=bits, kv_bits=16 if chosen.kv_dtype == "auto" else 8)
    return Replica(
        shape=replace(whole, kv_heads=_cached_heads(shape.kv_heads, chosen.parallel)),
        accelerator=gpu,
        gpus=pool.spec.accelerator.count,
        max_sequences=chosen.max_sequences or engine_defaults(gpu)[0],
    )


def _cached_heads(kv_heads: int, parallel: Parallelism) -> int:
    """Heads that all GPUs together cache.

    With more GPUs than key heads every GPU keeps a copy of one, and every rank of prefill context parallelism one of
    all; decode context parallelism splits what would be copies.
    """
    copies = max(kv_heads, parallel.tensor) * parallel.prefill_context
    return max(kv_heads, copies // parallel.decode_context)


def planned_rates(pool: InferencePool, replica: Replica) -> Rates:
    """What the replica can do inside the pool's target on the typical query."""
    return rates(
        replica,
        input_tokens=PLANNED_PROMPT_TOKENS,
        output_tokens=PLANNED_OUTPUT_TOKENS,
        tpot_seconds=pool.spec.slo.time_per_output_token_milliseconds / 1000,
    )
