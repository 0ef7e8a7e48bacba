"""What a newer CustomResourceDefinition took away from an older one, in sentences; nothing to say means it only grew.

Old objects must still be admitted and mean the same: no field or choice goes, no bound gets tighter, nothing becomes
required, no default changes. Rules (CEL) cannot be compared this way; tests/compat has objects that they must admit.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

#: Bounds: whether going from the first value to the second lets everything in that was in. Absent is no bound.
_BOUNDS: Mapping[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(("minimum", "minLength", "minItems"), lambda old, new: new <= old),
    **dict.fromkeys(("maximum", "maxLength", "maxItems", "maxProperties"), lambda old, new: new >= old),
}
#: What may go but not change, and what may do neither.
_DROPPABLE = ("format", "pattern")
_FIXED = ("type", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")
_KEEPS_UNKNOWN = "x-kubernetes-preserve-unknown-fields"


def broken(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is worse in the definition `new`."""
    names = [
        f"{field} was {old['spec'][field]}, is {new['spec'][field]}"
        for field in ("group", "scope", "names")
        if old["spec"][field] != new["spec"][field]
    ]
    return names + [problem for version in old["spec"]["versions"] for problem in _version(version, new)]


def _version(old: Mapping[str, Any], definition: Mapping[str, Any]) -> Iterator[str]:
    name = old["name"]
    new = next((v for v in definition["spec"]["versions"] if v["name"] == name), None)
    if new is None or not new["served"]:
        yield f"version {name} is no longer served"
        return
    for subresource, paths in old.get("subresources", {}).items():
        if new.get("subresources", {}).get(subresource) != paths:
            yield f"subresource {subresource} changed"
    yield from _schema(old["schema"]["openAPIV3Schema"], new["schema"]["openAPIV3Schema"], "")


def _schema(old: Schema, new: Schema, path: str) -> Iterator[str]:
    yield from (f"{path}: {problem}" for problem in _node(old, new))
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, child in before.items():
        if name in after:
            yield from _schema(child, after[name], f"{path}.{name}")
        elif not new.get(_KEEPS_UNKNOWN):
            yield f"{path}.{name}: removed"
    for inner, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if inner in old and inner in new:
            yield from _schema(old[inner], new[inner], path + mark)


def _node(old: Schema, new: Schema) -> Iterator[str]:
    for key in (*_FIXED, *(name for name in _DROPPABLE if name in new)):
        if old.get(key) != new.get(key):
            yield f"{key} was {old.get(key)}, is {new.get(key)}"
    for key, is_looser in _BOUNDS.items():
        if key in new and (key not in old or not is_looser(old[key], new[key])):
            yield f"{key} was {old.get(key)}, is {new[key]}"
    if "enum" in new and (lost := _lost(old, new)):
        yield f"no longer allows {lost}"
    if required := sorted({*new.get("required", [])} - {*old.get("required", [])}):
        yield f"now requires {', '.join(required)}"
    if old.get(_KEEPS_UNKNOWN) and not new.get(_KEEPS_UNKNOWN):
        yield "no longer keeps unknown fields"
    if not _same_default(old.get("default"), new.get("default")):
        yield f"default was {old.get('default')}, is {new.get('default')}"


def _lost(old: Schema, new: Schema) -> str:
    if "enum" not in old:
        return "any value"
    return ", ".join(str(value) for value in old["enum"] if value not in new["enum"])


def _same_default(old: Any, new: Any) -> bool:
    """An object's default may name more fields than before: the new ones are judged where they are defined."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return all(name in new and _same_default(value, new[name]) for name, value in old.items())
    return bool(old == new)
