"""Every flag of `vllm serve` in the known versions: `vllm_flags*.json`, which `scripts/vllm_flags.py` writes."""

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
        """All spellings of all flags, short ones included.

        From 0.33 on a flag that is on or off is `--enable-X` or `--disable-X`; the parser still reads `--no-enable-X`.
        """
        listed = frozenset(name for row in self.flags for name in row["names"])
        pairs = {name.removeprefix("--enable-") for name in listed if name.startswith("--enable-")}
        both = {name for name in pairs if f"--disable-{name}" in listed}
        return listed | {f"--no-{word}-{name}" for name in both for word in ("enable", "disable")}


#: Files by minor version; the first is the version that is locked and simulated.
_FILES = {"0.32": "vllm_flags.json", "0.33": "vllm_flags_0.33.json"}


def known_flags() -> KnownFlags:
    """The list of the locked version: the same at every call."""
    return _load(_FILES["0.32"])


def flags_of(version: str) -> KnownFlags | None:
    """The list of a version (`0.33.1` has that of 0.33); None for one that is not known."""
    file = _FILES.get(version.rsplit(".", 1)[0])
    return _load(file) if file else None


@cache
def _load(file: str) -> KnownFlags:
    data = json.loads((files("trimtab_crds") / file).read_text(encoding="utf-8"))
    return KnownFlags(data["version"], tuple(data["reasoning_parsers"]), tuple(data["flags"]))
