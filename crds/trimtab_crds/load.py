"""Manifests (dictionaries, as YAML gives them) to resources, with errors that name the field, the value and the fix.

The API server has checked what the operator reads; the same checks run here for files that never met one
(`trimtab render`, `trimtab up`) and for objects that an older CRD let in.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trimtab_crds.accelerators import is_known, suggestions
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
    """The resource in `manifest`; raises SpecInvalid.

    Types are as strict as the API server's: neither "2" nor true is a number. As there, null is no value at all.
    """
    kind, api_version = manifest.get("kind"), manifest.get("apiVersion")
    if kind not in _KINDS:
        raise SpecInvalid(f"kind: {kind!r} is not one of {', '.join(sorted(_KINDS))}; correct it")
    if api_version != API_VERSION:
        raise SpecInvalid(f"apiVersion: {api_version!r} is not served; use {API_VERSION}")
    # Through JSON: only there pydantic is strict and takes the text of an enumeration's member.
    text = json.dumps(_without_nulls(manifest), default=str)
    try:
        resource = _KINDS[kind].model_validate_json(text, strict=True)
    except ValidationError as error:
        raise SpecInvalid(*problems_of(error)) from error
    _check_accelerators(resource)
    return resource


def problems_of(error: ValidationError) -> tuple[str, ...]:
    """One sentence per field that pydantic refused."""
    return tuple(_sentence(e) for e in error.errors())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _check_accelerators(resource: Resource) -> None:
    """The catalogue is data, not schema: a new GPU must not need a new CRD."""
    if isinstance(resource, InferencePool):
        named = [("spec.accelerator.name", resource.spec.accelerator.name)]
    else:
        budgets = resource.spec.rebalance.gpu_budget
        named = [(f"spec.rebalance.gpuBudget[{i}].accelerator", b.accelerator) for i, b in enumerate(budgets)]
    unknown = [(field, name) for field, name in named if not is_known(name)]
    if unknown:
        raise SpecInvalid(
            *(f"{field}: {name!r} is not in the catalogue; use one of {suggestions(name)}" for field, name in unknown)
        )


#: pydantic's type of error to what the user should do; `{...}` are values of the error's context.
_FIXES = {
    "greater_than_equal": "use at least {ge}",
    "less_than_equal": "use at most {le}",
    "string_too_short": "use at least {min_length} character",
    "string_too_long": "use at most {max_length} characters",
    "too_short": "give at least {min_length} entry",
    "too_long": "give at most {max_length} entries",
    "enum": "use {expected}",
    "literal_error": "use {expected}",
    "string_pattern_mismatch": "it must match {pattern}",
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "string_type": "give text, numbers in quotes",
    "list_type": "give a list",
    "dict_type": "give a mapping of fields",
    "model_type": "give a mapping of fields",
}
_IN_WORDS = {
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$": "use lower-case letters and digits, with dashes only between them",
    r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$": "use lower-case letters and digits, with dashes and dots only between them",
    r"^\d+\.\d+\.\d+$": "use three numbers such as 0.32.0",
    r"^https?://[^\s/]+(/[^\s]*)?$": "use a URL such as http://host:9090",
}


def _sentence(error: ErrorDetails) -> str:
    """`field: value is refused; fix`, from one pydantic error."""
    field = _path(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{field}: no such field; remove it or correct its spelling (kubectl explain lists the fields)"
    if error["type"] == "missing":
        return f"{field}: required; set it"
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{field}: {message}" if field else message
    return f"{field}: {_shown(error['input'])} is refused; {_fix(error)}"


def _fix(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("enum", "literal_error") and isinstance(error["input"], bool):
        return f"use {context['expected']} in quotes: YAML reads a bare On, Off, Yes or No as true or false"
    if kind == "string_pattern_mismatch" and context["pattern"] in _IN_WORDS:
        return _IN_WORDS[context["pattern"]]
    return _FIXES[kind].format(**context) if kind in _FIXES else error["msg"]


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _path(loc: tuple[int | str, ...]) -> str:
    out = ""
    for part in loc:
        out += f"[{part}]" if isinstance(part, int) else f".{part}"
    return out.removeprefix(".")
