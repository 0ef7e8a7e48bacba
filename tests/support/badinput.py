"""A manifest that must be refused, with the sentence that Python and the API server say.

`problems` is exactly what `trimtab_crds.load.load` raises. `server` is a part of the API server's message: the
cross-field rules say the same sentence in both places, types and bounds the API server words itself. `server` is
None where it cannot know: the accelerator catalogue is data, not schema.
"""

from dataclasses import dataclass
from typing import Any

from support.manifests import Manifest, policy_manifest, pool_manifest


@dataclass(frozen=True, slots=True)
class BadInput:
    """One manifest to refuse."""

    id: str
    manifest: Manifest
    problems: tuple[str, ...]
    server: str | None


def rule(name: str, manifest: Manifest, where: str, sentence: str) -> BadInput:
    """A broken cross-field rule: one sentence, which both say."""
    return BadInput(name, manifest, (f"{where}: {sentence}",), f"{where}: Invalid value: {sentence}")


def bad_pool(name: str, problem: str, server: str | None, **changes: Any) -> BadInput:
    return BadInput(f"pool: {name}", pool_manifest(**changes), (problem,), server)


def bad_policy(name: str, problem: str, server: str | None, **changes: Any) -> BadInput:
    return BadInput(f"policy: {name}", policy_manifest(**changes), (problem,), server)
