"""What was released: objects and definitions as users have them stored (tests/compat), and what objects mean."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from trimtab_cli.files import Resources, read_resources
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import gpuclaim, nodepools
from trimtab_operator.core.recipe import resolve
from trimtab_operator.core.routerconfig import compile_config

Manifest = dict[str, Any]
FOLDER = Path(__file__).resolve().parents[1] / "compat" / "v1alpha1"
FILES = sorted((FOLDER / "objects").glob("*.yaml"))


def definition(name: str) -> Manifest:
    """A CustomResourceDefinition as released, by its file name."""
    return dict(yaml.safe_load((FOLDER / "schema" / name).read_text()))


def manifests(file: Path) -> list[Manifest]:
    """The objects of one file."""
    return [m for m in yaml.safe_load_all(file.read_text()) if m]


def resources(file: Path) -> Resources:
    """The same, parsed."""
    return read_resources([str(file)])


def meaning(file: Path) -> list[Manifest]:
    """What each object of a file leads to: flags of engines, documents of routers, what makes nodes.

    Not why something was left out or refused: those words may get better.
    """
    found = resources(file)
    meanings = [_pool(pool) for pool in found.pools.values()]
    return meanings + [_policy(policy, found) for policy in found.policies.values()]


def _pool(pool: InferencePool) -> Manifest:
    resolution, node, claim = resolve(pool), nodepools.node_object(pool), gpuclaim.claim_template(pool)
    accepted = resolution.accepted and not nodepools.refusals(pool)
    return {
        "pool": pool.metadata.name,
        "accepted": accepted,
        **({"flags": _lines(resolution.flags), "dropped": [d.what for d in resolution.dropped]} if accepted else {}),
        **{m["kind"]: m["spec"] for m in (node, claim) if accepted and m is not None},
    }


def _lines(flags: Iterable[str]) -> list[str]:
    """A flag and its value on one line."""
    lines: list[str] = []
    for word in flags:
        if word.startswith("--") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def _policy(policy: RoutingPolicy, found: Resources) -> Manifest:
    config = compile_config(policy, found.pools_of(policy.metadata.namespace))
    return {
        "policy": policy.metadata.name,
        "document": config.model_dump(by_alias=True, mode="json", exclude_defaults=True),
    }


def choices(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that a schema has, and every value of a field with a list of them."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", None
        yield from choices(child, f"{path}.{name}")
    if "items" in schema:
        yield from choices(schema["items"], f"{path}[]")
    yield from ((path, value) for value in schema.get("enum", []))


def uses(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that an object sets, and the values of all that are not objects or lists."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield f"{path}.{name}", None
            yield from uses(child, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from uses(item, f"{path}[]")
    else:
        yield path, value
