"""The reference of both resources as Markdown, from the same schemas that the API server enforces."""

import json
from collections.abc import Iterator

from trimtab_crds.manifests import Manifest, definitions
from trimtab_crds.schema import Schema

_HEAD = """\
<!-- Generated from crds/trimtab_crds by `python -m trimtab_crds`; do not edit. -->
# The two resources

Group `trimtab.dev`, version `v1alpha1`. The kind name InferencePool also exists in `inference.networking.k8s.io`, so
write `inferencepools.trimtab.dev` in full; `tpool` and `tpolicy` are short names, `kubectl get trimtab` lists both.
Users own `spec`; the operator owns `status` and never writes `spec`. `kubectl explain` shows the same descriptions.
A field that is absent has the default given here; a field without a default and without "required" may be left out.
"""


def reference() -> str:
    """The whole page."""
    parts = [_HEAD, *(_kind(definition) for definition in definitions().values())]
    return "\n".join(parts)


def _kind(definition: Manifest) -> str:
    names, version = definition["spec"]["names"], definition["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    parts = [f"## {names['kind']}\n\n`{definition['metadata']['name']}`, short name `{names['shortNames'][0]}`.", ""]
    about = root["description"].partition(": ")[2]
    parts.append(about[:1].upper() + about[1:])
    for top in ("spec", "status"):
        parts += [_section(names["kind"], path, node) for path, node in _objects(top, root["properties"][top])]
    return "\n".join(parts)


def _objects(path: str, node: Schema) -> Iterator[tuple[str, Schema]]:
    """Every object with fields of its own, outer ones first."""
    yield path, node
    for name, child in node["properties"].items():
        inner, suffix = (child["items"], "[]") if child.get("type") == "array" else (child, "")
        if "properties" in inner:
            yield from _objects(f"{path}.{name}{suffix}", inner)


def _section(kind: str, path: str, node: Schema) -> str:
    required = node.get("required", [])
    lines = [f"\n### {kind} {path}\n", f"{node['description']}\n", "| Field | Type | Default | Meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for name, child in node["properties"].items():
        default = "required" if name in required else _default(child)
        text = child["description"].replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(kind, f'{path}.{name}', child)} | {default} | {text} |")
    rules = [rule["message"] for rule in node.get("x-kubernetes-validations", [])]
    if rules:
        lines += ["\nRefused, with these words:\n", *(f"- `{message}`" for message in rules)]
    return "\n".join(lines)


def _default(node: Schema) -> str:
    value = node.get("default")
    if value is None or value in ({}, [], ""):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(kind: str, path: str, node: Schema) -> str:
    if "enum" in node:
        return "one of " + ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        most = f", at most {node['maxItems']}" if "maxItems" in node else ""
        return f"list of {_type(kind, f'{path}[]', node['items'])}{most}"
    if "properties" in node:
        anchor = f"{kind} {path}".lower().replace(" ", "-").translate({ord(c): None for c in ".[]"})
        return f"[object](#{anchor})"
    if node.get("type") == "object":
        return "map of strings" if "additionalProperties" in node else "object"
    return f"{node['type']}{_range(node)}"


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is None and high is None:
        return ""
    if high is None:
        return f", {low} or more"
    return f", {low} to {high}"
