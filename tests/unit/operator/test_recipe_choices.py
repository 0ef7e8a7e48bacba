"""What presets choose, what `auto` takes, and the flags of overrides."""

import json
from typing import Any

import pytest

from support.manifests import pool_manifest, shape
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Preset
from trimtab_operator.core.recipe import Resolution, resolve

OWN_IMAGE = {"image": "registry.example.com/vllm-with-arctic:1"}
LATENT = shape(latentAttention=True, kvHeads=1, headDim=576, mtpLayers=1, experts=64)
MOE = shape(experts=64)


def resolved(gpu: str = "nvidia-h100-80gb", count: int = 1, **changes: Any) -> Resolution:
    manifest = pool_manifest(spec__accelerator={"name": gpu, "count": count}, **changes)
    return resolve(InferencePool.model_validate(manifest))


def value(answer: Resolution, flag: str) -> str | None:
    return answer.flags[answer.flags.index(flag) + 1] if flag in answer.flags else None


def guesses(answer: Resolution) -> dict[str, Any]:
    return json.loads(value(answer, "--speculative-config") or "{}")


@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize("gpu", ["nvidia-t4-16gb", "nvidia-l4-24gb", "nvidia-h100-80gb", "nvidia-b200-180gb"])
def test_every_preset_is_accepted_everywhere(preset: Preset, gpu: str):
    assert resolved(gpu, spec__recipe={"preset": preset.value}).reasons == ()


@pytest.mark.parametrize(
    ("preset", "engine", "method", "by_batch"),
    [
        pytest.param("code", {}, "ngram", [[1, 8, 4], [9, 32, 2], [33, 8192, 0]], id="code"),
        pytest.param("agentic", OWN_IMAGE, "suffix", [[1, 32, 24], [33, 128, 8], [129, 8192, 0]], id="agentic"),
        pytest.param("agentic", {}, "ngram", [[1, 8, 4], [9, 32, 2], [33, 8192, 0]], id="agentic without suffix"),
    ],
)
def test_guesses_of_presets_fade_under_load(
    preset: str, engine: dict[str, str], method: str, by_batch: list[list[int]]
):
    answer = resolved(spec__recipe={"preset": preset}, spec__engine=engine)
    assert guesses(answer)["method"] == method
    assert guesses(answer)["num_speculative_tokens_per_batch_size"] == by_batch
    assert guesses(answer)["num_speculative_tokens"] == by_batch[0][2]
    replaced = [drop for drop in answer.dropped if "suffix" in drop.what]
    assert bool(replaced) is (preset == "agentic" and not engine)


def test_a_presets_guesses_can_be_switched_off():
    assert guesses(resolved(spec__recipe={"preset": "code", "speculation": {"method": "none"}})) == {}


def test_high_stakes_changes_no_number_and_says_where_the_checkpoint_did():
    plain = resolved(spec__recipe={"preset": "high-stakes"})
    assert not {"--quantization", "--kv-cache-dtype", "--speculative-config"} & set(plain.flags)
    assert plain.dropped == ()
    (drop,) = resolved(spec__recipe={"preset": "high-stakes"}, spec__model__name="Qwen/Qwen3-8B-FP8").dropped
    assert drop.why == "model.name Qwen/Qwen3-8B-FP8 has weights of 8 bits; name the unquantized checkpoint"


@pytest.mark.parametrize("preset", ["edge", "memory-saver"])
def test_weights_are_not_quantized_where_float32_is_left(preset: str):
    facts = shape(parametersMillions=1000, float16Overflows=True)
    answer = resolved("nvidia-t4-16gb", spec__recipe={"preset": preset}, spec__model__shape=facts)
    assert answer.accepted
    assert "--quantization" not in answer.flags
    assert any("float32 excludes quantized weights" in drop.why for drop in answer.dropped)


@pytest.mark.parametrize(
    ("gpu", "changes", "preset", "why"),
    [
        pytest.param("nvidia-h100-80gb", {}, "balanced", "model.shape is not set", id="no shape"),
        pytest.param(
            "nvidia-l4-24gb",
            {"spec__model__shape": shape(parametersMillions=14000)},
            "memory-saver",
            "26.1 GiB",
            id="big",
        ),
        pytest.param(
            "nvidia-h200-141gb",
            {"spec__model__shape": shape(), "spec__model__contextTokens": 131072},
            "long-context",
            "131072",
            id="long",
        ),
        pytest.param(
            "nvidia-h100-80gb",
            {"spec__model__shape": shape(), "spec__recipe__expectedConcurrency": 4},
            "interactive",
            "recipe.expectedConcurrency is 4",
            id="few",
        ),
        pytest.param(
            "nvidia-h100-80gb",
            {"spec__model__shape": shape(), "spec__slo": {"timePerOutputTokenMilliseconds": 10}},
            "interactive",
            "slo.timePerOutputTokenMilliseconds 10 allows",
            id="tight target",
        ),
        pytest.param(
            "nvidia-h200-141gb",
            {"spec__model": {"name": "a/b", "shape": shape()}, "spec__slo": {"timePerOutputTokenMilliseconds": 500}},
            "throughput",
            "allows",
            id="loose target",
        ),
        pytest.param(
            "nvidia-h100-80gb",
            {"spec__model__shape": shape()},
            "reasoning",
            "model.reasoningParser is set",
            id="thinks",
        ),
        pytest.param(
            "nvidia-h100-80gb",
            {"spec__model": {"name": "a/b", "shape": shape()}, "spec__recipe__expectedConcurrency": 32},
            "balanced",
            "recipe.expectedConcurrency is 32",
            id="some",
        ),
    ],
)
def test_auto_asks_the_capacity_model(gpu: str, changes: dict[str, Any], preset: str, why: str):
    answer = resolved(gpu, **{"spec__recipe__preset": "auto", **changes})
    assert answer.preset == preset
    assert why in answer.preset_why
    without_load = {path: v for path, v in changes.items() if "expectedConcurrency" not in path}
    named = resolved(gpu, **{"spec__recipe__preset": preset, **without_load})
    assert answer.flags == named.flags
    assert named.preset_why == ""


def test_ranges_of_batch_sizes_reach_the_engine():
    by_batch = [{"from": 9, "to": 64, "tokens": 1}, {"from": 1, "to": 8, "tokens": 3}]
    answer = resolved(spec__recipe={"speculation": {"method": "mtp", "tokensByBatchSize": by_batch}})
    assert guesses(answer) == {
        "method": "mtp",
        "num_speculative_tokens": 3,
        "num_speculative_tokens_per_batch_size": [[1, 8, 3], [9, 64, 1]],
    }


def test_data_parallel_ranks_drop_the_ranges():
    recipe = {
        "preset": "code",
        "parallelism": {"data": 2, "expert": True},
    }
    answer = resolved(count=2, spec__recipe=recipe, spec__model__shape=MOE)
    assert answer.accepted
    assert "num_speculative_tokens_per_batch_size" not in guesses(answer)
    assert any(drop.what == "recipe.speculation.tokensByBatchSize" for drop in answer.dropped)


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [
        pytest.param({"quantization": "fp8_per_block"}, ["--quantization", "fp8_per_block"], id="fp8 per block"),
        pytest.param({"quantization": "mxfp8"}, ["--quantization", "mxfp8"], id="mxfp8"),
        pytest.param(
            {"kvCache": {"offloadGib": 64}},
            ["--kv-offloading-size", "64", "--kv-offloading-backend", "native"],
            id="offload",
        ),
        pytest.param(
            {"batching": {"longPrefillThreshold": 512}}, ["--long-prefill-token-threshold", "512"], id="chunks"
        ),
        pytest.param({"scheduling": "priority"}, ["--scheduling-policy", "priority"], id="priority"),
        pytest.param(
            {"lora": {"modules": [{"name": "a", "path": "/a"}, {"name": "b", "path": "org/b"}], "maxRank": 32}},
            ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "32", "--lora-modules", "a=/a", "b=org/b"],
            id="adapters",
        ),
    ],
)
def test_overrides_become_flags(recipe: dict[str, Any], flags: list[str]):
    answer = resolved(spec__recipe=recipe)
    start = answer.flags.index(flags[0])
    assert list(answer.flags[start : start + len(flags)]) == flags


def test_prompts_in_one_piece_get_steps_of_a_whole_context():
    answer = resolved(spec__recipe={"batching": {"chunkedPrefill": False}})
    assert "--no-enable-chunked-prefill" in answer.flags
    assert value(answer, "--max-num-batched-tokens") == "32768"


def test_sleep_needs_its_endpoints():
    (reason,) = resolved(spec__recipe={"sleepMode": True}).reasons
    assert "VLLM_SERVER_DEV_MODE" in reason
    env = [{"name": "VLLM_SERVER_DEV_MODE", "value": "1"}]
    assert "--enable-sleep-mode" in resolved(spec__recipe={"sleepMode": True}, spec__engine={"env": env}).flags


@pytest.mark.parametrize(
    ("count", "parallel", "model", "sentence"),
    [
        pytest.param(2, {"prefillContext": 2}, LATENT, None, id="pcp with latents"),
        pytest.param(2, {"prefillContext": 2}, shape(), "needs latent attention", id="pcp without"),
        pytest.param(8, {"tensor": 8, "decodeContext": 8}, LATENT, None, id="dcp with latents"),
        pytest.param(8, {"tensor": 8, "decodeContext": 2}, shape(), "splits copies of key heads", id="dcp, no copies"),
        pytest.param(16, {"tensor": 16, "decodeContext": 2}, shape(), None, id="dcp, copies"),
        pytest.param(
            4, {"tensor": 4, "decodeContext": 3}, LATENT, "use one of [1, 2, 4]", id="dcp that does not divide"
        ),
        pytest.param(
            4, {"tensor": 2, "prefillContext": 2, "decodeContext": 3}, LATENT, "use one of [1, 2, 4]", id="dcp over pcp"
        ),
        pytest.param(
            16,
            {"tensor": 16, "decodeContext": 2},
            shape(windowTokens=512, fullAttentionLayers=18),
            "does not split layers with a window",
            id="dcp, windows",
        ),
        pytest.param(1, {"expert": True}, shape(), "model.shape.experts is 0", id="experts of a dense model"),
        pytest.param(2, {"data": 2}, MOE, "raise replicas instead", id="whole copies"),
        pytest.param(2, {"data": 2, "expert": True}, MOE, None, id="data and experts"),
    ],
)
def test_parallelism_beyond_tensors(count: int, parallel: dict[str, Any], model: Any, sentence: str | None):
    reasons = resolved(count=count, spec__recipe={"parallelism": parallel}, spec__model__shape=model).reasons
    assert len(reasons) == (sentence is not None)
    assert all(sentence in reason for reason in reasons if sentence)


def test_context_parallelism_and_data_are_flags():
    parallel = {"tensor": 2, "prefillContext": 2, "decodeContext": 4, "data": 2, "expert": True}
    answer = resolved(count=8, spec__recipe={"parallelism": parallel}, spec__model__shape=LATENT)
    assert value(answer, "--prefill-context-parallel-size") == "2"
    assert value(answer, "--decode-context-parallel-size") == "4"
    assert value(answer, "--data-parallel-size") == "2"
    assert "--enable-expert-parallel" in answer.flags


@pytest.mark.parametrize(
    ("recipe", "changes", "sentence"),
    [
        pytest.param({"attention": "lazy"}, {}, "use recipe.preset long-context", id="lazy attention"),
        pytest.param({"attention": "ring"}, {}, "use recipe.parallelism.prefillContext", id="ring attention"),
        pytest.param({"attention": "byte-latent"}, {}, "use a model with a tokenizer", id="byte-latent"),
        pytest.param({"kvCache": {"offloadGib": 8, "offloadBackend": "lmcache"}}, {}, "set it to native", id="lmcache"),
        pytest.param({"kvCache": {"offloadBackend": "lmcache"}}, {}, "without offloadGib", id="lmcache of nothing"),
        pytest.param(
            {"batching": {"chunkedPrefill": False, "maxBatchedTokens": 2048}}, {}, "raise it or set", id="small steps"
        ),
        pytest.param(
            {"batching": {"chunkedPrefill": False}},
            {"spec__model": {"name": "a/b"}},
            "set model.contextTokens",
            id="steps",
        ),
        pytest.param(
            {"batching": {"longPrefillThreshold": 65536}}, {}, "above the context of 32768 tokens", id="threshold"
        ),
    ],
)
def test_what_has_no_effect_or_no_engine_is_refused(recipe: dict[str, Any], changes: dict[str, Any], sentence: str):
    (reason,) = resolved(spec__recipe=recipe, **changes).reasons
    assert sentence in reason


def test_linear_layers_need_chunks_beside_prefix_caching():
    recipe, linear = {"batching": {"chunkedPrefill": False}}, shape(fullAttentionLayers=9)
    (reason,) = resolved(spec__recipe=recipe, spec__model__shape=linear).reasons
    assert "set chunkedPrefill to true or prefixCaching to false" in reason
    assert resolved(spec__recipe=recipe | {"prefixCaching": False}, spec__model__shape=linear).accepted
    assert resolved(spec__recipe=recipe, spec__model__shape=shape()).accepted


@pytest.mark.parametrize(("sequences", "accepted"), [(1638, True), (1639, False)])
def test_adapters_need_room_for_all_guesses(sequences: int, accepted: bool):
    recipe = {
        "lora": {"modules": [{"name": "a", "path": "/a"}]},
        "speculation": {"method": "ngram", "tokens": 4},
        "batching": {"maxSequences": sequences, "maxBatchedTokens": 8192},
    }
    answer = resolved(spec__recipe=recipe)
    assert answer.accepted is accepted
    assert all("needs steps of 8195 tokens for 1639 sequences" in reason for reason in answer.reasons)


def test_prefill_context_takes_no_adapters_and_few_guesses():
    recipe = {
        "parallelism": {"prefillContext": 2},
        "lora": {"modules": [{"name": "a", "path": "/a"}]},
        "speculation": {"method": "ngram"},
    }
    lora, speculation = resolved(count=2, spec__recipe=recipe, spec__model__shape=LATENT).reasons
    assert "beside recipe.lora" in lora
    assert "use mtp or dspark" in speculation


def test_a_preset_leaves_its_guesses_out_beside_prefill_context():
    recipe = {"preset": "code", "parallelism": {"prefillContext": 2}}
    answer = resolved(count=2, spec__recipe=recipe, spec__model__shape=LATENT)
    assert answer.accepted
    assert guesses(answer) == {}
    assert any(drop.what == "recipe.preset code: speculation ngram" for drop in answer.dropped)


def test_decode_context_needs_kernels_that_merge_parts():
    recipe = {"parallelism": {"tensor": 8, "decodeContext": 8}, "kvCache": {"dtype": "fp8"}}
    (reason,) = resolved("nvidia-l40s-48gb", 8, spec__recipe=recipe, spec__model__shape=LATENT).reasons
    assert "needs FlashAttention" in reason


def test_no_kernel_merges_parts_of_an_e5m2_cache():
    recipe = {"parallelism": {"tensor": 16, "decodeContext": 2}, "kvCache": {"dtype": "fp8_e5m2"}}
    wide = shape(attentionHeads=96, kvHeads=8)
    (reason,) = resolved("nvidia-b300-288gb", 16, spec__recipe=recipe, spec__model__shape=wide).reasons
    assert "lacks for kvCache.dtype fp8_e5m2" in reason
