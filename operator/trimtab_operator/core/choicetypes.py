"""What a recipe comes to before it is written as flags."""

from dataclasses import dataclass

from trimtab_crds.recipespec import Parallelism, Quantization, SpeculationMethod


@dataclass(frozen=True, slots=True)
class Drop:
    """A part of the recipe that has no effect here, or less than its name says."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class SpeculationChoice:
    """Speculative decoding; at most `tokens` are guessed per step.

    `by_batch` are ranges of running sequences, both ends included, with the tokens that are guessed there.
    """

    method: SpeculationMethod
    tokens: int
    model: str | None
    by_batch: tuple[tuple[int, int, int], ...] = ()

    @property
    def slots(self) -> int:
        """Tokens of a step that drafting takes per running sequence."""
        slots = {
            SpeculationMethod.DFLASH: self.tokens,
            SpeculationMethod.DSPARK: self.tokens - 1,
            SpeculationMethod.DRAFT_MODEL: 1,
        }
        return slots.get(self.method, 0)


@dataclass(frozen=True, slots=True)
class Choices:
    """All choices of one recipe. None leaves a choice to vLLM."""

    parallel: Parallelism
    prefix_caching: bool
    performance_mode: str | None = None
    quantization: Quantization = Quantization.CHECKPOINT
    kv_dtype: str = "auto"
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    max_queued_requests: int | None = None
    chunked_prefill: bool = True
    speculation: SpeculationChoice | None = None
    attention_backend: str | None = None
