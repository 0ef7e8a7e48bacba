"""Real models' `config.json` files (no weights), and `spec.model.shape` as their owners would write it.

`shapes/ORGANISATION/NAME` is a model, `drafts/ORGANISATION/NAME` a draft trained for one; the figures are those that
the organisations publish. vLLM reads the folders, Trimtab the numbers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab_crds import specshape

_HERE = Path(__file__).parent
_SHAPES = _HERE / "shapes"
_DRAFTS = _HERE / "drafts"
#: Drafts by method and the model that they are for.
DRAFTS: Mapping[str, Mapping[str, Path]] = {
    "eagle3": {
        "Qwen/Qwen3-8B": _DRAFTS / "AngelSlim/Qwen3-8B_eagle3",
        "meta-llama/Llama-3.1-8B-Instruct": _DRAFTS / "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
    },
    "dflash": {"Qwen/Qwen3-8B": _DRAFTS / "z-lab/Qwen3-8B-DFlash-b16"},
    "draft_model": {
        "Qwen/Qwen3-8B": _SHAPES / "Qwen/Qwen3-0.6B",
        "Qwen/Qwen3-32B": _SHAPES / "Qwen/Qwen3-0.6B",
        "Qwen/Qwen3-30B-A3B": _SHAPES / "Qwen/Qwen3-0.6B",
        "meta-llama/Llama-3.3-70B-Instruct": _SHAPES / "meta-llama/Llama-3.2-1B-Instruct",
    },
}


def models() -> list[str]:
    """The Hugging Face names of all models."""
    return sorted(str(path.parent.relative_to(_SHAPES)) for path in _SHAPES.glob("*/*/config.json"))


def folder(name: str) -> Path:
    """The folder of a model."""
    return _SHAPES / name


def config(name: str) -> dict[str, Any]:
    """A model's config.json."""
    content: dict[str, Any] = json.loads((folder(name) / "config.json").read_text())
    return content


def heads(path: Path) -> int:
    """Query heads of the model in that folder."""
    return int(json.loads((path / "config.json").read_text())["num_attention_heads"])


def spec_shape(name: str) -> dict[str, Any]:
    """`spec.model.shape` of a model."""
    return specshape.spec_shape(config(name)).model_dump(by_alias=True, exclude_none=True)
