"""Manifests (dictionaries, as YAML gives them) to resources, with errors that name the field, the value and the fix.

The API server has checked what the operator reads; the same checks run here for files that never met one
(`trimtab render`, `trimtab up`) and for objects that an older CRD let in.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.meta import API_VERSION
from trimtab_crds.routingpolicy import RoutingPolicy

Resource = InferencePool | RoutingPolicy
_KINDS: dict[str, type[InferencePool] | type[RoutingPolicy]] = {
    "InferencePool": InferencePool,
    "RoutingPolicy": RoutingPolicy,
}


class SpecInvalid(ValueError):  # noqa: N818 - the name is the condition's reason
    """A resource that cannot be acted on; `problems` has one sentence per field."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(manifest: Mapping[str, Any]) -> Resource:
    """The resource in `manifest`; raises SpecInvalid."""
    kind, api_version = manifest.get("kind"), manifest.get("apiVersion")
    if kind not in _KINDS:
        raise SpecInvalid(f"kind: {kind!r} is not one of {', '.join(sorted(_KINDS))}; correct it")
    if api_version != API_VERSION:
        raise SpecInvalid(f"apiVersion: {api_version!r} is not served; use {API_VERSION}")
    try:
        resource = _KINDS[kind].model_validate(manifest)
    except ValidationError as error:
        raise SpecInvalid(*(_sentence(e) for e in error.errors())) from error
    _check_accelerators(resource)
    return resource


def _check_accelerators(resource: Resource) -> None:
    """The catalogue is data, not schema: a new GPU must not need a new CRD."""
    if isinstance(resource, InferencePool):
        named = [("spec.accelerator.name", resource.spec.accelerator.name)]
    else:
        budgets = resource.spec.rebalance.gpu_budget
        named = [(f"spec.rebalance.gpuBudget[{i}].accelerator", b.accelerator) for i, b in enumerate(budgets)]
    unknown = [(field, name) for field, name in named if name not in CATALOGUE]
    if unknown:
        known = ", ".join(sorted(CATALOGUE))
        raise SpecInvalid(*(f"{field}: {name!r} is not in the catalogue; use one of {known}" for field, name in unknown))


def _sentence(error: ErrorDetails) -> str:
    """`field: value is wrong because; fix`, from one pydantic error."""
    field = _path(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{field}: no such field; remove it or correct its spelling (kubectl explain lists the fields)"
    if error["type"] == "missing":
        return f"{field}: required; set it"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{field}: {error['input']!r} is refused: {message[:1].lower()}{message[1:]}"


def _path(loc: tuple[int | str, ...]) -> str:
    out = ""
    for part in loc:
        out += f"[{part}]" if isinstance(part, int) else f".{part}"
    return out.removeprefix(".")
