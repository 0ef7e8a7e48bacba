"""What the presets choose, each for a kind of load; choices.py fits it to the GPU and the checkpoint."""

from dataclasses import dataclass
from types import MappingProxyType

from trimtab_crds.recipespec import Preset, Quantization, SpeculationMethod

#: No engine runs more sequences.
_ALL = 8192


@dataclass(frozen=True, slots=True)
class Guesses:
    """Speculation without a draft; `by_batch` makes it fade as more sequences run, for verifying takes their time."""

    method: SpeculationMethod
    by_batch: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class PresetChoices:
    """What a preset chooses; pairs are (GPUs with 70 GiB and more, smaller ones)."""

    performance_mode: str | None = None
    max_sequences: tuple[int, int] | None = None
    max_batched_tokens: tuple[int, int] | None = None
    quantization: Quantization = Quantization.CHECKPOINT
    kv_fp8: bool = False
    #: Also where only the slower kernels read it.
    kv_fp8_everywhere: bool = False
    guesses: Guesses | None = None


PRESETS = MappingProxyType(
    {
        Preset.BALANCED: PresetChoices(),
        # Small steps keep the time between two tokens even; few sequences keep it short.
        Preset.INTERACTIVE: PresetChoices(
            performance_mode="interactivity", max_sequences=(64, 32), max_batched_tokens=(2048, 1024)
        ),
        # Edits repeat what the prompt holds: n-grams of it guess best there, and near nothing elsewhere
        # (SpecDecode-Bench, arXiv 2601.11580).
        Preset.CODE: PresetChoices(
            performance_mode="interactivity",
            max_sequences=(128, 64),
            max_batched_tokens=(8192, 4096),
            guesses=Guesses(SpeculationMethod.NGRAM, ((1, 8, 4), (9, 32, 2), (33, _ALL, 0))),
        ),
        # Loops of tools repeat themselves: suffixes of earlier answers guess long runs at any load (SuffixDecoding,
        # arXiv 2411.04975); every turn resends its prefix, so steps have room for prompts.
        Preset.AGENTIC: PresetChoices(
            max_sequences=(256, 128),
            max_batched_tokens=(8192, 4096),
            guesses=Guesses(SpeculationMethod.SUFFIX, ((1, 32, 24), (33, 128, 8), (129, _ALL, 0))),
        ),
        # Long passages in, short answers out: reading prompts is the work.
        Preset.SEARCH: PresetChoices(max_sequences=(256, 64), max_batched_tokens=(16384, 8192)),
        # Long answers decode for minutes: many at once, and room for prompts beside them.
        Preset.REASONING: PresetChoices(max_sequences=(512, 192), max_batched_tokens=(8192, 4096)),
        # Big steps read a long prompt in few passes; the cache, not the batch, is the limit.
        Preset.LONG_CONTEXT: PresetChoices(max_sequences=(64, 16), max_batched_tokens=(16384, 8192), kv_fp8=True),
        Preset.THROUGHPUT: PresetChoices(
            performance_mode="throughput", max_sequences=(1024, 512), max_batched_tokens=(16384, 8192)
        ),
        Preset.MEMORY_SAVER: PresetChoices(
            max_sequences=(32, 16),
            max_batched_tokens=(2048, 1024),
            quantization=Quantization.FP8,
            kv_fp8=True,
            kv_fp8_everywhere=True,
        ),
        # One small GPU and few users: weights and cache in 8 bits leave room, and each user gets the whole GPU.
        Preset.EDGE: PresetChoices(
            performance_mode="interactivity",
            max_sequences=(16, 8),
            max_batched_tokens=(2048, 1024),
            quantization=Quantization.FP8,
            kv_fp8=True,
            kv_fp8_everywhere=True,
        ),
        # Nothing that changes a number: the checkpoint's own weights, a cache of 16 bits, no guesses.
        Preset.HIGH_STAKES: PresetChoices(max_sequences=(128, 32), max_batched_tokens=(8192, 4096)),
    }
)
