"""`spec.model.shape` from a Hugging Face `config.json`, and the numbers that the capacity model takes from it."""

from collections.abc import Mapping

from trimtab_crds.inferencepool import Shape
from trimtab_crds.shapes import Config, ModelShape, shape_from_config

#: Types of models that vLLM refuses in float16 (config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS).
_FLOAT16_OVERFLOWS = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
#: Types of models whose MTP layers vLLM knows although `config.json` does not count them (config/speculative.py).
_UNCOUNTED_MTP = frozenset(
    {"qwen3_next", "longcat_flash", "minimax_m3_vl", "step3p5", "step3p7", "mimo_v2_flash", "mimo_v2_pro"}
)
_MTP_FIELDS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")
_LENGTH_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
#: Types of rope scaling whose models count `max_position_embeddings` after scaling.
_SCALED_ALREADY = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
#: `quant_algo` of NVIDIA's ModelOpt to vLLM's name of the scheme, where it is not `modelopt`.
_MODELOPT = {"NVFP4": "modelopt_fp4", "MXFP8": "modelopt_mxfp8", "MIXED_PRECISION": "modelopt_mixed"}


def spec_shape(config: Mapping[str, object]) -> Shape:
    """The shape that a `config.json` describes.

    Raises ValueError that names the missing or wrong field.
    """
    shape, whole = shape_from_config(config), Config(config)
    text = whole.text()
    return Shape(
        parameters_millions=max(1, round(shape.parameters / 1e6)),
        active_parameters_millions=max(1, round(shape.active_parameters / 1e6)),
        layers=shape.layers,
        attention_heads=text.number("num_attention_heads"),
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        experts=text.number("num_experts", "num_local_experts", "n_routed_experts", default=0),
        latent_attention=shape.latent_kv,
        query_width=shape.query_width if shape.latent_kv else None,
        full_attention_layers=shape.full_attention_layers,
        window_tokens=shape.window_tokens,
        max_context_tokens=_max_context(whole, text),
        mtp_layers=_mtp_layers(whole, text),
        weight_bits=shape.weight_bits,
        quantization=_quantization(whole, text),
        float16_overflows=_types(whole, text) & _FLOAT16_OVERFLOWS != frozenset(),
    )


def model_shape(shape: Shape, *, weight_bits: int | None = None, kv_bits: int = 16) -> ModelShape:
    """The numbers of the capacity model; `weight_bits` is how the engine holds weights, if not as the checkpoint."""
    parameters = shape.parameters_millions * 10**6
    active = shape.active_parameters_millions
    return ModelShape(
        parameters=parameters,
        active_parameters=active * 10**6 if active else parameters,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        weight_bits=weight_bits or shape.weight_bits or 16,
        kv_bits=kv_bits,
        full_attention_layers=shape.full_attention_layers,
        window_tokens=shape.window_tokens,
        latent_kv=shape.latent_attention,
        query_width=shape.query_width or shape.attention_heads * shape.head_dim,
    )


def _types(whole: Config, text: Config) -> frozenset[str]:
    return frozenset(str(config.values.get("model_type", "")) for config in (whole, text))


def _mtp_layers(whole: Config, text: Config) -> int | None:
    """Layers that guess ahead; None where the model may have some and does not count them."""
    counted = text.number(*_MTP_FIELDS, default=-1)
    if counted >= 0:
        return counted
    return None if _types(whole, text) & _UNCOUNTED_MTP else 0


def _max_context(whole: Config, text: Config) -> int | None:
    """The longest context that vLLM derives (config/model.py, _get_and_verify_max_len); None where no field says it."""
    lengths = [length for name in _LENGTH_FIELDS if (length := text.number(name, default=0)) > 0]
    longest = text.number("model_max_length", default=0) or min(lengths, default=0)
    if longest < 1:
        return None
    scaling = text.section("rope_scaling")
    scaling = scaling if scaling.values else text.section("rope_parameters")
    kind, factor = scaling.values.get("rope_type", scaling.values.get("type")), scaling.values.get("factor")
    scales = isinstance(factor, int | float) and kind not in _SCALED_ALREADY
    if not scales or any("gemma3" in name for name in _types(whole, text)):
        return longest
    return int(longest * float(str(factor)))


def _quantization(whole: Config, text: Config) -> str | None:
    """vLLM's name of what `quantization_config` says; None for an unquantized checkpoint."""
    section = whole.section("quantization_config")
    section = section if section.values else text.section("quantization_config")
    method = str(section.values.get("quant_method", "")).lower()
    algorithm = str(section.values.get("quant_algo", "")).upper()
    if method == "modelopt" or (not method and algorithm):
        return _MODELOPT.get(algorithm, "modelopt")
    return method or None
