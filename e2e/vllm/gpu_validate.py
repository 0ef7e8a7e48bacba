"""Asks the installed vLLM whether it would serve a model with some flags on a GPU that is not there.

Run it with vLLM's Python. Every line of standard input is one question, every line of standard output one answer:

    {"id": 1, "model_dir": "/models/x", "argv": ["--kv-cache-dtype", "fp8"], "compute_capability": "9.0",
     "gpus": 8, "gib": 79.6, "name": "NVIDIA H100", "packages": []}
    {"id": 1, "stage": "ok", "message": "FLASH_ATTN", "sequences": 1024, "batched_tokens": 8192}

`model_dir` needs a config.json only; `packages` are optional Python packages that the engine's image has
(arctic_inference). `stage` says how far vLLM came:

    parse    its argument parser refused
    config   its configuration refused (`AsyncEngineArgs.create_engine_config`)
    backend  no attention backend of the GPU can serve one of the model's or the draft's kinds of layers
    ok       nothing refused; `message` lists the attention backends that it picked, `sequences` and `batched_tokens`
             are what one step may take

What vLLM decides while it loads weights or compiles is beyond this: kernels of quantized layers, whether a draft fits
its target, memory. Every tokenizer is one that knows every word. FlashInfer is not installed here, so backends of that
name are never picked; where the real image picks one, Triton's or FlashAttention's is valid too.

Import takes 10 s, a question 10 to 20 ms. vLLM remembers what it found out about its GPU in many places, so every GPU
has a process of its own, forked after the import; answers come in any order.
"""

import contextlib
import importlib.machinery
import io
import json
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TextIO

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
#: A whole answer is one write to a pipe: below PIPE_BUF (4096) it cannot mix with another process's.
LONGEST_MESSAGE = 3000
SINK_MODELS = frozenset({"gpt_oss"})


@dataclass(slots=True)
class Device:
    """The GPU that this process pretends to have; `gpus` is how many of them."""

    capability: tuple[int, int]
    gib: float
    name: str
    gpus: int = 1

    @property
    def sm(self) -> int:
        """Compute capability as vLLM's kernels write it: 90 for 9.0."""
        return self.capability[0] * 10 + self.capability[1]


class Pretence:
    """The pretended platform: installed once before vLLM is imported, its device chosen once in every fork."""

    def __init__(self) -> None:
        self._device: Device | None = None

    @property
    def device(self) -> Device:
        """The device; vLLM asking for it before one is chosen would keep an answer for all forks."""
        if self._device is None:
            raise RuntimeError("vLLM asked for the GPU while it was imported; choose the device before that import")
        return self._device

    def choose(self, device: Device) -> None:
        """Be that GPU from now on."""
        self._device = device

    def install(self) -> None:
        """Make vLLM see a CUDA platform with this device; nothing of vLLM may have asked for its platform before."""
        self._stub_kernels()
        from vllm import platforms

        setattr(platforms, "_current_platform", self._platform())  # noqa: B010 - vLLM has no public way
        self._pretend_triton()
        self._pretend_operations()
        _pretend_memory()
        _pretend_tokenizer()

    def _stub_kernels(self) -> None:
        for name in ("_C_stable_libtorch", "_qutlass_C", "_moe_C_stable_libtorch", "_moe_C"):
            _stub(f"vllm.{name}")
        flash_attention = {
            "flash_attn_varlen_func": _nothing,
            "get_scheduler_metadata": _nothing,
            "compile_flash_attn_varlen_func_from_specs": _nothing,
            "fa_version_unsupported_reason": _nothing,
            "FA2_AVAILABLE": True,
            "FA3_AVAILABLE": True,
            "is_fa_version_supported": self._has_flash_attention,
        }
        for name in ("vllm_flash_attn", "vllm_flash_attn.flash_attn_interface"):
            _stub(f"vllm.{name}", **flash_attention)

    def _has_flash_attention(self, version: int, *_: object, **__: object) -> bool:
        major = self.device.capability[0]
        return {2: major >= 8, 3: major == 9, 4: major in (9, 10)}.get(version, False)

    def _platform(self) -> Any:
        from vllm.platforms.cuda import NonNvmlCudaPlatform
        from vllm.platforms.interface import DeviceCapability

        def answer(ask: Callable[[], object]) -> Any:
            return classmethod(lambda _cls, *_args, **_kwargs: ask())

        answers = {
            "get_device_capability": answer(lambda: DeviceCapability(*self.device.capability)),
            "get_device_name": answer(lambda: self.device.name),
            "get_device_total_memory": answer(lambda: int(self.device.gib * 2**30)),
            "device_count": answer(lambda: self.device.gpus),
            "is_fully_connected": answer(lambda: True),
            "get_cuda_runtime_major": answer(lambda: 13),
            "num_compute_units": answer(lambda: 132),
            "import_kernels": answer(lambda: None),
            "is_pin_memory_available": answer(lambda: True),
            "is_integrated_gpu": answer(lambda: False),
            "log_warnings": answer(lambda: None),
            "is_cumem_allocator_available": lambda _self: True,
        }
        return type("PretendedCuda", (NonNvmlCudaPlatform,), answers)()

    def _pretend_triton(self) -> None:
        import vllm.config.vllm as vllm_config
        from vllm.triton_utils import triton

        def config(kwargs: Any = None, num_stages: int = 1, num_warps: int = 4, **_: object) -> types.SimpleNamespace:
            return types.SimpleNamespace(kwargs=kwargs or {}, num_stages=num_stages, num_warps=num_warps)

        triton.Config = config
        vllm_config.HAS_TRITON = True

    def _pretend_operations(self) -> None:
        import vllm._custom_ops as operations

        operations.cutlass_scaled_mm_supports_fp8 = lambda *_: self.device.sm >= 89
        operations.cutlass_scaled_mm_supports_block_fp8 = lambda *_: self.device.sm >= 90
        operations.cutlass_scaled_mm_supports_fp4 = lambda *_: self.device.sm >= 100
        operations.mxfp4_experts_quant_supported = lambda *_: self.device.sm >= 100


def _pretend_memory() -> None:
    """Some attention backends allocate a workspace on the GPU while they are imported."""
    import torch

    allocate = torch.empty

    def without_gpu(*size: Any, **options: Any) -> Any:
        if str(options.get("device", "")).startswith("cuda"):
            options["device"] = "meta"
        return allocate(*size, **options)

    torch.empty = without_gpu


def _stub(name: str, **attributes: object) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(attributes)
    sys.modules.setdefault(name, module)


def _nothing(*_: object, **__: object) -> None:
    return None


class _Vocabulary(dict[str, int]):
    """Has every word."""

    def __contains__(self, _word: object) -> bool:
        return True

    def __missing__(self, _word: str) -> int:
        return 1

    def get(self, word: str, _default: object = None) -> int:  # type: ignore[override]
        return self[word]


class _Tokenizer:
    """Knows every word as token 1: a model's folder has no tokenizer, and reasoning parsers look for their markers."""

    def get_vocab(self) -> _Vocabulary:
        return _Vocabulary()

    def encode(self, _text: str, **_options: object) -> list[int]:
        return [1]

    def __getattr__(self, name: str) -> Any:
        plural = name.endswith(("_tokens", "_ids"))
        return [] if plural and not name.startswith("convert") else lambda *_args, **_options: 1


def _pretend_tokenizer() -> None:
    from vllm.config import reasoning

    reasoning.cached_tokenizer_from_config = lambda **_options: _Tokenizer()


@dataclass(frozen=True, slots=True)
class Answer:
    """How far vLLM came, what it said, and how much one step takes."""

    stage: str
    message: str
    sequences: int = 0
    batched_tokens: int = 0


class Engine:
    """What of vLLM is asked, imported once."""

    def __init__(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.model_executor.models import registry
        from vllm.usage.usage_lib import UsageContext
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        try:
            from vllm.entrypoints.launchers import cli_args
        except ImportError:  # its place since 0.33
            from vllm.entrypoints.common import cli_args
        # vLLM inspects a model's class in a process of its own so that CUDA stays untouched; here there is none.
        setattr(registry, "_run_in_subprocess", lambda inspect: inspect())  # noqa: B010 - vLLM has no public way
        self._arguments = AsyncEngineArgs
        self._context = UsageContext.OPENAI_API_SERVER
        self._parser = cli_args.make_arg_parser(FlexibleArgumentParser(prog="vllm serve", exit_on_error=False))
        self._validate = cli_args.validate_parsed_serve_args

    def check(self, argv: list[str]) -> Answer:
        """How far `vllm serve ARGV` comes."""
        try:
            options = self._parse(argv)
        except Exception as error:  # noqa: BLE001 - whatever it raises is the refusal
            return Answer("parse", _text(error))
        try:
            arguments = self._arguments.from_cli_args(options)
            config = arguments.create_engine_config(self._context, headless=options.headless)
            # The executor asks for it while the engine starts.
            _ = config.parallel_config.nnodes_within_dp
        except Exception as error:  # noqa: BLE001 - whatever it raises is the refusal
            return Answer("config", _text(error))
        try:
            chosen = ", ".join(sorted(set(backends(config))))
        except (ValueError, NotImplementedError) as error:
            return Answer("backend", _text(error))
        scheduler = config.scheduler_config
        return Answer("ok", chosen, scheduler.max_num_seqs, scheduler.max_num_batched_tokens)

    def _parse(self, argv: list[str]) -> Any:
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                options = self._parser.parse_args(argv)
                self._validate(options)
        except SystemExit as error:  # argparse exits on unknown flags
            lines = complaint.getvalue().strip().splitlines()
            raise ValueError(lines[-1] if lines else repr(error)) from error
        options.model = options.model_tag or options.model
        return options


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("[type=", maxsplit=1)[0].replace("\n", " ").strip()


def backends(config: Any) -> Iterator[str]:
    """The attention backend of every kind of layer of the model and its draft; ValueError where there is none."""
    model, heads = config.model_config, config.model_config.get_num_attention_heads(config.parallel_config)
    for windowed in _windows(model):
        yield _backend(config, model, heads=heads, windowed=windowed)
    speculation = config.speculative_config
    draft = speculation.draft_model_config if speculation else None
    if draft is None or draft is model:
        return
    with_draft = _config_of_draft(config)
    for windowed in _windows(draft):
        yield _backend(with_draft, draft, heads=heads, windowed=windowed)


def _windows(model: Any) -> list[bool]:
    """Whether layers look back a window only: those with, those without or both."""
    text = model.hf_text_config
    if not model.get_sliding_window() or getattr(text, "use_sliding_window", True) is False:
        return [False]
    kinds = set(getattr(text, "layer_types", None) or ["sliding_attention"])
    return sorted({kind == "sliding_attention" for kind in kinds})


def _config_of_draft(config: Any) -> Any:
    """The configuration that vLLM builds a draft's layers with (`load_dflash_model` and its kin)."""
    from vllm.config import replace

    speculation = config.speculative_config
    causal = True
    if speculation.method == "dflash":
        from vllm.model_executor.models.qwen3_dflash import dflash_has_any_non_causal

        causal = not dflash_has_any_non_causal(speculation.draft_model_config.hf_config)
    attention = replace(config.attention_config, use_non_causal=not causal, backend=speculation.attention_backend)
    cache = config.cache_config
    if speculation.kv_cache_dtype is not None:
        cache = replace(cache, cache_dtype=speculation.kv_cache_dtype)
    return replace(config, attention_config=attention, cache_config=cache)


def _backend(config: Any, model: Any, *, heads: int, windowed: bool) -> str:
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.selector import get_attn_backend

    text = model.hf_text_config
    with set_current_vllm_config(config):
        chosen = get_attn_backend(
            model.get_head_size(),
            model.dtype,
            config.cache_config.cache_dtype,
            use_mla=model.use_mla,
            has_sink=text.model_type in SINK_MODELS,
            use_sparse=hasattr(text, "index_topk"),
            use_mm_prefix=model.is_mm_prefix_lm and model is config.model_config,
            num_heads=heads,
            has_sliding_window=windowed,
        )
    return str(chosen.get_name())


def answers_to(questions: TextIO, engine: Engine, pretence: Pretence, answers: int) -> None:
    """Answer every line of `questions` on the file descriptor `answers`."""
    from vllm.config import speculative

    for line in questions:
        asked = json.loads(line)
        pretence.device.gpus = asked["gpus"]
        has_suffix_trees = "arctic_inference" in asked.get("packages", ())
        speculative.has_arctic_inference = lambda has=has_suffix_trees: has
        answer = engine.check([asked["model_dir"], *asked["argv"]])
        answered = {"id": asked["id"], **asdict(answer), "message": answer.message[:LONGEST_MESSAGE]}
        os.write(answers, json.dumps(answered).encode() + b"\n")


def start_fork(device: Device, engine: Engine, pretence: Pretence, answers: int) -> tuple[int, TextIO]:
    """A process that is that GPU: its id, and where it takes questions."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(reading)
        return child, os.fdopen(writing, "w", buffering=1)
    status = 1
    try:
        os.close(writing)
        pretence.choose(device)
        with os.fdopen(reading) as questions:
            answers_to(questions, engine, pretence, answers)
        status = 0
    except BaseException:  # noqa: BLE001 - nobody above could report it
        traceback.print_exc()
    finally:
        # Never the parent's clean-up: its pipes to the other forks would be flushed twice.
        sys.stderr.flush()
        os._exit(status)


def main() -> int:
    """Read questions until standard input ends; 1 if a fork died."""
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # vLLM's libraries print to standard output, which is ours alone.
    answers = os.dup(1)
    os.dup2(2, 1)
    pretence = Pretence()
    pretence.install()
    engine = Engine()
    forks: dict[tuple[str, float, str], tuple[int, TextIO]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = (asked["compute_capability"], asked["gib"], asked["name"])
        if key not in forks:
            major, minor = asked["compute_capability"].split(".")
            device = Device((int(major), int(minor)), asked["gib"], asked["name"])
            forks[key] = start_fork(device, engine, pretence, answers)
        forks[key][1].write(line)
    for _, questions in forks.values():
        questions.close()
    return max((os.waitpid(child, 0)[1] for child, _ in forks.values()), default=0) and 1


if __name__ == "__main__":
    sys.exit(main())
