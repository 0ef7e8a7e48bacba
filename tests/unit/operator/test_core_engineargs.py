"""Arguments that would win over the recipe, in every spelling that vLLM's parser takes."""

import pytest

from trimtab_operator.core.engineargs import refused_args, unknown_args


@pytest.mark.parametrize(
    ("arg", "field"),
    [
        ("-tp", "recipe.parallelism.tensor"),
        ("-tp=2", "recipe.parallelism.tensor"),
        ("--tensor-parallel-size", "recipe.parallelism.tensor"),
        ("--tensor_parallel_size=2", "recipe.parallelism.tensor"),
        ("--tensor-par", "recipe.parallelism.tensor"),
        ("-pp", "recipe.parallelism.pipeline"),
        ("-dp=2", "recipe.parallelism.data"),
        ("-pcp", "recipe.parallelism.prefillContext"),
        ("-q", "recipe.quantization"),
        ("-qfp8", "recipe.quantization"),
        ("--quant=fp8", "recipe.quantization"),
        ("--kv-cache-dtype", "recipe.kvCache.dtype"),
        ("--max_num_seqs", "recipe.batching.maxSequences"),
        ("--speculative-config", "recipe.speculation"),
        ("--speculative-config.method", "recipe.speculation"),
        ("--speculative_config.num_speculative_tokens=3", "recipe.speculation"),
        ("--spec-method=ngram", "recipe.speculation.method"),
        ("--no-enable-prefix-caching", "recipe.prefixCaching"),
        ("--disable-prefix-caching", "recipe.prefixCaching"),
        ("--enable_prefix_caching", "recipe.prefixCaching"),
        ("--performance-mode=throughput", "recipe.preset"),
        ("--served-model-name", "model.servedName"),
        ("--max-model-len=1K", "model.contextTokens"),
        ("--reasoning-parser", "model.reasoningParser"),
        ("--shutdown-timeout=0", "drain.deadlineSeconds"),
    ],
)
def test_what_the_recipe_owns_is_refused_with_the_field_to_use(arg: str, field: str):
    (sentence,) = refused_args([arg])
    assert sentence.startswith(f"engine.args {arg} sets -")
    assert sentence.endswith(f"which the recipe owns; remove it and use {field}")


@pytest.mark.parametrize(
    ("arg", "why"),
    [
        ("--port=9", "probes and routers need the engine on port 8000"),
        ("--api-key", "routers send no key and would get 401; restrict access with network.isolated"),
        ("--config=/x.yaml", "a file of flags can override the recipe; list the flags in engine.args"),
        ("--ssl-keyfile", "routers and probes speak plain HTTP inside the cluster"),
    ],
)
def test_what_would_break_probes_or_routers_is_refused_with_the_reason(arg: str, why: str):
    assert refused_args([arg]) == [f"engine.args {arg} is refused: {why}"]


@pytest.mark.parametrize(
    "args",
    [
        ["--enforce-eager"],
        ["--model-impl", "transformers"],
        ["--kv-cache-memory-bytes=64M"],
        ["--max-num-partial-prefills", "2"],
        ["--stream-interval", "-1"],
        ["--chat-template", "max-num-seqs"],
        ["-O3"],
        ["-ep"],
        ["--no-enable-log-requests"],
        ["--attention-backend", "FLASHINFER"],
        ["--config-format", "mistral"],
        ["--lora-modules", "name=path"],
    ],
    ids=lambda args: args[0],
)
def test_other_flags_of_vllm_pass(args: list[str]):
    assert refused_args(args) == []


def test_the_attention_backend_belongs_to_dflash_while_it_is_used():
    (sentence,) = refused_args(["--attention-backend=FLEX"], ["recipe.speculation.method dflash"])
    assert sentence.endswith("use recipe.speculation.method dflash")


@pytest.mark.parametrize(
    ("field", "arg", "owner"),
    [
        ("recipe.parallelism", "-ep", "recipe.parallelism.expert"),
        ("recipe.parallelism", "-dcp=2", "recipe.parallelism.decodeContext"),
        ("recipe.batching", "--no-enable-chunked-prefill", "recipe.batching.chunkedPrefill"),
        ("recipe.kvCache", "--kv-offloading-size=8", "recipe.kvCache.offloadGib"),
        ("recipe.scheduling", "--scheduling-policy=fcfs", "recipe.scheduling"),
        ("recipe.sleepMode", "--enable-sleep-mode", "recipe.sleepMode"),
        ("recipe.lora", "--lora-modules", "recipe.lora.modules"),
    ],
)
def test_some_flags_belong_to_a_field_only_where_it_is_set(field: str, arg: str, owner: str):
    assert refused_args([arg]) == []
    (sentence,) = refused_args([arg], [field])
    assert sentence.endswith(f"remove it and use {owner}")


def test_two_dashes_alone_would_hide_what_follows():
    (sentence,) = refused_args(["--", "--port"])[:1]
    assert sentence == "engine.args -- ends the list of flags, and what follows it would be lost; remove it"


@pytest.mark.parametrize(
    "arg",
    [
        "--stream-interval=2",
        "--stream_interval",
        "--stream-int",
        "-O3",
        "-cc.mode=3",
        "-cc",
        "2",
        "-1",
        "--kv-transfer-config.kv_role=kv_both",
    ],
)
def test_flags_that_vllm_has_in_every_spelling(arg: str):
    assert unknown_args([arg], "0.32.0") == []


@pytest.mark.parametrize(
    ("arg", "fix"),
    [
        ("--stream-intervall=2", "use --stream-interval or remove it"),
        ("--max_num_sequences", "use --max-num-seqs or remove it"),
        ("-zz", "remove it"),
    ],
)
def test_flags_that_vllm_lacks_are_refused_with_the_nearest(arg: str, fix: str):
    assert unknown_args([arg], "0.32.1") == [f"engine.args {arg} is no flag of vLLM 0.32.0; {fix}"]
    assert unknown_args([arg], "0.33.0") == [f"engine.args {arg} is no flag of vLLM 0.33.0; {fix}"]
    assert unknown_args([arg], "0.34.0") == []


def test_a_later_version_has_flags_of_its_own_and_still_reads_the_old_spelling():
    for arg in ("--disable-lora", "--no-enable-lora", "--no-disable-cascade-attn", "--watchdog-config={}"):
        assert unknown_args([arg], "0.33.0") == []
    assert unknown_args(["--watchdog-config={}"], "0.32.0")
