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
from trimtab_crds.inferencepool import InferencePool, Quantization
from trimtab_operator.core.checks import CHECKS
from trimtab_operator.core.choices import Choices, Drop, SpeculationChoice, choose
from trimtab_operator.core.names import ENGINE_PORT
from trimtab_operator.core.replica import replica_of

__all__ = ["Drop", "Resolution", "replica_for", "resolve"]

#: vLLM's names of the schemes that quantize an unquantized checkpoint while it loads.
_QUANTIZATION_FLAG = {
    Quantization.FP8: "fp8",
    Quantization.INT8: "int8_per_channel_weight_only",
    Quantization.NVFP4: "nvfp4_per_token",
    Quantization.MXFP4: "mxfp4",
}


@dataclass(frozen=True, slots=True)
class Resolution:
    """The result. `flags` follow `vllm serve MODEL` and are empty when the recipe is refused for `reasons`."""

    accepted: bool
    flags: tuple[str, ...]
    dropped: tuple[Drop, ...]
    reasons: tuple[str, ...]


def resolve(pool: InferencePool) -> Resolution:
    """The flags of the pool's engines, or why there are none."""
    try:
        gpu = accelerator(pool.spec.accelerator.name)
    except ValueError as error:
        return Resolution(accepted=False, flags=(), dropped=(), reasons=(f"accelerator.name: {error}",))
    chosen, drops = choose(pool, gpu)
    reasons = tuple(reason for check in CHECKS for reason in check(pool, chosen, gpu))
    if reasons:
        return Resolution(accepted=False, flags=(), dropped=tuple(drops), reasons=reasons)
    return Resolution(accepted=True, flags=flags_of(pool, chosen), dropped=tuple(drops), reasons=())


def flags_of(pool: InferencePool, chosen: Choices) -> tuple[str, ...]:
    """The choices as flags, checked or not."""
    return (*_identity(pool), *_engine(chosen), *_ending(pool))


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
        ("--tensor-parallel-size", chosen.tensor if chosen.tensor > 1 else None),
        ("--pipeline-parallel-size", chosen.pipeline if chosen.pipeline > 1 else None),
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
    yield "--enable-prefix-caching" if chosen.prefix_caching else "--no-enable-prefix-caching"


def _speculative_config(chosen: SpeculationChoice | None) -> str | None:
    if chosen is None:
        return None
    config: dict[str, str | int] = {"method": chosen.method.value, "num_speculative_tokens": chosen.tokens}
    if chosen.model:
        config["model"] = chosen.model
    return json.dumps(config, separators=(",", ":"))


def _ending(pool: InferencePool) -> Iterator[str]:
    # Without a timeout vLLM aborts running answers at once and may hang with an open stream.
    yield from ("--shutdown-timeout", str(pool.spec.drain.deadline_seconds))
    yield from pool.spec.engine.args
