"""The CRDs only grow: whatever a released one let in, the present one lets in, and it means the same."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from support import released
from support.schemacompat import broken
from trimtab_crds.manifests import definitions

Definition = dict[str, Any]
POOLS, POLICIES = "inferencepools.trimtab.dev.yaml", "routingpolicies.trimtab.dev.yaml"


@pytest.mark.parametrize("name", [POOLS, POLICIES])
def test_the_present_definitions_only_grew(name: str):
    assert broken(released.definition(name), definitions()[name]) == []


def root(definition: Definition) -> Any:
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def field(definition: Definition, path: str) -> Any:
    node = root(definition)[path.split(".", maxsplit=1)[0]]
    for part in path.split(".")[1:]:
        node = node["properties"][part]
        node = node.get("items", node)
    return node


def at(path: str, **changes: Any) -> Callable[[Definition], None]:
    return lambda definition: field(definition, path).update(changes)


def without(path: str, key: str) -> Callable[[Definition], None]:
    return lambda definition: field(definition, path).pop(key)


def unserved(definition: Definition) -> None:
    definition["spec"]["versions"][0]["served"] = False


def renamed(definition: Definition) -> None:
    definition["spec"]["names"]["shortNames"] = ["pool"]


def without_scale(definition: Definition) -> None:
    del definition["spec"]["versions"][0]["subresources"]["scale"]


def without_field(definition: Definition) -> None:
    del field(definition, "spec.model")["properties"]["revision"]


def without_choice(definition: Definition) -> None:
    field(definition, "spec.recipe.preset")["enum"].remove("edge")


BREAKS = {
    "a version that is not served": (unserved, "version v1alpha1 is no longer served"),
    "a short name": (renamed, "names was {'kind': 'InferencePool'"),
    "the scale subresource": (without_scale, "subresource scale changed"),
    "a removed field": (without_field, ".spec.model.revision: removed"),
    "another type": (at("spec.replicas", type="string"), ".spec.replicas: type was integer, is string"),
    "a required field": (at("spec.model", required=["name", "revision"]), ".spec.model: now requires revision"),
    "a lost choice": (without_choice, ".spec.recipe.preset: no longer allows edge"),
    "choices where any value was": (at("spec.engine.image", enum=["a"]), ".spec.engine.image: no longer allows any"),
    "a higher minimum": (at("spec.replicas", minimum=1), ".spec.replicas: minimum was 0, is 1"),
    "a lower maximum": (at("spec.replicas", maximum=10), ".spec.replicas: maximum was 1000, is 10"),
    "a new bound": (at("spec.nodes.tolerations.key", maxLength=10), "[].key: maxLength was None, is 10"),
    "a new pattern": (at("spec.engine.image", pattern="^a$"), ".spec.engine.image: pattern was None, is ^a$"),
    "another default": (at("spec.replicas", default=2), ".spec.replicas: default was 1, is 2"),
    "no default": (without("spec.replicas", "default"), ".spec.replicas: default was 1, is None"),
    "another default of an object": (
        at("spec.nodes", default={"mode": "Karpenter", "selector": {}, "tolerations": []}),
        ".spec.nodes: default was {'mode': 'Static'",
    ),
    "unknown fields that are dropped": (
        without("spec.engine.pod.volumes", "x-kubernetes-preserve-unknown-fields"),
        ".spec.engine.pod.volumes[]: no longer keeps unknown fields",
    ),
    "another key of a list": (
        lambda d: field(d, "status")["properties"]["conditions"].update({"x-kubernetes-list-map-keys": ["reason"]}),
        ".status.conditions: x-kubernetes-list-map-keys was ['type'], is ['reason']",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_would_break_old_objects_is_found(name: str):
    change, sentence = BREAKS[name]
    new = copy.deepcopy(definitions()[POOLS])
    change(new)
    problems = broken(definitions()[POOLS], new)
    assert len(problems) == 1
    assert sentence in problems[0]


GROWTH = {
    "a new field": lambda d: field(d, "spec.model")["properties"].update({"new": {"type": "string"}}),
    "a new choice": lambda d: field(d, "spec.recipe.preset")["enum"].append("new"),
    "a lower minimum": at("spec.scaling.maxReplicas", minimum=-1),
    "no maximum": without("spec.replicas", "maximum"),
    "no pattern": without("spec.engine.version", "pattern"),
    "an optional field": without("spec.accelerator", "required"),
    "a default with more fields": at(
        "spec.nodes", default={"mode": "Static", "selector": {}, "tolerations": [], "new": 1}
    ),
    "another description": at("spec.replicas", description="Better words."),
}


@pytest.mark.parametrize("name", GROWTH)
def test_growth_is_fine(name: str):
    new = copy.deepcopy(definitions()[POOLS])
    GROWTH[name](new)
    assert new != definitions()[POOLS]
    assert broken(definitions()[POOLS], new) == []
