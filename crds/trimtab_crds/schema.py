"""pydantic's JSON schema to a Kubernetes structural schema (apiextensions.k8s.io/v1).

Undoes what structural schemas forbid: `$ref`, nullable unions, `title`, `const`, `additionalProperties: false`
beside properties, null defaults. Adds the CEL rules that models declare.
"""

from typing import Any, cast

from pydantic import BaseModel

from trimtab_crds.meta import Spec

Schema = dict[str, Any]
_KEPT = (
    "description", "type", "format", "enum", "default", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)  # fmt: skip


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of `model`, references inlined."""
    source = model.model_json_schema(by_alias=True)
    rules = {m.__name__: [r.as_schema() for r in m.rules] for m in _models(model) if issubclass(m, Spec) and m.rules}
    return _convert(_with_rules(source, model.__name__, rules), source.get("$defs", {}), rules)


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """`model` and every model that its fields mention."""
    found: dict[str, type[BaseModel]] = {}

    def visit(annotation: Any) -> None:
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if is_model and annotation.__name__ not in found:
            found[annotation.__name__] = annotation
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for argument in getattr(annotation, "__args__", ()):
            visit(argument)

    visit(model)
    return list(found.values())


def _with_rules(node: Schema, name: str, rules: dict[str, list[dict[str, str]]]) -> Schema:
    return {**node, "x-kubernetes-validations": rules[name]} if name in rules else node


def _convert(node: Schema, defs: Schema, rules: dict[str, list[dict[str, str]]]) -> Schema:
    node = _resolve(node, defs, rules)
    out = {key: node[key] for key in _KEPT if key in node and not (key == "default" and node[key] is None)}
    if "const" in node:
        out["enum"] = [node["const"]]
    if node.get("type") == "object":
        out.update(_object(node, defs, rules))
    if "items" in node:
        out["items"] = _convert(node["items"], defs, rules)
    return dict(sorted(out.items()))


def _resolve(node: Schema, defs: Schema, rules: dict[str, list[dict[str, str]]]) -> Schema:
    """Follow references and `X | None`, keeping what the place itself says (description, default)."""
    own = {k: v for k, v in node.items() if k not in ("$ref", "anyOf")}
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return {**_resolve(_with_rules(defs[name], name, rules), defs, rules), **own}
    if "anyOf" in node:
        some = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(some) != 1:
            raise ValueError(f"a structural schema has no unions: {node}")
        return {**_resolve(some[0], defs, rules), **own}
    return node


def _object(node: Schema, defs: Schema, rules: dict[str, list[dict[str, str]]]) -> Schema:
    if "properties" in node:
        out: Schema = {"properties": {k: _convert(v, defs, rules) for k, v in sorted(node["properties"].items())}}
        if node.get("required"):
            out["required"] = sorted(node["required"])
        return out
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        return {"additionalProperties": _convert(cast("Schema", values), defs, rules)}
    return {"x-kubernetes-preserve-unknown-fields": True}
