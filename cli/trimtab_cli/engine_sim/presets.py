"""Shapes of models that `--sim-shape` knows by name, from their published `config.json` files."""

import json
from collections.abc import Mapping
from pathlib import Path

from trimtab_crds.capacity import ModelShape, shape_from_config

_B = 1_000_000_000
PRESETS: Mapping[str, ModelShape] = {
    "qwen3-0.6b": ModelShape(596_000_000, 596_000_000, 28, 8, 128, query_width=2048),
    "qwen3-1.7b": ModelShape(int(1.72 * _B), int(1.72 * _B), 28, 8, 128, query_width=2048),
    "qwen3-4b": ModelShape(int(4.02 * _B), int(4.02 * _B), 36, 8, 128, query_width=4096),
    "qwen3-8b": ModelShape(int(8.19 * _B), int(7.57 * _B), 36, 8, 128, query_width=4096),
    "qwen3-14b": ModelShape(int(14.77 * _B), int(13.99 * _B), 40, 8, 128, query_width=5120),
    "qwen3-32b": ModelShape(int(32.76 * _B), int(31.98 * _B), 64, 8, 128, query_width=8192),
    "qwen3-30b-a3b": ModelShape(int(30.53 * _B), int(3.04 * _B), 48, 4, 128, query_width=4096),
    "qwen3-235b-a22b": ModelShape(int(235.04 * _B), int(21.5 * _B), 94, 4, 128, query_width=8192),
    "llama-3.1-8b": ModelShape(int(8.03 * _B), int(7.5 * _B), 32, 8, 128, query_width=4096),
    "llama-3.3-70b": ModelShape(int(70.55 * _B), int(69.5 * _B), 80, 8, 128, query_width=8192),
    "gpt-oss-20b": ModelShape(
        int(20.9 * _B),
        int(3.6 * _B),
        24,
        8,
        64,
        weight_bits=4,
        full_attention_layers=12,
        window_tokens=128,
        query_width=4096,
    ),
    "gpt-oss-120b": ModelShape(
        int(116.8 * _B),
        int(5.1 * _B),
        36,
        8,
        64,
        weight_bits=4,
        full_attention_layers=18,
        window_tokens=128,
        query_width=4096,
    ),
    "deepseek-v3": ModelShape(
        int(670.9 * _B), int(36.5 * _B), 61, 1, 576, weight_bits=8, latent_kv=True, query_width=20480
    ),
}
DEFAULT_PRESET = "qwen3-8b"
DEFAULT_CONTEXT_TOKENS = 32_768


def resolve_shape(value: str | None, model: str) -> ModelShape:
    """The shape that `--sim-shape` means: a preset, a `config.json`, a folder that holds one, or inline JSON.

    Without a value: the model's own `config.json` if it is a folder, the preset that its name contains, or
    `DEFAULT_PRESET`. Raises ValueError that names the value and the choices.
    """
    if value is None:
        config = Path(model) / "config.json"
        return _from_file(config) if config.is_file() else PRESETS[_preset_in(model)]
    if value.lower() in PRESETS:
        return PRESETS[value.lower()]
    if value.lstrip().startswith("{"):
        return _from_document(value)
    path = Path(value)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"--sim-shape {value!r} is no preset, file or JSON object; use one of {', '.join(PRESETS)}, "
            "a Hugging Face config.json, or the pool's model.shape as JSON"
        )
    return _from_file(path)


def context_tokens(model: str) -> int:
    """`max_position_embeddings` of the model's own `config.json`, or a default."""
    config = Path(model) / "config.json"
    value = json.loads(config.read_text()).get("max_position_embeddings") if config.is_file() else None
    return value if isinstance(value, int) else DEFAULT_CONTEXT_TOKENS


def _preset_in(model: str) -> str:
    """The longest preset name that the model's name contains."""
    name = model.lower()
    return max((preset for preset in PRESETS if preset in name), key=len, default=DEFAULT_PRESET)


def _from_file(path: Path) -> ModelShape:
    try:
        return _from_document(path.read_text())
    except ValueError as error:
        raise ValueError(f"--sim-shape {path}: {error}") from error


def _from_document(text: str) -> ModelShape:
    """A Hugging Face `config.json`, or `model.shape` of an InferencePool."""
    document = json.loads(text)
    if "parametersMillions" not in document:
        return shape_from_config(document)
    from trimtab_crds.inferencepool import Shape
    from trimtab_crds.specshape import model_shape

    return model_shape(Shape.model_validate(document))
