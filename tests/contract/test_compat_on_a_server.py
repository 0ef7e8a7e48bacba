"""Objects of released shapes are admitted by a real API server with the present CRDs, and their status may be read."""

from pathlib import Path
from typing import Any

import pytest

from support import released
from testcluster.cluster import Cluster
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

PLURALS = {"InferencePool": "inferencepools", "RoutingPolicy": "routingpolicies"}


@pytest.mark.parametrize("file", released.FILES, ids=lambda file: file.stem)
def test_released_objects_are_admitted(api_server: Cluster, file: Path):
    api_server.install_crds(definitions().values())
    for manifest in released.manifests(file):
        metadata = {**manifest["metadata"], "namespace": "default"}
        path = f"/apis/trimtab.dev/v1alpha1/namespaces/default/{PLURALS[manifest['kind']]}"
        query = "?dryRun=All&fieldValidation=Strict"
        created = api_server.api.create(path + query, {**manifest, "metadata": metadata})
        assert created["metadata"]["name"] == manifest["metadata"]["name"]


def kept(old: Any, new: Any) -> Any:
    """Of `new`, what `old` has too, at any depth."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: kept(value, new[key]) for key, value in old.items() if key in new}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [kept(*pair) for pair in zip(old, new, strict=True)]
    return new


def test_objects_of_the_released_definitions_are_kept_by_the_present_ones(api_server: Cluster):
    """An upgrade in place: stored under the old definition, read and written again under the new one."""
    names = sorted(definitions())
    api_server.install_crds(released.definition(name) for name in names)
    namespace = api_server.namespace("compat-upgrade")
    try:
        manifests = [
            {**m, "metadata": {**m["metadata"], "namespace": namespace}}
            for file in released.FILES
            if file.stem in ("presets", "engine", "nodes", "quickstart")
            for m in released.manifests(file)
        ]
        api_server.apply(manifests)
        before = {name: api_server.get(name, "-n", namespace)["items"] for name in PLURALS.values()}
        api_server.install_crds(definitions().values())
        after = {name: api_server.get(name, "-n", namespace)["items"] for name in PLURALS.values()}
        assert sum(map(len, before.values())) == len(manifests)
        assert "unchanged" in api_server.apply(manifests)
        for name in PLURALS.values():
            for old, new in zip(before[name], after[name], strict=True):
                assert old["metadata"] == new["metadata"]
                assert kept(old["spec"], new["spec"]) == old["spec"], "only fields with defaults may come"
    finally:
        api_server.install_crds(definitions().values())
        api_server.remove_namespace(namespace, wait=False)
