"""The API server refuses the same manifests, by schema and CEL, with messages that say the fix."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.badinput import BadInput
from support.badinputs import BAD_INPUTS
from support.manifests import Manifest, changed, policy_manifest, pool_manifest, shape, tier
from testcluster.api import Api, ApiError
from testcluster.cluster import Cluster
from trimtab_crds.load import SpecInvalid, load
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


#: Values at, inside and outside of every bound; a few are drawn together, so that rules meet.
POOL_VALUES: dict[str, list[Any]] = {
    "spec.replicas": [0, 1, 4, 1000, 1001, -1, "1", True, None],
    "spec.scaling": [
        {"maxReplicas": 4},
        {"minReplicas": 0, "maxReplicas": 0},
        {"minReplicas": 5, "maxReplicas": 4},
        {},
    ],
    "spec.accelerator.count": [1, 2, 4, 64, 65, 0],
    "spec.recipe.parallelism": [{"tensor": 2}, {"tensor": 2, "pipeline": 2}, {"pipeline": 4}, {"tensor": 0}, {}, None],
    "spec.recipe.speculation": [{"method": m} for m in ("none", "ngram", "eagle3", "medusa")]
    + [{"method": m, "model": "org/draft"} for m in ("dflash", "draft_model", "suffix")],
    "spec.recipe.batching": [
        {"maxSequences": a, "maxBatchedTokens": b} for a, b in ((8, 8), (9, 8), (8, None), (0, 8))
    ],
    "spec.engine.args": [["--port"], ["--port=1"], ["--portable"], ["--revision", "x"], [""], [], ["x"] * 65],
    "spec.engine.command": [["vllm"], [], ["x" * 4097]],
    "spec.model.name": ["/models/x", "a/b", "a/b/c", "-a", "a b", ""],
    "spec.model.servedName": ["x", "", "y" * 253, "y" * 254],
    "spec.model.contextTokens": [1, 0, 10_000_000, 10_000_001],
    "spec.model.shape": [shape(), shape(kvHeads=5), shape(activeParametersMillions=8191), shape(layers=0), {}],
    "spec.nodes.tolerations": [[{}], [{"operator": "Exists"}], [{"effect": "Never"}]],
    "spec.engine.pod.volumes": [[{"name": "x", "emptyDir": {}}], [{}], ["x"], {}],
    "spec.cost.gpuHourMilli": [0, -1],
    "spec.unknown": [1],
}
POLICY_VALUES: dict[str, list[Any]] = {
    "spec.tiers": [
        [tier("low")],
        [tier("low"), tier("low", pool="x")],
        [tier("low"), tier("high", pool="low")],
        [tier(f"t{i}") for i in range(16)],
        [tier(f"t{i}") for i in range(17)],
        [],
    ],
    "spec.classes": [[{"name": "math", "tier": t}] for t in ("low", "high", "t1", "nowhere")]
    + [[{"name": "math", "tier": "low"}] * 2, [{"name": "Math", "tier": "low"}]],
    "spec.context": [[{"minPromptTokens": n, "tier": t}] for n, t in ((1, "low"), (0, "low"), (1, "nowhere"))],
    "spec.classifier": [{"defaultTier": t} for t in ("low", "nowhere", None)] + [{"outOfDomainPercent": 101}],
    "spec.models": [["a", "b"], ["a", "a"], [], [""], ["a b"]],
    "spec.quality": [0, 100, 101, "50"],
    "spec.router": [{"replicas": 0}, {"workers": 0}, {"resources": {"requests": {"cpu": 1}}}],
    "spec.rebalance.mode": ["Off", "Apply", "apply", False],
    "spec.rebalance.gpuBudget": [
        [{"accelerator": "nvidia-l4-24gb", "gpus": 4}],
        [{"accelerator": "nvidia-l4-24gb", "gpus": 4}] * 2,
        [{"accelerator": "nvidia-l4-24gb"}],
        [],
    ],
    "spec.rebalance.windowSeconds": [15, 14, 86_400, 86_401],
    "spec.rebalance.intervalSeconds": [1, 300, 301],
    "spec.rebalance.prometheus.url": ["http://p", "https://p:1/x?y", "p", "http:///x", "http://a b"],
}


def mixtures(count: int, values: dict[str, list[Any]], base: Manifest) -> Iterator[Manifest]:
    """Manifests with one to three fields changed; the seed is fixed: the same ones every time."""
    chance = random.Random(7)
    for path, choices in values.items():
        for value in choices:
            yield changed(base, {path: value})
    for _ in range(count):
        paths = chance.sample(sorted(values), chance.randint(2, 3))
        yield changed(base, {path: chance.choice(values[path]) for path in paths})


def verdicts(api: Api, manifest: Manifest) -> tuple[str, str]:
    """What Python and the API server say against the manifest; empty where they take it."""
    said = ["", ""]
    try:
        load(manifest)
    except SpecInvalid as error:
        said[0] = str(error)
    try:
        dry_run(api, manifest)
    except ApiError as error:
        said[1] = error.message
    return said[0], said[1]


@pytest.mark.parametrize(
    ("values", "base"),
    [(POOL_VALUES, pool_manifest()), (POLICY_VALUES, policy_manifest())],
    ids=["pools", "policies"],
)
def test_python_and_the_api_server_come_to_the_same_verdict(api: Api, values: dict[str, list[Any]], base: Manifest):
    refused = 0
    for manifest in mixtures(200, values, base):
        in_python, on_server = verdicts(api, manifest)
        assert bool(in_python) == bool(on_server), (manifest["spec"], in_python, on_server)
        refused += bool(in_python)
    assert refused >= 50


def test_defaults_are_filled_in_by_the_server(api: Api):
    pool = dry_run(api, pool_manifest(spec__replicas=None))["spec"]
    assert pool["replicas"] == 1
    assert pool["drain"] == {"deadlineSeconds": 300}
    assert pool["recipe"] == {"preset": "balanced", "attention": "standard", "scheduling": "fcfs", "sleepMode": False}
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
        api_server.kubectl("delete", "tpool/shown", "tpolicy/shown", "--ignore-not-found")


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
