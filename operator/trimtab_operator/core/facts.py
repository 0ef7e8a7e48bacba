"""What recipes ask of a GPU and of a checkpoint."""

import re

from trimtab_crds.accelerators import Accelerator
from trimtab_crds.inferencepool import InferencePool, Model
from trimtab_crds.recipespec import Parallelism

BFLOAT16_CAPABILITY = (8, 0)
_UPSTREAM_IMAGE = re.compile(r"(^|/)vllm/vllm-openai([:@]|$)")
_QUANTIZED_NAME = (
    (4, re.compile(r"awq|gptq|int4|w4a16|fp4|gpt-oss|4bit", re.IGNORECASE)),
    (8, re.compile(r"fp8|int8|w8a8|8bit", re.IGNORECASE)),
)


def parallelism(pool: InferencePool) -> Parallelism:
    """What the recipe asks for, else tensor parallelism within a node and pipeline stages over nodes.

    Source: vLLM docs, serving/parallelism_scaling: links between nodes are too slow for tensor parallelism.
    """
    gpus = pool.spec.accelerator
    return pool.spec.recipe.parallelism or Parallelism(tensor=gpus.gpus_per_node, pipeline=gpus.nodes)


def capability(gpu: Accelerator) -> tuple[int, int]:
    """Compute capability (SM) as numbers that compare."""
    major, minor = gpu.compute_capability.split(".")
    return int(major), int(minor)


def has_fp8_attention(gpu: Accelerator) -> bool:
    """Whether FlashAttention reads an fp8 cache (FA3 on SM 9.x, FA4 on SM 10.x); elsewhere vLLM uses Triton."""
    return capability(gpu)[0] in (9, 10)


def checkpoint_bits(model: Model) -> int | None:
    """Bits per weight of a quantized checkpoint, by its shape or else by its name; None for an unquantized one."""
    shape = model.shape
    if shape is not None and shape.weight_bits is not None:
        return shape.weight_bits if shape.quantization else None
    return next((bits for bits, pattern in _QUANTIZED_NAME if pattern.search(model.name)), None)


def checkpoint_type(model: Model) -> str:
    """vLLM's name of the checkpoint's quantization, by its shape or else guessed from its name; empty if there is none.

    Of a name only `fp8` and `mxfp4` are told apart: rules rest on these two.
    """
    shape, name = model.shape, model.name.lower()
    if shape is not None and shape.weight_bits is not None:
        return shape.quantization or ""
    if "mxfp4" in name or "gpt-oss" in name:
        return "mxfp4"
    return "fp8" if "fp8" in name else ""


def latent_attention(model: Model) -> bool:
    """Whether the model is known to cache latents (MLA)."""
    return model.shape is not None and model.shape.latent_attention


def engine_defaults(gpu: Accelerator) -> tuple[int, int]:
    """Sequences and tokens of a step that `vllm serve` picks by itself on that GPU."""
    if gpu.memory_gib >= 160:
        return 1024, 16384
    if gpu.memory_gib >= 70 and "a100" not in gpu.name:
        return 1024, 8192
    return 256, 2048


def context_of(model: Model) -> int | None:
    """The context that the engine will allow, where it is known."""
    return model.context_tokens or (model.shape.max_context_tokens if model.shape else None)


def linear_layers(model: Model) -> bool:
    """Whether some layers are known to keep a state of fixed size (Mamba, linear attention) instead of a cache."""
    shape = model.shape
    if shape is None or shape.full_attention_layers is None or shape.window_tokens:
        return False
    return shape.full_attention_layers < shape.layers


def runs_in_float32(model: Model, gpu: Accelerator) -> bool:
    """Whether vLLM is left with float32: the GPU has no bfloat16, and the model overflows in float16."""
    return capability(gpu) < BFLOAT16_CAPABILITY and model.shape is not None and model.shape.float16_overflows


def lacks_package(image: str) -> bool:
    """Whether it is the project's own image, which lacks optional packages; a registry's mirror of it counts too."""
    return _UPSTREAM_IMAGE.search(image) is not None
