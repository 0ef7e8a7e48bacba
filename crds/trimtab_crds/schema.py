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
    """The structural schema of `model`, references inlined.

    Fields of a `Spec` that may be absent get a default, so that rules and readers need not ask whether they are there;
    what we write ourselves (`Status`) gets none.
    """
    source = model.model_json_schema(by_alias=True)
    rules = {m.__name__: [r.as_schema() for r in m.rules] for m in models_of(model) if issubclass(m, Spec) and m.rules}
    return _Converter(source.get("$defs", {}), rules, defaults=issubclass(model, Spec)).root(source, model.__name__)


def models_of(model: type[BaseModel]) -> list[type[BaseModel]]:
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


class _Converter:
    """One pass over pydantic's schema; `rules` are the CEL rules by model name."""

    def __init__(self, defs: Schema, rules: dict[str, list[dict[str, str]]], *, defaults: bool) -> None:
        self._defs, self._rules, self._defaults = defs, rules, defaults

    def root(self, node: Schema, name: str) -> Schema:
        return self._convert(self._with_rules(node, name))

    def _with_rules(self, node: Schema, name: str) -> Schema:
        return {**node, "x-kubernetes-validations": self._rules[name]} if name in self._rules else node

    def _convert(self, node: Schema) -> Schema:
        node = self._resolve(node)
        out = {key: node[key] for key in _KEPT if key in node}
        if not self._defaults or out.get("default", 0) is None:
            out.pop("default", None)
        if "const" in node:
            out["enum"] = [node["const"]]
        if node.get("type") == "object":
            out.update(self._object(node))
        if "items" in node:
            out["items"] = self._convert(node["items"])
        return dict(sorted(out.items()))

    def _resolve(self, node: Schema) -> Schema:
        """Follow references and `X | None`, keeping what the place itself says (description, default)."""
        own = {k: v for k, v in node.items() if k not in ("$ref", "anyOf")}
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            return {**self._resolve(self._with_rules(self._defs[name], name)), **own}
        if "anyOf" in node:
            some = [option for option in node["anyOf"] if option.get("type") != "null"]
            if len(some) != 1:
                raise ValueError(f"a structural schema has no unions: {node}")
            return {**self._resolve(some[0]), **own}
        return node

    def _object(self, node: Schema) -> Schema:
        if "properties" in node:
            required = node.get("required", [])
            properties = {k: self._property(v, required=k in required) for k, v in sorted(node["properties"].items())}
            return {"properties": properties, **({"required": sorted(required)} if required else {})}
        values = node.get("additionalProperties")
        if isinstance(values, dict):
            return {"additionalProperties": self._convert(cast("Schema", values))}
        return {"x-kubernetes-preserve-unknown-fields": True}

    def _property(self, node: Schema, *, required: bool) -> Schema:
        """A list, map or object that may be absent is empty by default, unless absence means something (`X | None`)."""
        out = self._convert(node)
        optional = required or "anyOf" in node or "default" in out or not self._defaults
        if not optional and out.get("type") in ("array", "object"):
            out["default"] = [] if out["type"] == "array" else _default_of(out)
        return dict(sorted(out.items()))


def _default_of(schema: Schema) -> Schema:
    """`{}`; or, for an object with rules, all its defaults: the API server checks a default as it stands."""
    if "x-kubernetes-validations" not in schema:
        return {}
    return {name: child["default"] for name, child in schema["properties"].items() if "default" in child}
