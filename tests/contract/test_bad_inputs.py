"""The API server refuses the same manifests, by schema and CEL, with messages that say the fix."""

from collections.abc import Iterator

import pytest
import yaml

from support.badinputs import BAD_INPUTS, BadInput
from support.manifests import Manifest, policy_manifest, pool_manifest
from testcluster.api import Api, ApiError
from testcluster.cluster import Cluster
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

NAMESPACE = "default"
PLURALS = {"InferencePool": "inferencepools", "RoutingPolicy": "routingpolicies"}


@pytest.fixture(scope="module")
def api(api_server: Cluster) -> Iterator[Api]:
    api_server.install_crds(definitions().values())
    return api_server.api


def path(kind: str) -> str:
    return f"/apis/trimtab.dev/v1alpha1/namespaces/{NAMESPACE}/{PLURALS[kind]}"


def dry_run(api: Api, manifest: Manifest) -> Manifest:
    """Create without keeping; fields that nobody knows are an error, as `kubectl` asks for."""
    return api.create(f"{path(manifest['kind'])}?dryRun=All&fieldValidation=Strict", manifest)


@pytest.mark.parametrize("bad", [b for b in BAD_INPUTS if b.server], ids=lambda bad: bad.id)
def test_a_bad_manifest_is_refused_with_these_words(api: Api, bad: BadInput):
    with pytest.raises(ApiError) as refused:
        dry_run(api, bad.manifest)
    assert refused.value.status in (400, 422)
    assert bad.server in refused.value.message


@pytest.mark.parametrize("bad", [b for b in BAD_INPUTS if not b.server], ids=lambda bad: bad.id)
def test_the_catalogue_is_not_part_of_the_schema(api: Api, bad: BadInput):
    assert dry_run(api, bad.manifest)["kind"] == bad.manifest["kind"]


def test_defaults_are_filled_in_by_the_server(api: Api):
    pool = dry_run(api, pool_manifest(spec__replicas=None))["spec"]
    assert pool["replicas"] == 1
    assert pool["drain"] == {"deadlineSeconds": 300}
    assert pool["recipe"] == {"preset": "balanced"}
    policy = dry_run(api, policy_manifest())["spec"]
    assert policy["rebalance"]["mode"] == "DryRun"
    assert policy["router"]["replicas"] == 1


def test_the_scale_subresource_is_held_to_the_bounds(api: Api):
    manifest = pool_manifest("scaled", spec__scaling={"minReplicas": 1, "maxReplicas": 3})
    one = f"{path('InferencePool')}/scaled"
    api.create(path("InferencePool"), manifest)
    try:
        assert api.merge(f"{one}/scale", {"spec": {"replicas": 3}})["spec"]["replicas"] == 3
        with pytest.raises(ApiError, match=r"replicas 9 is outside scaling\.minReplicas 1 to maxReplicas 3"):
            api.merge(f"{one}/scale", {"spec": {"replicas": 9}})
    finally:
        api.delete(one)


def test_the_status_is_not_written_with_the_spec(api: Api):
    manifest = pool_manifest("sly") | {"status": {"replicas": 7}}
    api.create(path("InferencePool"), manifest)
    try:
        assert "status" not in api.get(f"{path('InferencePool')}/sly")
    finally:
        api.delete(f"{path('InferencePool')}/sly")


def test_kubectl_explains_every_level_and_prints_columns(api_server: Cluster, api: Api):
    text = api_server.kubectl("explain", "inferencepools.trimtab.dev.spec.recipe.speculation", "--recursive")
    assert "Speculative decoding" in text
    assert "tokens\t<integer>" in text
    api_server.apply([pool_manifest("shown"), policy_manifest("shown")])
    try:
        assert "MODEL" in api_server.kubectl("get", "tpool", "shown")
        assert "QUALITY" in api_server.kubectl("get", "tpolicy", "shown")
        names = api_server.kubectl("get", "trimtab", "-o", "name").split()
        assert {"inferencepool.trimtab.dev/shown", "routingpolicy.trimtab.dev/shown"} <= set(names)
    finally:
        api_server.kubectl("delete", "trimtab", "shown", "--wait=false", check=False)


def test_yaml_needs_quotes_around_off(api_server: Cluster, api: Api):
    manifest = policy_manifest("off", spec__rebalance={"mode": "Off"})
    text = yaml.safe_dump(manifest)
    assert "'Off'" in text
    assert "created (server dry run)" in api_server.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
    bare = api_server.run(
        "kubectl", "apply", "--dry-run=server", "-f", "-", stdin=text.replace("'Off'", "Off"), check=False
    )
    assert bare.returncode == 1
    assert 'spec.rebalance.mode in body must be of type string: "boolean"' in bare.stderr
