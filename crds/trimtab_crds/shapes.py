"""The shape of a model: the numbers its speed and memory depend on, read from a Hugging Face `config.json`.

Parameters are counted from the matrices that the architecture names (attention, gated MLP or experts, embeddings);
norms, biases and routers are left out, which is below 1 % of any current model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a model that its speed depends on.

    `active_parameters` are those used per token: in a dense model all but the input embedding. Layers beyond
    `full_attention_layers` look back `window_tokens` only (0 for linear attention, whose state does not grow).
    `latent_kv` is MLA: one latent of `head_dim` elements a token instead of a key and a value. `query_width` is query
    heads times the size of a head; 0 means eight query heads per key head.
    """

    parameters: int
    active_parameters: int
    layers: int
    kv_heads: int
    head_dim: int
    weight_bits: int = 16
    kv_bits: int = 16
    full_attention_layers: int | None = None
    window_tokens: int = 0
    latent_kv: bool = False
    query_width: int = 0

    def __post_init__(self) -> None:
        """Refuse shapes that no model has; raises ValueError naming the field."""
        for name in ("parameters", "active_parameters", "layers", "kv_heads", "head_dim", "weight_bits", "kv_bits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.active_parameters > self.parameters:
            raise ValueError(f"active_parameters {self.active_parameters} is above parameters {self.parameters}")
        if not 0 <= self.attending_layers <= self.layers:
            raise ValueError(f"full_attention_layers {self.full_attention_layers} is not within 0 to {self.layers}")

    @property
    def attending_layers(self) -> int:
        """Layers that attend to the whole context."""
        return self.layers if self.full_attention_layers is None else self.full_attention_layers

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return self.parameters * self.weight_bits / 8

    @property
    def kv_bytes_per_layer(self) -> float:
        """Bytes of cache that one token takes in one layer."""
        return (1 if self.latent_kv else 2) * self.kv_heads * self.head_dim * self.kv_bits / 8

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of cache that one token takes in all layers, windows not considered."""
        return self.layers * self.kv_bytes_per_layer

    def kv_bytes(self, context_tokens: float) -> float:
        """Bytes of cache that one sequence of that length takes."""
        windowed = (self.layers - self.attending_layers) * min(context_tokens, self.window_tokens)
        return (self.attending_layers * context_tokens + windowed) * self.kv_bytes_per_layer

    def weight_bytes_read(self, tokens: float) -> float:
        """Bytes of weights that a step over that many tokens reads.

        A small batch touches few experts: each token draws the active share of the weights independently.
        """
        untouched = float((1 - self.active_parameters / self.parameters) ** tokens)
        return self.weight_bytes * (1 - untouched)

    def attention_flops(self, tokens: float, position: float) -> float:
        """Operations of causal attention for a run of prompt tokens that starts at that position."""
        width = self.query_width or 8 * self.kv_heads * self.head_dim
        windowed = (self.layers - self.attending_layers) * tokens * min(self.window_tokens, position + tokens / 2)
        return 4 * width * (self.attending_layers * tokens * (position + tokens / 2) + windowed)


@dataclass(frozen=True, slots=True)
class Config:
    """A `config.json` with checked access."""

    values: Mapping[str, object]

    def number(self, *names: str, default: int | None = None) -> int:
        """The first of these fields that is a whole number, or the default; ValueError names them otherwise."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        if default is None:
            raise ValueError(f"config.json has no whole number {' or '.join(names)}; copy the model's own config.json")
        return default

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty when absent."""
        value = self.values.get(name)
        return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()

    def section(self, name: str) -> "Config":
        """A nested object, empty when absent."""
        value = self.values.get(name)
        return Config(value if isinstance(value, Mapping) else {})

    def text(self) -> "Config":
        """The part that describes the language model: all of it, or `text_config` of a multimodal model."""
        return self if "num_hidden_layers" in self.values else self.section("text_config")


def shape_from_config(config: Mapping[str, object]) -> ModelShape:
    """The shape that a Hugging Face `config.json` describes: dense, mixture of experts, MLA, sliding windows.

    Raises ValueError that names the missing field.
    """
    whole = Config(config)
    text = whole.text()
    layers, hidden = text.number("num_hidden_layers"), text.number("hidden_size")
    moe_layers, experts, active_experts = _experts(text, layers)
    attention, cache = _attention(text)
    dense = 3 * hidden * text.number("intermediate_size", default=0) * (layers - moe_layers)
    embeddings = hidden * text.number("vocab_size")
    untied = 1 if text.values.get("tie_word_embeddings", config.get("tie_word_embeddings")) is True else 2
    common = layers * attention + dense
    full, window = _windows(text, layers)
    return ModelShape(
        parameters=common + moe_layers * experts + untied * embeddings,
        # The input embedding is a look-up, the output one a product.
        active_parameters=common + moe_layers * active_experts + embeddings,
        layers=layers,
        weight_bits=_weight_bits(whole, text),
        full_attention_layers=full,
        window_tokens=window,
        **cache,
    )


class _Cache(TypedDict):
    kv_heads: int
    head_dim: int
    latent_kv: bool
    query_width: int


def _attention(text: Config) -> tuple[int, _Cache]:
    """Parameters of one attention layer, and what of it the cache needs."""
    hidden, heads = text.number("hidden_size"), text.number("num_attention_heads")
    if heads < 1:
        raise ValueError(f"config.json has num_attention_heads {heads}; copy the model's own config.json")
    if text.values.get("kv_lora_rank") is not None:
        return _latent_attention(text, hidden=hidden, heads=heads)
    head_dim = text.number("head_dim", default=hidden // heads)
    kv_heads = text.number("num_key_value_heads", default=heads)
    parameters = 2 * hidden * head_dim * (heads + kv_heads)
    return parameters, _Cache(kv_heads=kv_heads, head_dim=head_dim, latent_kv=False, query_width=heads * head_dim)


def _latent_attention(text: Config, *, hidden: int, heads: int) -> tuple[int, _Cache]:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434)."""
    latent, rope = text.number("kv_lora_rank"), text.number("qk_rope_head_dim")
    nope, value = text.number("qk_nope_head_dim"), text.number("v_head_dim")
    query_latent = text.number("q_lora_rank", default=0)
    query = (hidden + heads * (nope + rope)) * query_latent if query_latent else hidden * heads * (nope + rope)
    parameters = query + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    # Prompts are read with the keys expanded: scores over nope + rope, values over v_head_dim.
    width = heads * (nope + rope + value) // 2
    return parameters, _Cache(kv_heads=1, head_dim=latent + rope, latent_kv=True, query_width=width)


def _experts(text: Config, layers: int) -> tuple[int, int, int]:
    """Layers with experts, and parameters of their experts: all, and those that one token uses."""
    total = text.number("num_experts", "num_local_experts", "n_routed_experts", default=0)
    if total == 0:
        return 0, 0, 0
    active = text.number("num_experts_per_tok", "moe_topk", "top_k_experts")
    size = text.number("moe_intermediate_size", "intermediate_size")
    hidden = text.number("hidden_size")
    shared = text.number("n_shared_experts", default=0) * size
    shared += text.number("shared_expert_intermediate_size", default=0)
    dense = text.number("first_k_dense_replace", default=0)
    step = text.number("decoder_sparse_step", default=1)
    return (layers - dense) // max(step, 1), 3 * hidden * (total * size + shared), 3 * hidden * (active * size + shared)


def _windows(text: Config, layers: int) -> tuple[int | None, int]:
    """Layers that see the whole context (None: all), and how far the others look back."""
    kinds = text.texts("layer_types")
    window = text.number("sliding_window", default=0)
    if kinds:
        full = sum(kind in ("full_attention", "attention") for kind in kinds)
        return full, window if "sliding_attention" in kinds else 0
    interval = text.number("full_attention_interval", default=0)
    if interval > 0:  # the layers between are linear: Qwen3-Next, Qwen3.5
        return layers // interval, 0
    pattern = text.number("sliding_window_pattern", default=0)
    if window and pattern:
        return layers // pattern, window
    if window and text.values.get("use_sliding_window") is not False:
        return 0, window
    return None, 0


def _weight_bits(whole: Config, text: Config) -> int:
    """Bits per weight that the checkpoint's `quantization_config` says; 16 without one."""
    quantization = whole.section("quantization_config")
    if not quantization.values:
        quantization = text.section("quantization_config")
    method = str(quantization.values.get("quant_method", "")).lower()
    algorithm = str(quantization.values.get("quant_algo", "")).lower()
    if "fp4" in method or "fp4" in algorithm:
        return 4
    if "fp8" in method or "fp8" in algorithm or "int8" in method:
        return 8
    weights = quantization.section("config_groups").section("group_0").section("weights")
    return weights.number("num_bits", default=quantization.number("bits", default=16))
