"""What vLLM dies of or ignores, refused in words; the contract suite holds the same rules against the real vLLM."""

import pytest

from support.manifests import pool_manifest, shape
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.reasoningparsers import REASONING_PARSERS, unknown_parser
from trimtab_operator.core.recipe import Resolution, replica_for, resolve

GPT_OSS = {"name": "openai/gpt-oss-20b"}
DFLASH = {"method": "dflash", "model": "z-lab/Qwen3-8B-DFlash-b16"}
MOE = shape(parametersMillions=3000, activeParametersMillions=1000, experts=64)


def resolved(gpu: str = "nvidia-h100-80gb", count: int = 1, **changes) -> Resolution:
    manifest = pool_manifest(spec__accelerator={"name": gpu, "count": count}, **changes)
    return resolve(InferencePool.model_validate(manifest))


def test_suffix_needs_a_package_that_the_projects_image_lacks():
    asked = {"speculation": {"method": "suffix"}}
    assert resolved(spec__recipe=asked).reasons == (
        (
            "recipe.speculation.method suffix needs the Python package arctic-inference, which engine.image "
            "docker.io/vllm/vllm-openai:v0.32.0 does not have; use an image that has it or the method ngram"
        ),
    )


@pytest.mark.parametrize(
    ("image", "accepted"),
    [
        pytest.param("vllm/vllm-openai", False, id="without registry and tag"),
        pytest.param("mirror.example.com/hub/vllm/vllm-openai:v0.32.0", False, id="a mirror"),
        pytest.param("vllm/vllm-openai@sha256:0123", False, id="by digest"),
        pytest.param("registry.example.com/vllm-openai-arctic:1", True, id="an image of one's own"),
        pytest.param("registry.example.com/vllm/vllm-openai-arctic:1", True, id="a longer name"),
    ],
)
def test_other_images_are_trusted_to_have_it(image: str, accepted: bool):
    changes = {"spec__recipe": {"speculation": {"method": "suffix"}}, "spec__engine": {"image": image}}
    assert resolved(**changes).accepted is accepted


@pytest.mark.parametrize(
    ("changes", "gpu", "accepted"),
    [
        pytest.param({"spec__model": GPT_OSS}, "nvidia-t4-16gb", False, id="gpt-oss before SM 8.0"),
        pytest.param({"spec__model": GPT_OSS}, "nvidia-a100-40gb", True, id="gpt-oss from SM 8.0 on"),
        pytest.param(
            {"spec__model__shape": MOE, "spec__recipe": {"quantization": "mxfp4"}},
            "nvidia-t4-16gb",
            False,
            id="asked for before SM 8.0",
        ),
        pytest.param(
            {"spec__model__shape": MOE, "spec__recipe": {"quantization": "mxfp4"}},
            "nvidia-l4-24gb",
            True,
            id="asked for from SM 8.0 on",
        ),
    ],
)
def test_mxfp4_needs_compute_capability_8(changes, gpu: str, accepted: bool):
    answer = resolved(gpu, **changes)
    assert answer.accepted is accepted
    assert all("compute capability 7.5 and mxfp4 weights need 8.0" in reason for reason in answer.reasons)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        pytest.param("qwen3", None, id="one that there is"),
        pytest.param(
            "qwen4",
            "model.reasoningParser qwen4 is none of vLLM 0.32.0's; set it to qwen3 or remove it",
            id="nearly one",
        ),
    ],
)
def test_reasoning_parsers(asked: str, sentence: str | None):
    assert unknown_parser(asked, "0.32.0") == sentence
    assert resolved(spec__model__reasoningParser=asked).reasons == ((sentence,) if sentence else ())


def test_a_parser_like_no_other_lists_all():
    sentence = unknown_parser("zzzzzz", "0.32.0")
    assert sentence
    assert all(name in sentence for name in REASONING_PARSERS)


def test_parsers_come_with_versions():
    assert unknown_parser("step5", "0.33.0") is None
    assert unknown_parser("step5", "0.32.0")


DRAFT = {"method": "draft_model", "model": "/drafts/small", "draftAttentionHeads": 16}


@pytest.mark.parametrize(("tensor", "refused"), [(16, False), (32, True)])
def test_a_draft_is_spread_over_the_same_gpus(tensor: int, refused: bool):
    recipe = {"speculation": DRAFT, "parallelism": {"tensor": tensor}}
    reasons = resolved(count=tensor, spec__recipe=recipe).reasons
    said = f"recipe.speculation.draftAttentionHeads 16 is no multiple of recipe.parallelism.tensor {tensor}"
    assert [reason.startswith(said) for reason in reasons] == [True] * refused


def test_a_step_without_room_for_one_guess_is_refused():
    recipe = {"speculation": DFLASH, "batching": {"maxSequences": 1, "maxBatchedTokens": 15}}
    assert resolved(spec__recipe=recipe).reasons == (
        (
            "recipe.batching.maxBatchedTokens 15 is too small for recipe.speculation.method dflash with 15 tokens; "
            "raise it to at least 16 or lower speculation.tokens"
        ),
    )


@pytest.mark.parametrize(
    ("recipe", "needed"),
    [
        pytest.param(
            {"speculation": DFLASH, "batching": {"maxSequences": 64, "maxBatchedTokens": 512}}, 1024, id="many drafts"
        ),
        pytest.param(
            {"speculation": {"method": "ngram", "tokens": 64}, "batching": {"maxSequences": 1, "maxBatchedTokens": 64}},
            65,
            id="one long guess",
        ),
    ],
)
def test_a_step_without_room_for_all_guesses_is_said(recipe, needed: int):
    answer = resolved(spec__recipe=recipe)
    assert answer.accepted
    (crowded,) = (drop for drop in answer.dropped if "sequences" in drop.what)
    assert f"raise it to {needed} " in crowded.why


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        pytest.param(16, {"spec__model__shape": shape(attentionHeads=80, kvHeads=10)}, id="key heads"),
        pytest.param(
            64, {"spec__model__shape": shape(), "spec__recipe": {"parallelism": {"pipeline": 64}}}, id="layers"
        ),
        pytest.param(1, {"spec__model__name": "Qwen/Qwen3-8B-FP8", "spec__recipe": {"quantization": "int8"}}, id="fp8"),
        pytest.param(1, {"spec__recipe": {"quantization": "mxfp4"}}, id="mxfp4 without a shape"),
        pytest.param(1, {"spec__model__shape": shape(), "spec__recipe": {"quantization": "mxfp4"}}, id="mxfp4 dense"),
        pytest.param(1, {"spec__recipe": {"quantization": "fp8", "kvCache": {"dtype": "fp8_e5m2"}}}, id="fp8_e5m2"),
        pytest.param(2, {"spec__recipe": {"speculation": DFLASH, "parallelism": {"pipeline": 2}}}, id="stages"),
        pytest.param(1, {"spec__model__shape": shape(parametersMillions=70000)}, id="memory"),
        pytest.param(
            1,
            {"spec__model__shape": shape(), "spec__model__contextTokens": 1_000_000},
            id="context",
        ),
    ],
)
def test_what_only_fails_while_loading_names_its_source(count: int, changes):
    (reason,) = resolved(count=count, **changes).reasons
    assert reason.endswith(")")
    assert " (source: vLLM" in reason


MTP = {"speculation": {"method": "mtp", "tokens": 3}}


@pytest.mark.parametrize(
    ("facts", "changes", "sentence"),
    [
        pytest.param({"mtpLayers": 0}, {"spec__recipe": MTP}, "model.shape.mtpLayers is 0; use another", id="no mtp"),
        pytest.param(
            {"mtpLayers": 2},
            {"spec__recipe": MTP},
            "tokens 3 is no multiple of model.shape.mtpLayers 2",
            id="mtp 3 of 2",
        ),
        pytest.param({"mtpLayers": 1}, {"spec__recipe": MTP}, None, id="mtp 3 of 1"),
        pytest.param({}, {"spec__recipe": MTP}, None, id="mtp unknown"),
        pytest.param(
            {"latentAttention": True, "kvHeads": 1, "headDim": 576},
            {"spec__recipe": {"kvCache": {"dtype": "fp8_e5m2"}}},
            "fp8_e5m2 is read by no kernel for latent attention",
            id="latent fp8_e5m2",
        ),
        pytest.param(
            {"quantization": "compressed-tensors", "weightBits": 8},
            {"spec__recipe": {"quantization": "int8"}},
            "recipe.quantization int8: model.name Qwen/Qwen3-8B is a quantized checkpoint already",
            id="quantized whatever its name",
        ),
        pytest.param(
            {"weightBits": 16},
            {"spec__model__name": "me/not-fp8", "spec__recipe": {"quantization": "int8"}},
            None,
            id="not quantized whatever its name",
        ),
        pytest.param(
            {"maxContextTokens": 16384},
            {},
            "model.contextTokens 32768 is above model.shape.maxContextTokens 16384",
            id="context",
        ),
        pytest.param(
            {"maxContextTokens": 16384},
            {"spec__engine": {"args": ["--hf-overrides", '{"rope_scaling":{}}']}},
            None,
            id="context scaled",
        ),
        pytest.param(
            {"maxContextTokens": 16384},
            {"spec__engine": {"env": [{"name": "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "value": "1"}]}},
            None,
            id="context allowed",
        ),
    ],
)
def test_facts_of_the_shape_refuse_what_vllm_would(facts, changes, sentence: str | None):
    reasons = resolved("nvidia-h200-141gb", **{"spec__model__shape": shape(**facts), **changes}).reasons
    assert len(reasons) == (sentence is not None)
    assert all(sentence in reason and " (source: vLLM" in reason for reason in reasons if sentence)


@pytest.mark.parametrize(
    ("gpu", "recipe", "accepted"),
    [
        pytest.param("nvidia-t4-16gb", {"quantization": "fp8"}, False, id="quantized on a T4"),
        pytest.param("nvidia-t4-16gb", {}, True, id="not quantized"),
        pytest.param("nvidia-l4-24gb", {"quantization": "fp8"}, True, id="with bfloat16"),
    ],
)
def test_a_model_that_overflows_in_float16(gpu: str, recipe, accepted: bool):
    facts = shape(parametersMillions=1000, float16Overflows=True)
    answer = resolved(gpu, spec__model__shape=facts, spec__model__contextTokens=4096, spec__recipe=recipe)
    assert answer.accepted is accepted
    assert all("has no bfloat16" in reason for reason in answer.reasons)


def test_a_cache_of_latents_holds_more_than_one_of_keys_and_values():
    """DeepSeek-V3's cache takes 576 x 61 elements a token; counted as keys and values it would be twice that."""
    changes = {"parametersMillions": 1000, "layers": 61, "attentionHeads": 128, "kvHeads": 1, "headDim": 576}
    pools = [pool_manifest(spec__model__shape=shape(**changes, latentAttention=latent)) for latent in (False, True)]
    plain, latent = (replica_for(InferencePool.model_validate(pool)) for pool in pools)
    assert plain
    assert latent
    assert latent.shape.kv_bytes_per_token == plain.shape.kv_bytes_per_token / 2 == 61 * 576 * 2
