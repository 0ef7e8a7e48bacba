"""Objects of released shapes still parse and mean the same: what an upgrade must not change under anybody."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from support import golden, released
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.desired import pool_objects
from trimtab_operator.core.recipe import resolve

KINDS = {"InferencePool": "inferencepools.trimtab.dev.yaml", "RoutingPolicy": "routingpolicies.trimtab.dev.yaml"}
NAMES = [file.name for file in released.FILES]


def file_of(name: str) -> Path:
    return next(file for file in released.FILES if file.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_they_parse(name: str):
    found = released.resources(file_of(name))
    assert [(i.document.name, i.problems) for i in found.invalid] == []
    assert len(found.pools) + len(found.policies) == len(released.manifests(file_of(name)))


@pytest.mark.parametrize("name", NAMES)
def test_they_mean_the_same(name: str):
    text = yaml.safe_dump(released.meaning(file_of(name)), sort_keys=False, width=110)
    golden.check(f"compat/v1alpha1/{name}", text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_released_field_and_choice_is_kept_in_some_object(kind: str):
    schema = released.definition(KINDS[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    promised = set(released.choices(schema["properties"]["spec"]))
    kept = {
        use
        for file in released.FILES
        for manifest in released.manifests(file)
        if manifest["kind"] == kind
        for use in released.uses(manifest["spec"])
    }
    assert sorted(promised - kept, key=str) == []
    assert len(promised) >= 50


def test_pods_have_what_their_pool_says():
    (pool,) = released.resources(file_of("engine.yaml")).pools.values()
    wanted, (pod, engine) = pool.spec.engine.pod, engine_of(pool)
    assert engine["image"] == "registry.example.com/vllm:0.32.0"
    assert engine["command"][:5] == ["python3", "-m", "vllm.entrypoints.cli.main", "serve", "/models/llama"]
    assert [flag for flag in ("--enforce-eager", "--seed=7") if flag in engine["command"]] == list(
        pool.spec.engine.args
    )
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in engine["env"]
    assert "EMPTY" in [entry["name"] for entry in engine["env"]]
    assert wanted.requests.items() <= engine["resources"]["requests"].items()
    assert wanted.limits.items() <= engine["resources"]["limits"].items()
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert wanted.volumes[0] in pod["volumes"]
    assert wanted.volume_mounts[0] in engine["volumeMounts"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["securityContext"]["runAsUser"] == 2000
    assert pod["terminationGracePeriodSeconds"] >= 7200


def test_pods_go_to_the_nodes_that_their_pool_says():
    pools = released.resources(file_of("nodes.yaml")).pools
    pod, _ = engine_of(pools["default", "nodes-static"])
    assert pod["nodeSelector"]["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    tolerations = [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"},
        {"key": "spot", "operator": "Equal", "value": "true", "effect": "PreferNoSchedule"},
    ]
    assert [t for t in tolerations if t not in pod["tolerations"]] == []


def engine_of(pool: InferencePool) -> tuple[Any, Any]:
    """The pod's spec and its engine's container."""
    children = pool_objects(pool, resolve(pool), replicas=0)
    (pod,) = [m["spec"]["template"]["spec"] for m in children if m["kind"] == "Deployment"]
    return pod, next(c for c in pod["containers"] if c["name"] == "engine")
