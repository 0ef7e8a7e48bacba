"""The command line of the simulated engine: what of vLLM's it honours, and what it refuses in which words."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab_cli.engine_sim import main
from trimtab_cli.engine_sim.arguments import ArgumentError
from trimtab_cli.engine_sim.presets import PRESETS, resolve_shape
from trimtab_cli.engine_sim.settings import FOLLOWED, Settings, settings_from
from trimtab_crds.vllmflags import known_flags

MODEL = "Qwen/Qwen3-8B"


def parsed(line: str, model: str = MODEL, **environ: str) -> Settings:
    return settings_from([*filter(None, [model]), *line.split()], environ)


def test_defaults_are_vllms():
    settings = parsed("")
    assert (settings.host, settings.port, settings.served_names) == ("0.0.0.0", 8000, (MODEL,))
    assert (settings.engine.max_sequences, settings.engine.max_batched_tokens) == (1024, 8192)
    assert (settings.engine.max_queued_requests, settings.engine.prefix_caching) == (None, True)
    assert (settings.shutdown_timeout_seconds, settings.api_keys, settings.can_budget) == (0, (), False)
    assert (settings.max_model_len, settings.engine.block_tokens) == (32_768, 16)


HONOURED = {
    "--port 9001": ("port", 9001),
    "--served-model-name a b": ("served_names", ("a", "b")),
    "--api-key k1 k2": ("api_keys", ("k1", "k2")),
    "--max-model-len 1k": ("max_model_len", 1000),
    "--max-model-len 1K": ("max_model_len", 1024),
    "--max-model-len auto": ("max_model_len", 32_768),
    "--max_model_len=2048": ("max_model_len", 2048),
    "--shutdown-timeout 60": ("shutdown_timeout_seconds", 60.0),
    "--reasoning-parser deepseek_r1": ("reasoning_parser", "deepseek_r1"),
    "--reasoning-parser=": ("reasoning_parser", None),
    "--enable-request-id-headers": ("request_id_headers", True),
    "--enable-prompt-tokens-details": ("prompt_tokens_details", True),
    '--default-chat-template-kwargs {"enable_thinking":false}': ("default_thinking", False),
    '--override-generation-config {"max_new_tokens":99}': ("max_new_tokens", 99),
    "--sim-startup-seconds 2.5": ("startup_seconds", 2.5),
    "--sim-seed 7": ("seed", 7),
}


@pytest.mark.parametrize(("line", "expected"), HONOURED.items(), ids=HONOURED)
def test_flags_of_the_server(line: str, expected: tuple[str, object]):
    name, value = expected
    assert getattr(parsed(line), name) == value


ENGINE = {
    "--max-num-seqs 7": ("max_sequences", 7),
    "--max-num-batched-tokens 4k": ("max_batched_tokens", 4000),
    "--max-num-queued-reqs 0": ("max_queued_requests", 0),
    "--max-num-queued-tokens 9": ("max_queued_tokens", 9),
    "--block-size 32": ("block_tokens", 32),
    "--no-enable-prefix-caching": ("prefix_caching", False),
    "--num-gpu-blocks-override 4000": ("kv_capacity_tokens", 64_000),
    "--sim-time-scale 20": ("time_scale", 20.0),
}


@pytest.mark.parametrize(("line", "expected"), ENGINE.items(), ids=ENGINE)
def test_flags_of_the_scheduler(line: str, expected: tuple[str, object]):
    name, value = expected
    assert getattr(parsed(line).engine, name) == value


@pytest.mark.parametrize(
    ("line", "gpus"),
    [
        ("", 1),
        ("-tp 2", 2),
        ("-tp=2 -pp 3", 6),
        ("-tp 2 -dp 2 -pcp 2", 8),
        ("--tensor-parallel-size 2 --sim-gpus 8", 8),
    ],
)
def test_gpus_follow_the_parallelism(line: str, gpus: int):
    assert parsed(line).engine.replica.gpus == gpus


@pytest.mark.parametrize(
    ("line", "weight_bits", "kv_bits"),
    [
        ("", 16, 16),
        ("--quantization fp8", 8, 16),
        ("-q modelopt_fp4 --kv-cache-dtype fp8_e5m2", 4, 8),
        ("--kv-cache-dtype nvfp4", 16, 4),
    ],
)
def test_quantization_narrows_weights_and_cache(line: str, weight_bits: int, kv_bits: int):
    shape = parsed(line).engine.replica.shape
    assert (shape.weight_bits, shape.kv_bits) == (weight_bits, kv_bits)


def test_the_cache_follows_from_the_memory():
    plain = parsed("").engine.kv_capacity_tokens
    assert parsed("--kv-cache-dtype fp8").engine.kv_capacity_tokens == pytest.approx(2 * plain, abs=1)
    assert parsed("--sim-accelerator nvidia-h200-141gb").engine.kv_capacity_tokens > plain
    small = parsed("--kv-cache-memory-bytes 1G --max-model-len 4096").engine
    assert small.kv_capacity_tokens == int(1e9 / 147_456) or small.kv_capacity_tokens == 2**30 // 147_456


@pytest.mark.parametrize(
    ("gpu", "sequences", "tokens"),
    [("nvidia-b200-180gb", 1024, 16384), ("nvidia-a100-80gb", 256, 2048), ("nvidia-l4-24gb", 256, 2048)],
)
def test_batching_defaults_depend_on_the_gpu(gpu: str, sequences: int, tokens: int):
    engine = parsed(f"--sim-accelerator {gpu} --max-model-len 2048").engine
    assert (engine.max_sequences, engine.max_batched_tokens) == (sequences, tokens)


SPECULATION = {
    '--speculative-config {"method":"ngram","num_speculative_tokens":3}': (3, 0.30),
    "--speculative-config.method eagle3 --speculative-config.num_speculative_tokens 2": (2, 0.72),
    "-sc.method=mtp -sc.num_speculative_tokens=1": (1, 0.75),
    "--spec-method dflash --spec-tokens 15": (15, 0.80),
    '--speculative-config {"model":"z-lab/Qwen3-8B-DFlash","num_speculative_tokens":15}': (15, 0.80),
    "--spec-method ngram --spec-tokens 2 --sim-acceptance 0.9": (2, 0.9),
}


@pytest.mark.parametrize(("line", "expected"), SPECULATION.items(), ids=SPECULATION)
def test_speculation(line: str, expected: tuple[int, float]):
    speculation = parsed(line).engine.speculation
    assert (speculation.tokens, speculation.acceptance) == expected


def test_speculation_by_batch_size():
    config = {"method": "mtp", "num_speculative_tokens": 3}
    config["num_speculative_tokens_per_batch_size"] = [[1, 64, 3], [65, 9999, 0]]
    settings = settings_from([MODEL, "--speculative-config", json.dumps(config)], {})
    assert settings.engine.speculation.by_batch == ((1, 64, 3), (65, 9999, 0))


def test_the_api_key_may_come_from_the_environment():
    assert parsed("", VLLM_API_KEY="k").api_keys == ("k",)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("-O3", ("--optimization-level",)),
        ("-O 2", ("--optimization-level",)),
        ("--enforce-eager --dtype bfloat16", ("--dtype", "--enforce-eager")),
        ("-cc.mode=3", ("--compilation-config",)),
        ("--no-async-scheduling", ("--async-scheduling",)),
    ],
)
def test_other_flags_of_vllm_are_accepted_and_named(line: str, names: tuple[str, ...]):
    settings = parsed(line)
    assert sorted(settings.without_effect) == sorted(names)
    assert replace(settings, without_effect=()) == parsed("")


def test_the_flags_that_are_followed_are_vllms():
    known = {name.lstrip("-").replace("-", "_") for row in known_flags().flags for name in row["names"]}
    assert FOLLOWED - known == {"model_tag"}


REFUSED = {
    "unknown": ("--max-num-seq 4", "unrecognized arguments: --max-num-seq 4; `trimtab engine-sim --help` and"),
    "abbreviated": ("--served-model x", "unrecognized arguments: --served-model x"),
    "own-unknown": ("--sim-speed 4", "unrecognized arguments: --sim-speed 4"),
    "no-number": ("--max-num-seqs many", "argument --max-num-seqs: invalid int value: 'many'"),
    "choice": ("--kv-cache-dtype fp7", "argument --kv-cache-dtype: invalid choice: 'fp7'"),
    "parser": ("--reasoning-parser qwen4", "invalid reasoning parser: qwen4 (chose from { cohere_command3,"),
    "length": ("--max-model-len many", "--max-model-len 'many' is not a number; write 4096, 4k or 4K"),
    "window": ("--max-model-len 900000", "max seq len 900000 is larger than the"),
    "memory": ("--sim-shape llama-3.3-70b", "No available memory for the cache blocks: the model's weights take 131.4"),
    "batch": (
        "--max-num-seqs 64 --max-num-batched-tokens 32",
        "max_num_batched_tokens (32) must be greater than or equal to max_num_seqs (64); raise",
    ),
    "json": ("--speculative-config {", "--speculative-config '{' is not JSON"),
    "object": ("--speculative-config [1]", "--speculative-config '[1]' is not a JSON object"),
    "method": (
        "--spec-method medusa --spec-tokens 2",
        "--speculative-config method 'medusa' is not simulated; use one",
    ),
    "tokens": (
        "--spec-method ngram",
        "--speculative-config num_speculative_tokens is None; give a number of 1 or more",
    ),
    "acceptance": ("--spec-method ngram --spec-tokens 2 --sim-acceptance 2", "--sim-acceptance is 2.0; it is a prob"),
    "port": ("--port 70000", "--port is 70000; it must be within 0 to 65535"),
    "sequences": ("--max-num-seqs 0", "--max-num-seqs is 0; it must be within 1 to"),
    "gpus": ("--sim-gpus 0", "--sim-gpus is 0; it must be within 1 to"),
    "block": ("--block-size 0", "--block-size is 0; it must be within 1 to 4096"),
    "scale": ("--sim-time-scale 0", "--sim-time-scale is 0.0; it must be above 0"),
    "startup": ("--sim-startup-seconds -1", "--sim-startup-seconds is -1.0; it must be at least 0"),
    "gpu": ("--sim-accelerator h100", "accelerator 'h100' is not in the catalogue; use one of nvidia-t4-16gb"),
    "shape": ("--sim-shape nothing", "--sim-shape 'nothing' is no preset, file or JSON object; use one of qwen3-0.6b"),
}


@pytest.mark.parametrize(("line", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_flag_value_and_fix(line: str, message: str):
    with pytest.raises(ArgumentError) as refused:
        parsed(line)
    assert str(refused.value).startswith(message)


def test_a_model_is_needed():
    with pytest.raises(ArgumentError, match="no MODEL; name one as in `vllm serve MODEL`"):
        parsed("--port 1", model="")


def test_the_command_reports_a_wrong_flag_in_one_line(capsys: pytest.CaptureFixture[str]):
    assert main([MODEL, "--bogus"]) == 2
    assert capsys.readouterr().err.startswith("trimtab engine-sim: unrecognized arguments: --bogus")


def test_help_shows_the_simulators_own_flags(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--sim-time-scale" in shown
    assert "example: trimtab engine-sim" in shown
    assert "--kv-cache-dtype" not in shown


def test_the_list_of_flags_names_its_version():
    flags = known_flags()
    names = {name for row in flags.flags for name in row["names"]}
    assert flags.version == "0.32.0"
    assert len(flags.flags) > 300
    assert {"--served-model-name", "--no-enable-prefix-caching", "--max-num-queued-reqs", "-tp"} <= names
    assert "qwen3" in flags.reasoning_parsers


# --- shapes --------------------------------------------------------------------------------------------------------

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 2048,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b"),
        ("Qwen/Qwen3-30B-A3B-FP8", "qwen3-30b-a3b"),
        ("somebody/else", "qwen3-8b"),
    ],
)
def test_the_models_name_chooses_a_preset(model: str, preset: str):
    assert resolve_shape(None, model) == PRESETS[preset]


def test_a_folder_brings_its_own_shape_and_window(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    settings = parsed("", model=str(tmp_path))
    assert settings.engine.replica.shape.layers == 2
    assert settings.max_model_len == 4096
    assert resolve_shape(str(tmp_path), "x") == resolve_shape(str(tmp_path / "config.json"), "x")


def test_a_pools_shape_may_be_given_inline():
    shape = resolve_shape(
        '{"parametersMillions": 8030, "activeParametersMillions": 3000, "layers": 32, "attentionHeads": 32, '
        '"kvHeads": 8, "headDim": 128}',
        "x",
    )
    assert (shape.parameters, shape.active_parameters, shape.kv_heads) == (8_030_000_000, 3_000_000_000, 8)


def test_a_broken_file_is_named(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text('{"num_hidden_layers": 2}')
    with pytest.raises(ValueError, match=f"--sim-shape {path}: config.json has no whole number hidden_size"):
        resolve_shape(str(path), "x")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_shapes_that_exist(preset: str):
    shape = PRESETS[preset]
    named = re.search(r"(\d+(?:\.\d+)?)b", preset)
    assert shape.parameters >= shape.active_parameters
    assert named is None or shape.parameters / 1e9 == pytest.approx(float(named[1]), rel=0.08)
