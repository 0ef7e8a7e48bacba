"""`spec.recipe` of a pool: a preset, and what overrides it field by field."""

from enum import StrEnum
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field

from trimtab_crds.meta import Rule, Spec
from trimtab_crds.scalars import PositiveTokens


class Preset(StrEnum):
    """A recipe for a kind of load; every choice it makes can be overridden field by field.

    `auto` is one of the others, chosen by the capacity model from the shape, the GPU, the targets and the load.
    """

    AUTO = "auto"
    BALANCED = "balanced"
    INTERACTIVE = "interactive"
    CODE = "code"
    AGENTIC = "agentic"
    SEARCH = "search"
    REASONING = "reasoning"
    LONG_CONTEXT = "long-context"
    THROUGHPUT = "throughput"
    MEMORY_SAVER = "memory-saver"
    EDGE = "edge"
    HIGH_STAKES = "high-stakes"


class SpeculationMethod(StrEnum):
    """How the next tokens are guessed (vLLM `--speculative-config`, key `method`)."""

    NONE = "none"
    NGRAM = "ngram"
    SUFFIX = "suffix"
    MTP = "mtp"
    EAGLE3 = "eagle3"
    DFLASH = "dflash"
    DSPARK = "dspark"
    DRAFT_MODEL = "draft_model"


class Quantization(StrEnum):
    """Weight quantization. `checkpoint` uses what the checkpoint says; the others quantize at load."""

    CHECKPOINT = "checkpoint"
    FP8 = "fp8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"
    INT8 = "int8"
    FP8_PER_BLOCK = "fp8_per_block"
    FP8_PER_CHANNEL = "fp8_per_channel"
    MXFP8 = "mxfp8"


class Attention(StrEnum):
    """How tokens attend. No engine serves the ones but `standard`: they are answered with what to use instead."""

    STANDARD = "standard"
    LAZY = "lazy"
    RING = "ring"
    BYTE_LATENT = "byte-latent"


NEEDS_DRAFT = (SpeculationMethod.EAGLE3, SpeculationMethod.DFLASH, SpeculationMethod.DRAFT_MODEL)
#: DSpark's draft is a model of its own or part of the target.
TAKES_DRAFT = (*NEEDS_DRAFT, SpeculationMethod.DSPARK)
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class BatchTokens(Spec):
    """How many tokens are guessed while so many sequences run."""

    first: int = Field(alias="from", description="Fewest running sequences.", ge=1, le=8192)
    last: int = Field(alias="to", description="Most running sequences.", ge=1, le=8192)
    tokens: int = Field(description="Tokens guessed per step; 0 guesses none.", ge=0, le=64)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.from <= self.to",
            lambda s: s.first <= s.last,
            "recipe.speculation.tokensByBatchSize from {from} is above to {to}; swap them",
        ),
    )


def _overlapping(ranges: list[BatchTokens]) -> bool:
    ordered = sorted(ranges, key=lambda r: r.first)
    return any(low.last >= high.first for low, high in pairwise(ordered))


class Speculation(Spec):
    """Speculative decoding: guess several tokens, verify them in one step."""

    method: SpeculationMethod = Field(description="How tokens are guessed; `none` switches a preset's choice off.")
    tokens: int | None = Field(
        default=None, description="Tokens guessed per step; the method's usual number if absent.", ge=1, le=64
    )
    tokens_by_batch_size: list[BatchTokens] = Field(
        default_factory=list,
        description="Instead of `tokens`: fewer guesses while more sequences run "
        "(`num_speculative_tokens_per_batch_size`). Sizes between and above the ranges keep the one before.",
        max_length=16,
    )
    model: str | None = Field(
        default=None,
        description="The draft: required for eagle3, dflash and draft_model, optional for dspark.",
        min_length=1,
        max_length=512,
    )
    draft_attention_heads: int | None = Field(
        default=None,
        description="Query heads of the draft (`num_attention_heads` of its config.json): vLLM spreads them over the "
        "GPUs of tensor parallelism, too. Not checked if absent.",
        ge=1,
        le=1024,
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.draftAttentionHeads) || has(self.model)",
            lambda s: s.draft_attention_heads is None or s.model is not None,
            "recipe.speculation.draftAttentionHeads {draftAttentionHeads} has no effect without "
            "recipe.speculation.model; set the draft, or remove draftAttentionHeads",
        ),
        Rule(
            "!(self.method in ['eagle3', 'dflash', 'draft_model']) || has(self.model)",
            lambda s: s.method not in NEEDS_DRAFT or s.model is not None,
            "recipe.speculation.method {method} needs a draft; "
            "set recipe.speculation.model to one trained for this model",
        ),
        Rule(
            "(self.method in ['eagle3', 'dflash', 'draft_model', 'dspark']) || !has(self.model)",
            lambda s: s.method in TAKES_DRAFT or s.model is None,
            "recipe.speculation.method {method} takes no draft; remove recipe.speculation.model",
        ),
        Rule(
            "!has(self.tokens) || !has(self.tokensByBatchSize) || size(self.tokensByBatchSize) == 0",
            lambda s: s.tokens is None or not s.tokens_by_batch_size,
            "recipe.speculation.tokens {tokens} beside tokensByBatchSize; remove one of them",
        ),
        Rule(
            "!has(self.tokensByBatchSize) || size(self.tokensByBatchSize) == 0 || "
            "(self.tokensByBatchSize.exists(r, r.from == 1) && self.tokensByBatchSize.exists(r, r.tokens > 0))",
            lambda s: (
                not s.tokens_by_batch_size
                or (any(r.first == 1 for r in s.tokens_by_batch_size) and any(r.tokens for r in s.tokens_by_batch_size))
            ),
            "recipe.speculation.tokensByBatchSize needs a range from 1 and one with tokens; add it",
        ),
        Rule(
            "!has(self.tokensByBatchSize) || self.tokensByBatchSize.all(a, "
            "self.tokensByBatchSize.exists_one(b, b.from <= a.to && a.from <= b.to))",
            lambda s: not _overlapping(s.tokens_by_batch_size),
            "recipe.speculation.tokensByBatchSize has ranges that overlap; let each batch size be in one of them",
        ),
    )


class KvCache(Spec):
    """The key-value cache."""

    dtype: Literal["auto", "fp8", "fp8_e5m2"] = Field(
        default="auto", description="Type of its entries (`--kv-cache-dtype`); fp8 halves its memory."
    )
    offload_gib: int | None = Field(
        default=None,
        description="Host memory of the pod that keeps what the GPUs drop (`--kv-offloading-size`), in GiB.",
        ge=1,
        le=16384,
    )
    offload_backend: Literal["native", "lmcache"] = Field(
        default="native", description="Who moves it (`--kv-offloading-backend`)."
    )


class Parallelism(Spec):
    """How one replica spreads over its GPUs: tensor x pipeline x prefillContext x data are the GPUs per replica."""

    tensor: int = Field(default=1, description="Tensor parallel size (`--tensor-parallel-size`).", ge=1, le=64)
    pipeline: int = Field(default=1, description="Pipeline stages (`--pipeline-parallel-size`).", ge=1, le=64)
    data: int = Field(
        default=1,
        description="Data parallel size of a mixture of experts (`--data-parallel-size`); needs `expert`.",
        ge=1,
        le=64,
    )
    expert: bool = Field(default=False, description="Spread whole experts over the GPUs (`--enable-expert-parallel`).")
    prefill_context: int = Field(
        default=1,
        description="GPUs that share one prompt (`--prefill-context-parallel-size`); latent attention only.",
        ge=1,
        le=64,
    )
    decode_context: int = Field(
        default=1,
        description="GPUs among which the cache of one sequence is split (`--decode-context-parallel-size`); it uses "
        "the GPUs of tensor and prefillContext.",
        ge=1,
        le=64,
    )

    @property
    def gpus(self) -> int:
        """GPUs that one replica takes."""
        return self.tensor * self.pipeline * self.prefill_context * self.data


class Batching(Spec):
    """How much one step of the engine takes on."""

    max_sequences: int | None = Field(
        default=None, description="Sequences in one batch (`--max-num-seqs`).", ge=1, le=8192
    )
    max_batched_tokens: int | None = Field(
        default=None, description="Tokens in one step (`--max-num-batched-tokens`).", ge=1, le=1_048_576
    )
    max_queued_requests: int | None = Field(
        default=None, description="Requests that may wait before the engine answers 503.", ge=1, le=100_000
    )
    chunked_prefill: bool = Field(
        default=True,
        description="Read long prompts in parts, beside running answers (`--enable-chunked-prefill`).",
    )
    long_prefill_threshold: PositiveTokens | None = Field(
        default=None,
        description="Most tokens of one prompt in a step (`--long-prefill-token-threshold`); no limit if absent.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.maxSequences) || !has(self.maxBatchedTokens) || self.maxBatchedTokens >= self.maxSequences",
            lambda s: (s.max_sequences or 0) <= (s.max_batched_tokens or 1_048_576),
            "recipe.batching.maxBatchedTokens {maxBatchedTokens} is below maxSequences {maxSequences}; "
            "raise it: every running sequence needs one token a step",
        ),
        Rule(
            "!has(self.longPrefillThreshold) || self.chunkedPrefill",
            lambda s: s.long_prefill_threshold is None or s.chunked_prefill,
            "recipe.batching.longPrefillThreshold {longPrefillThreshold} has no effect without chunkedPrefill; "
            "remove it or set chunkedPrefill to true",
        ),
    )


class LoraModule(Spec):
    """One adapter."""

    name: str = Field(
        description="The model name that requests ask it by.", pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=253
    )
    path: str = Field(
        description="A Hugging Face id or an absolute path in the container.", pattern=r"^[^\s=]+$", max_length=512
    )


class Lora(Spec):
    """Adapters that are served beside the model."""

    modules: list[LoraModule] = Field(
        description="The adapters (`--lora-modules`).",
        min_length=1,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    max_rank: int = Field(default=16, description="Highest rank of all (`--max-lora-rank`).", ge=1, le=512)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.maxRank in {list(LORA_RANKS)}",
            lambda s: s.max_rank in LORA_RANKS,
            f"recipe.lora.maxRank {{maxRank}} is none of vLLM's; use one of {', '.join(map(str, LORA_RANKS))}",
        ),
    )


class Disaggregation(Spec):
    """Prompts are read by one pool and answered by another; the cache goes over the network (NIXL)."""

    role: Literal["Prefill", "Decode"] = Field(
        description="Whether the pool's engines read prompts for others or answer what others read. A tier of a "
        "RoutingPolicy brings two pools of one model together (`prefillPoolRef`)."
    )


class Recipe(Spec):
    """The set of vLLM optimisations of a pool: a preset, and what overrides it."""

    preset: Preset = Field(default=Preset.BALANCED, description="Where the choices start from.")
    expected_concurrency: int | None = Field(
        default=None,
        description="Sequences that one replica is expected to run at a time; the preset auto rests on it.",
        ge=1,
        le=8192,
    )
    speculation: Speculation | None = Field(default=None, description="Speculative decoding.")
    quantization: Quantization | None = Field(default=None, description="Weight quantization.")
    kv_cache: KvCache | None = Field(default=None, description="The key-value cache.")
    parallelism: Parallelism | None = Field(
        default=None,
        description="How a replica spreads over its GPUs; tensor parallel over all of them if absent.",
    )
    batching: Batching | None = Field(default=None, description="How much one step takes on.")
    prefix_caching: bool | None = Field(default=None, description="Keep prefixes of earlier prompts (default on).")
    scheduling: Literal["fcfs", "priority"] = Field(
        default="fcfs", description="Who is served first (`--scheduling-policy`): the first, or the lowest `priority`."
    )
    sleep_mode: bool = Field(
        default=False, description="Let the engine give its GPU memory back on POST /sleep (`--enable-sleep-mode`)."
    )
    lora: Lora | None = Field(default=None, description="Adapters that are served beside the model.")
    disaggregation: Disaggregation | None = Field(
        default=None, description="Reading prompts and answering them in pools of their own (`--kv-transfer-config`)."
    )
    attention: Attention = Field(default=Attention.STANDARD, description="How tokens attend.")
