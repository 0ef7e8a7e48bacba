"""Model shapes: from config.json files as published, and what is refused."""

from typing import Any

import pytest

from support.modelshapes import config, models
from trimtab_crds.shapes import ModelShape, shape_from_config
from trimtab_crds.specshape import model_shape, spec_shape

LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
QWEN3_235B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 94,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 1536,
    "decoder_sparse_step": 1,
    "sliding_window": None,
}
GPT_OSS_120B = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "quantization_config": {"quant_method": "mxfp4"},
}
DEEPSEEK_V3 = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "vocab_size": 129280,
    "quantization_config": {"quant_method": "fp8"},
}


@pytest.mark.parametrize(
    ("config", "billions", "active_billions", "kv_bytes", "bits"),
    [
        pytest.param(LLAMA_8B, 8.03, 7.50, 131_072, 16, id="llama-3.1-8b"),
        pytest.param(QWEN3_235B, 235.1, 21.5, 192_512, 16, id="qwen3-235b-a22b"),
        pytest.param(GPT_OSS_120B, 116.8, 5.1, 73_728, 4, id="gpt-oss-120b"),
        pytest.param(DEEPSEEK_V3, 671.0, 36.6, 70_272, 8, id="deepseek-v3"),
    ],
)
def test_published_models(config: dict[str, Any], billions: float, active_billions: float, kv_bytes: float, bits: int):
    shape = shape_from_config(config)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert shape.active_parameters / 1e9 == pytest.approx(active_billions, rel=0.02)
    assert shape.kv_bytes_per_token == kv_bytes
    assert shape.weight_bits == bits


def test_tied_embeddings_count_once():
    tied = shape_from_config(LLAMA_8B | {"tie_word_embeddings": True})
    assert shape_from_config(LLAMA_8B).parameters - tied.parameters == 4096 * 128256


def test_a_multimodal_config_is_read_from_its_text_part():
    assert shape_from_config({"text_config": LLAMA_8B, "vision_config": {}}) == shape_from_config(LLAMA_8B)


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        pytest.param({"quant_method": "awq", "bits": 4}, 4, id="awq"),
        pytest.param({"quant_method": "gptq", "bits": 8}, 8, id="gptq-8"),
        pytest.param({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4, id="nvfp4"),
        pytest.param({"quant_method": "modelopt", "quant_algo": "FP8"}, 8, id="modelopt-fp8"),
        pytest.param(
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            4,
            id="compressed-tensors",
        ),
        pytest.param({"quant_method": "unheard-of"}, 16, id="unknown"),
    ],
)
def test_bits_of_quantized_checkpoints(quantization: dict[str, Any], bits: int):
    assert shape_from_config(LLAMA_8B | {"quantization_config": quantization}).weight_bits == bits


@pytest.mark.parametrize(
    ("fields", "full", "window"),
    [
        pytest.param({}, 32, 0, id="full"),
        pytest.param({"sliding_window": 4096}, 0, 4096, id="all-windowed"),
        pytest.param({"sliding_window": 4096, "use_sliding_window": False}, 32, 0, id="switched-off"),
        pytest.param({"sliding_window": 1024, "sliding_window_pattern": 8}, 4, 1024, id="pattern"),
        pytest.param({"full_attention_interval": 4}, 8, 0, id="linear-between"),
        pytest.param(
            {"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8, "sliding_window": 512},
            8,
            0,
            id="linear",
        ),
    ],
)
def test_windows(fields: dict[str, Any], full: int, window: int):
    shape = shape_from_config(LLAMA_8B | fields)
    assert (shape.attending_layers, shape.window_tokens) == (full, window)


def test_windowed_layers_stop_growing():
    shape = shape_from_config(GPT_OSS_120B)
    short, long = shape.kv_bytes(128), shape.kv_bytes(10_000)
    assert short == 128 * shape.kv_bytes_per_token
    assert long == (18 * 10_000 + 18 * 128) * shape.kv_bytes_per_layer


def test_attention_counts_windows_too():
    full = ModelShape(10, 10, 4, 1, 8, query_width=64)
    windowed = ModelShape(10, 10, 4, 1, 8, query_width=64, full_attention_layers=2, window_tokens=100)
    assert full.attention_flops(1000, 0) == 4 * 64 * 4 * 1000 * 500
    assert windowed.attention_flops(1000, 0) == 4 * 64 * (2 * 1000 * 500 + 2 * 1000 * 100)


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "vocab_size"], ids=lambda field: field)
def test_a_missing_field_is_named(field: str):
    config = {key: value for key, value in LLAMA_8B.items() if key != field}
    with pytest.raises(ValueError, match=f"config.json has no whole number {field}; copy the model's own config.json"):
        shape_from_config(config)


def test_no_layers_anywhere():
    with pytest.raises(ValueError, match="num_hidden_layers"):
        shape_from_config({"text_config": "nothing"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": 0}, "parameters is 0; it must be at least 1"),
        ({"layers": -1}, "layers is -1; it must be at least 1"),
        ({"active_parameters": 11}, "active_parameters 11 is above parameters 10"),
        ({"full_attention_layers": 9}, "full_attention_layers 9 is not within 0 to 4"),
    ],
)
def test_shapes_that_no_model_has(fields: dict[str, int], message: str):
    good = {"parameters": 10, "active_parameters": 10, "layers": 4, "kv_heads": 1, "head_dim": 8}
    with pytest.raises(ValueError, match=message):
        ModelShape(**(good | fields))


@pytest.mark.parametrize("name", models())
def test_a_pools_shape_is_the_capacity_models(name: str):
    found, wanted = model_shape(spec_shape(config(name))), shape_from_config(config(name))
    assert found.parameters == pytest.approx(wanted.parameters, rel=0.001)
    assert found.active_parameters == pytest.approx(wanted.active_parameters, rel=0.001)
    for field in ("layers", "kv_bytes_per_token", "attending_layers", "window_tokens", "weight_bits", "query_width"):
        assert getattr(found, field) == getattr(wanted, field), field


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        pytest.param(
            "deepseek-ai/DeepSeek-V3",
            {"latent_attention": True, "mtp_layers": 1, "quantization": "fp8", "weight_bits": 8, "experts": 256},
            id="latents, fp8, mtp",
        ),
        pytest.param("Qwen/Qwen3-32B-AWQ", {"quantization": "awq", "weight_bits": 4, "mtp_layers": 0}, id="awq"),
        pytest.param("Qwen/Qwen3-8B", {"quantization": None, "max_context_tokens": 40960}, id="plain"),
        pytest.param("Qwen/Qwen3-Next-80B-A3B-Instruct", {"mtp_layers": None}, id="mtp not counted"),
        pytest.param("google/gemma-3-1b-it", {"float16_overflows": True}, id="no float16"),
    ],
)
def test_facts_that_recipes_need(name: str, facts: dict[str, Any]):
    shape = spec_shape(config(name))
    assert {field: getattr(shape, field) for field in facts} == facts


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        pytest.param({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt_fp4", id="nvfp4"),
        pytest.param({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt", id="modelopt-fp8"),
        pytest.param({"quant_method": "GPTQ", "bits": 4}, "gptq", id="capitals"),
    ],
)
def test_the_checkpoints_quantization_in_vllms_words(quantization: dict[str, Any], name: str):
    assert spec_shape(LLAMA_8B | {"quantization_config": quantization}).quantization == name


@pytest.mark.parametrize(
    ("fields", "longest"),
    [
        pytest.param({}, None, id="not said"),
        pytest.param({"max_position_embeddings": 8192}, 8192, id="plain"),
        pytest.param({"max_position_embeddings": 10_485_760}, 10_485_760, id="ten million"),
        pytest.param({"max_position_embeddings": 8192, "max_seq_len": 4096}, 4096, id="the smallest"),
        pytest.param({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072, id="the model's word"),
        pytest.param(
            {"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 32768, id="yarn"
        ),
        pytest.param(
            {"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
            16384,
            id="linear",
        ),
        pytest.param(
            {"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "factor": None}},
            4096,
            id="no factor",
        ),
        pytest.param(
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            131072,
            id="gemma3 counts it already",
        ),
    ],
)
def test_the_longest_context_is_vllms(fields: dict[str, Any], longest: int | None):
    assert spec_shape(LLAMA_8B | fields).max_context_tokens == longest


def test_a_null_latent_is_no_latent_attention():
    assert not spec_shape(LLAMA_8B | {"kv_lora_rank": None}).latent_attention
