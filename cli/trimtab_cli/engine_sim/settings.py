"""From the command line to what the simulator runs with, with vLLM's defaults and refusals."""

import argparse
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from trimtab_cli.engine_sim.arguments import ArgumentError, parse
from trimtab_cli.engine_sim.engine import EngineConfig
from trimtab_cli.engine_sim.presets import context_tokens, resolve_shape
from trimtab_cli.engine_sim.speculation import METHODS, NO_SPECULATION, Speculation
from trimtab_crds.accelerators import Accelerator, accelerator
from trimtab_crds.capacity import ModelShape, Replica
from trimtab_crds.vllmflags import known_flags

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)([kKmMgG]?)$")
_UNITS = {"": 1, "k": 1e3, "K": 2**10, "m": 1e6, "M": 2**20, "g": 1e9, "G": 2**30}
#: Bits of one cache entry for `--kv-cache-dtype`; types that are not named here keep 16.
_KV_BITS = (("nvfp4", 4), ("4bit", 4), ("int4", 4), ("3bit", 3), ("fp8", 8), ("int8", 8), ("k8v4", 6))
_WEIGHT_BITS = (("fp4", 4), ("awq", 4), ("gptq", 4), ("fp8", 8), ("int8", 8), ("mxfp8", 8))
_ROLES = ("kv_producer", "kv_both", "kv_consumer")
#: Fields of vLLM's KVTransferConfig.
_TRANSFER_FIELDS = frozenset(
    (
        *("kv_connector", "engine_id", "kv_buffer_device", "kv_role", "kv_port", "kv_connector_extra_config"),
        *("kv_connector_module_path", "enable_permute_local_kv", "kv_load_failure_policy"),
    )
)
#: Flags of vLLM that the simulation follows; the others are checked, accepted and named at the start.
FOLLOWED = frozenset(
    (
        "model_tag",
        "model",
        "served_model_name",
        "api_key",
        "host",
        "port",
        "reasoning_parser",
        "shutdown_timeout",
        "enable_request_id_headers",
        "enable_prompt_tokens_details",
        "override_generation_config",
        "default_chat_template_kwargs",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "max_num_queued_reqs",
        "max_num_queued_tokens",
        "block_size",
        "enable_prefix_caching",
        "quantization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "num_gpu_blocks_override",
        "tensor_parallel_size",
        "data_parallel_size",
        "prefill_context_parallel_size",
        "pipeline_parallel_size",
        "speculative_config",
        "spec_method",
        "spec_model",
        "spec_tokens",
        "kv_transfer_config",
    )
)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Exchange of caches with other engines (`--kv-transfer-config` with vLLM's NixlConnector)."""

    engine_id: str
    host: str
    port: int
    tensor: int = 1
    recompute: bool = False
    """What cannot be fetched is computed here, instead of an error."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the simulated server runs with."""

    model: str
    served_names: tuple[str, ...]
    host: str
    port: int
    engine: EngineConfig
    max_model_len: int
    api_keys: tuple[str, ...] = ()
    reasoning_parser: str | None = None
    default_thinking: bool = True
    request_id_headers: bool = False
    prompt_tokens_details: bool = False
    max_new_tokens: int | None = None
    shutdown_timeout_seconds: float = 0.0
    startup_seconds: float = 0.0
    seed: int = 0
    version: str = "0.32.0"
    transfer: Transfer | None = None
    without_effect: tuple[str, ...] = ()

    @property
    def can_budget(self) -> bool:
        """Whether thinking budgets work: they need to know where reasoning ends."""
        return self.reasoning_parser is not None


def settings_from(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings of a command line.

    Raises ArgumentError that names the flag, the value and the fix, in vLLM's words where it has some.
    """
    args = parse(argv)
    try:
        return _settings(args, environ)
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(str(error)) from error


def _settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    model = args.model_tag or args.model
    if not model:
        raise ArgumentError("no MODEL; name one as in `vllm serve MODEL`: a Hugging Face id or a folder")
    names = tuple(args.served_model_name or [model])
    keys = tuple(args.api_key or filter(None, [environ.get("VLLM_API_KEY")]))
    engine, max_model_len = _engine(args, model)
    generation = _document("--override-generation-config", args.override_generation_config)
    template = _document("--default-chat-template-kwargs", args.default_chat_template_kwargs)
    return Settings(
        model=model,
        served_names=names,
        host=args.host or "0.0.0.0",  # noqa: S104 - vLLM's default: all interfaces
        port=_within("--port", args.port if args.port is not None else 8000, 0, 65535),
        engine=engine,
        max_model_len=max_model_len,
        api_keys=keys,
        reasoning_parser=_parser_name(args.reasoning_parser),
        default_thinking=template.get("enable_thinking") is not False,
        request_id_headers=args.enable_request_id_headers is True,
        prompt_tokens_details=args.enable_prompt_tokens_details is True,
        max_new_tokens=generation.get("max_new_tokens"),
        shutdown_timeout_seconds=float(args.shutdown_timeout or 0),
        startup_seconds=_at_least_zero("--sim-startup-seconds", args.sim_startup_seconds),
        seed=args.sim_seed,
        version=known_flags().version,
        transfer=_transfer(args, environ),
        without_effect=_without_effect(args),
    )


def _transfer(args: argparse.Namespace, environ: Mapping[str, str]) -> Transfer | None:
    """As vLLM's KVTransferConfig reads it; None without a connector."""
    config = _document("--kv-transfer-config", args.kv_transfer_config)
    if unknown := sorted(set(config) - _TRANSFER_FIELDS):
        raise ArgumentError(
            f"--kv-transfer-config has no field {unknown[0]!r}; use {', '.join(sorted(_TRANSFER_FIELDS))}"
        )
    connector, role = config.get("kv_connector"), config.get("kv_role")
    if role is not None and role not in _ROLES:
        raise ArgumentError(f"Unsupported kv_role: {role}. Supported roles are {_ROLES}")
    if connector is None:
        return None
    if role is None:
        raise ArgumentError(f"Please specify kv_role when kv_connector is set, supported roles are {_ROLES}")
    if connector not in ("NixlConnector", "NixlPullConnector"):
        raise ArgumentError(f"--kv-transfer-config kv_connector {connector!r} is not simulated; use NixlConnector")
    policy = config.get("kv_load_failure_policy", "fail")
    if policy not in ("recompute", "fail"):
        raise ArgumentError(f"--kv-transfer-config kv_load_failure_policy is {policy!r}; use recompute or fail")
    port = environ.get("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600")
    if not port.isdecimal():
        raise ArgumentError(f"VLLM_NIXL_SIDE_CHANNEL_PORT is {port!r}; it must be a number")
    return Transfer(
        engine_id=str(config.get("engine_id") or uuid.uuid4()),
        host=environ.get("VLLM_NIXL_SIDE_CHANNEL_HOST", "localhost"),
        port=_within("VLLM_NIXL_SIDE_CHANNEL_PORT", int(port), 1, 65535),
        tensor=int(args.tensor_parallel_size or 1),
        recompute=policy == "recompute",
    )


def _without_effect(args: argparse.Namespace) -> tuple[str, ...]:
    """The flags of vLLM that were given and change nothing here."""
    given = (name for name, value in vars(args).items() if value is not None and not name.startswith("sim_"))
    return tuple(f"--{name.replace('_', '-')}" for name in given if name not in FOLLOWED)


def _engine(args: argparse.Namespace, model: str) -> tuple[EngineConfig, int]:
    gpu = accelerator(args.sim_accelerator)
    sequences, batched = _batching(args, gpu)
    replica = Replica(
        shape=_shape(args, model),
        accelerator=gpu,
        gpus=_within("--sim-gpus", _parallel_gpus(args) if args.sim_gpus is None else args.sim_gpus, 1, 10_000),
        max_sequences=sequences,
    )
    block = _within("--block-size", 16 if args.block_size is None else args.block_size, 1, 4096)
    capacity = _kv_capacity_tokens(args, replica, block)
    max_model_len = _max_model_len(args, model, capacity)
    config = EngineConfig(
        replica=replica,
        max_sequences=sequences,
        max_batched_tokens=batched,
        kv_capacity_tokens=capacity,
        max_queued_requests=_size("--max-num-queued-reqs", args.max_num_queued_reqs),
        max_queued_tokens=_size("--max-num-queued-tokens", args.max_num_queued_tokens),
        block_tokens=block,
        prefix_caching=args.enable_prefix_caching is not False,
        speculation=_speculation(args),
        time_scale=_above_zero("--sim-time-scale", args.sim_time_scale),
    )
    return config, max_model_len


def _shape(args: argparse.Namespace, model: str) -> ModelShape:
    shape = resolve_shape(args.sim_shape, model)
    return ModelShape(
        **{field: getattr(shape, field) for field in ModelShape.__dataclass_fields__}
        | {
            "weight_bits": _bits(_WEIGHT_BITS, args.quantization, shape.weight_bits),
            "kv_bits": _bits(_KV_BITS, args.kv_cache_dtype, shape.kv_bits),
        }
    )


def _bits(table: tuple[tuple[str, int], ...], name: str | None, default: int) -> int:
    return next((bits for part, bits in table if name and part in name), default)


def _parallel_gpus(args: argparse.Namespace) -> int:
    sizes = (
        args.tensor_parallel_size,
        args.pipeline_parallel_size,
        args.data_parallel_size,
        args.prefill_context_parallel_size,
    )
    return prod(int(size or 1) for size in sizes)


def _batching(args: argparse.Namespace, gpu: Accelerator) -> tuple[int, int]:
    """`--max-num-seqs` and `--max-num-batched-tokens`; vLLM's defaults depend on the GPU's memory."""
    if gpu.memory_gib >= 160:
        default = (1024, 16384)
    elif gpu.memory_gib >= 70 and "a100" not in gpu.name:
        default = (1024, 8192)
    else:
        default = (256, 2048)
    asked = default[0] if args.max_num_seqs is None else args.max_num_seqs
    sequences = _within("--max-num-seqs", asked, 1, 1 << 20)
    batched = _size("--max-num-batched-tokens", args.max_num_batched_tokens) or max(default[1], sequences)
    if batched < sequences:
        raise ArgumentError(
            f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs ({sequences}); "
            "raise --max-num-batched-tokens or lower --max-num-seqs"
        )
    return sequences, batched


def _kv_capacity_tokens(args: argparse.Namespace, replica: Replica, block: int) -> int:
    if args.num_gpu_blocks_override:
        return int(args.num_gpu_blocks_override) * block
    memory = _size("--kv-cache-memory-bytes", args.kv_cache_memory_bytes)
    tokens = int(memory / replica.shape.kv_bytes_per_token) if memory else replica.kv_capacity_tokens
    if tokens < block:
        raise ArgumentError(
            f"No available memory for the cache blocks: the model's weights take "
            f"{replica.shape.weight_bytes / 2**30:.1f} GiB of {replica.gpus} x {replica.accelerator.name}; "
            "use more GPUs (--tensor-parallel-size), a larger one (--sim-accelerator) or --quantization"
        )
    return tokens


def _max_model_len(args: argparse.Namespace, model: str, capacity: int) -> int:
    asked = args.max_model_len
    if asked in ("auto", "-1"):
        return min(context_tokens(model), capacity)
    length = _size("--max-model-len", asked) or context_tokens(model)
    if length > capacity:
        raise ArgumentError(
            f"max seq len {length} is larger than the {capacity} tokens that fit into the KV cache; "
            "lower --max-model-len, or use --kv-cache-dtype fp8 or more GPUs"
        )
    return length


def _speculation(args: argparse.Namespace) -> Speculation:
    config = _document("--speculative-config", args.speculative_config)
    method = config.get("method", args.spec_method)
    model = str(config.get("model", args.spec_model) or "")
    tokens = config.get("num_speculative_tokens", args.spec_tokens)
    if not config and method is None and tokens is None:
        return NO_SPECULATION
    if method is None:
        method = next(
            (name for name in ("dflash", "dspark", "eagle3", "eagle") if name in model.lower()), "draft_model"
        )
    if method not in METHODS:
        raise ArgumentError(f"--speculative-config method {method!r} is not simulated; use one of {', '.join(METHODS)}")
    if not isinstance(tokens, int) or tokens < 1:
        raise ArgumentError(f"--speculative-config num_speculative_tokens is {tokens!r}; give a number of 1 or more")
    acceptance, cost = METHODS[method]
    if args.sim_acceptance is not None:
        acceptance = args.sim_acceptance
    if not 0 <= acceptance <= 1:
        raise ArgumentError(f"--sim-acceptance is {acceptance}; it is a probability, 0 to 1")
    rows = tuple(
        (int(low), int(high), int(k)) for low, high, k in config.get("num_speculative_tokens_per_batch_size", ())
    )
    return Speculation(tokens, acceptance, cost, rows)


def _parser_name(name: str | None) -> str | None:
    known = known_flags().reasoning_parsers
    if name and name not in known:
        raise ArgumentError(f"invalid reasoning parser: {name} (chose from {{ {','.join(known)} }})")
    return name or None


def _document(flag: str, text: str | None) -> dict[str, Any]:
    """A JSON flag; empty when absent."""
    try:
        document = json.loads(text) if text else {}
    except ValueError as error:
        raise ArgumentError(f"{flag} {text!r} is not JSON ({error}); quote it as one JSON object") from error
    if not isinstance(document, dict):
        raise ArgumentError(f"{flag} {text!r} is not a JSON object; give one, such as {{}}")
    return document


def _size(flag: str, text: str | None) -> int | None:
    """A number with vLLM's suffixes (1k is 1000, 1K is 1024); None when absent."""
    if text is None:
        return None
    match = _SIZE.match(str(text))
    if not match:
        raise ArgumentError(f"{flag} {text!r} is not a number; write 4096, 4k or 4K")
    return int(float(match[1]) * _UNITS[match[2]])


def _within(flag: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ArgumentError(f"{flag} is {value}; it must be within {low} to {high}")
    return value


def _above_zero(flag: str, value: float) -> float:
    if not value > 0:
        raise ArgumentError(f"{flag} is {value}; it must be above 0")
    return value


def _at_least_zero(flag: str, value: float) -> float:
    if not value >= 0:
        raise ArgumentError(f"{flag} is {value}; it must be at least 0")
    return value
