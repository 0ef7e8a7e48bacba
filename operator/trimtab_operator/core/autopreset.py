"""`recipe.preset auto`: the preset that fits the model's shape, the GPU, the latency targets and the expected load.

The capacity model judges: what fits, and how many sequences a replica can run inside the time per output token. From
8 sequences down latency is what the GPU is used for, from 256 up it is throughput.
"""

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.capacity import Replica
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Preset
from trimtab_operator.core.choicetypes import Choices
from trimtab_operator.core.facts import parallelism
from trimtab_operator.core.replica import planned_rates, replica_of

_FEW_SEQUENCES = 8
_MANY_SEQUENCES = 256
#: From about here on, reading the cache is most of a step.
_LONG_CONTEXT_TOKENS = 65_536


def resolved_preset(pool: InferencePool, gpu: Accelerator) -> tuple[Preset, str]:
    """The preset of the pool and, where `auto` chose it, why."""
    asked = pool.spec.recipe.preset
    if asked is not Preset.AUTO:
        return asked, ""
    plain = replica_of(pool, Choices(parallel=parallelism(pool), prefix_caching=True), gpu)
    if plain is None:
        return Preset.BALANCED, "model.shape is not set, so nothing is known of what fits; set it"
    return _by_memory(pool, plain) or _by_load(pool, plain)


def _by_memory(pool: InferencePool, plain: Replica) -> tuple[Preset, str] | None:
    context = pool.spec.model.context_tokens or 0
    if plain.kv_capacity_bytes <= plain.shape.kv_bytes(max(context, 1)):
        return Preset.MEMORY_SAVER, (
            f"the weights of {plain.shape.weight_bytes / 2**30:.1f} GiB and one full context do not fit as they are"
        )
    if context >= _LONG_CONTEXT_TOKENS:
        return Preset.LONG_CONTEXT, f"model.contextTokens is {context}"
    return None


def _by_load(pool: InferencePool, plain: Replica) -> tuple[Preset, str]:
    expected = pool.spec.recipe.expected_concurrency
    batch = planned_rates(pool, plain).batch
    running = batch if expected is None else min(batch, expected)
    limit = (
        f"slo.timePerOutputTokenMilliseconds {pool.spec.slo.time_per_output_token_milliseconds} allows {batch} "
        "sequences of a typical query"
    )
    why = limit if expected is None else f"recipe.expectedConcurrency is {expected}, and {limit}"
    if running <= _FEW_SEQUENCES:
        return Preset.INTERACTIVE, why
    if pool.spec.model.reasoning_parser:
        return Preset.REASONING, f"model.reasoningParser is set, and {why}"
    return (Preset.THROUGHPUT if running >= _MANY_SEQUENCES else Preset.BALANCED), why
