"""Every flag of `vllm serve` in one version: `vllm_flags.json`, which `scripts/vllm_flags.py` writes."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownFlags:
    """What the named version of vLLM accepts; a row of `flags` has its `names` and how many `values` follow."""

    version: str
    reasoning_parsers: tuple[str, ...]
    flags: tuple[dict[str, Any], ...]

    @property
    def names(self) -> frozenset[str]:
        """All spellings of all flags, short ones included."""
        return frozenset(name for row in self.flags for name in row["names"])


@cache
def known_flags() -> KnownFlags:
    """The list that belongs to this package: the same at every call."""
    data = json.loads((files("trimtab_crds") / "vllm_flags.json").read_text(encoding="utf-8"))
    return KnownFlags(data["version"], tuple(data["reasoning_parsers"]), tuple(data["flags"]))
