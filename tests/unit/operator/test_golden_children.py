"""The children of pools and policies, whole: read the difference before accepting it."""

from typing import Any

import pytest
import yaml

from support import golden
from support.manifests import policy_manifest, pool_manifest, shape
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import names
from trimtab_operator.core.desired import ChildSettings, policy_objects, pool_objects
from trimtab_operator.core.recipe import resolve
from trimtab_operator.core.routerconfig import compile_config

SETTINGS = ChildSettings(router_image="localhost/trimtab:test")
POOLS = {
    "plain": pool_manifest(metadata__uid="11111111-1111-1111-1111-111111111111"),
    "everything": pool_manifest(
        "high",
        metadata__namespace="team-a",
        metadata__uid="22222222-2222-2222-2222-222222222222",
        metadata__labels={"app.kubernetes.io/part-of": "assistant", "team": "a"},
        spec__accelerator={"name": "nvidia-h100-80gb", "count": 4},
        spec__model={
            "name": "/models/qwen3-32b",
            "servedName": "qwen3-32b",
            "contextTokens": 40960,
            "reasoningParser": "qwen3",
            "cache": {"claimName": "weights", "readOnly": True},
            "shape": shape(parametersMillions=32800, layers=64, attentionHeads=64),
        },
        spec__recipe={
            "preset": "reasoning",
            "quantization": "fp8",
            "kvCache": {"dtype": "fp8"},
            "parallelism": {"tensor": 2, "pipeline": 2},
            "batching": {"maxSequences": 128, "maxQueuedRequests": 64},
            "speculation": {"method": "ngram"},
        },
        spec__engine={
            "image": "registry.example.com/vllm:1",
            "args": ["--enforce-eager"],
            "env": [{"name": "HF_HOME", "value": "/extra/cache"}, {"name": "TORCH_COMPILE_DISABLE", "value": "1"}],
            "pod": {
                "volumes": [{"name": "extra", "persistentVolumeClaim": {"claimName": "extra", "readOnly": None}}],
                "volumeMounts": [
                    {"name": "extra", "mountPath": "/extra"},
                    {"name": "extra", "mountPath": "/tmp", "subPath": "tmp"},
                ],
                "requests": {"cpu": "8", "memory": "64Gi"},
                "limits": {"memory": "64Gi"},
                "imagePullSecrets": ["registry"],
                "runAsUser": 4711,
                "priorityClassName": "serving",
                "topologySpread": [
                    {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
                ],
            },
        },
        spec__network={"isolated": True, "allowFrom": [{"podSelector": {"matchLabels": {"app": "probe"}}}]},
        spec__nodes={
            "selector": {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"},
            "tolerations": [{"key": "team", "value": "a", "effect": "NoSchedule"}],
        },
        spec__drain={"deadlineSeconds": 3600},
    ),
    "two-nodes": pool_manifest(
        "wide",
        metadata__uid="44444444-4444-4444-4444-444444444444",
        spec__accelerator={
            "name": "nvidia-h100-80gb",
            "count": 16,
            "nodes": 2,
            "exclusiveTopology": "cloud.google.com/gke-nodepool",
        },
        spec__model={"name": "/models/large", "cache": {"claimName": "weights", "readOnly": True}, "offline": True},
        spec__network={"isolated": True},
        spec__rollout={"canary": {}},
    ),
}


def as_yaml(manifests: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(manifests, sort_keys=False, width=110)


def load_pool(manifest: dict[str, Any]) -> InferencePool:
    pool = load(manifest)
    assert isinstance(pool, InferencePool)
    return pool


@pytest.mark.parametrize("name", POOLS)
def test_children_of_a_pool(name: str):
    pool = load_pool(POOLS[name])
    resolution = resolve(pool)
    assert resolution.reasons == ()
    golden.check(f"operator/pool-{name}.yaml", as_yaml(pool_objects(pool, resolution, replicas=0)))


@pytest.mark.parametrize("routers", [1, 2])
def test_children_of_a_policy(routers: int):
    pools = {
        "low": load_pool(pool_manifest("low", spec__model__shape=shape(), spec__model__contextTokens=8192)),
        "high": load_pool(POOLS["everything"]),
    }
    router: dict[str, Any] = {"replicas": routers, "workers": 2, "resources": {"requests": {"cpu": "1"}, "limits": {}}}
    router |= {"network": {"isolated": True}} if routers == 2 else {}
    policy = load(policy_manifest(metadata__uid="33333333-3333-3333-3333-333333333333", spec__router=router))
    assert isinstance(policy, RoutingPolicy)
    manifests = policy_objects(policy, compile_config(policy, pools), SETTINGS, pools)
    golden.check(f"operator/policy-{routers}-routers.yaml", as_yaml(manifests))


def pod_specs() -> list[Any]:
    pools = [load_pool(POOLS[name]) for name in ("everything", "two-nodes")]
    plain = pools[0]
    children = [child for pool in pools for child in pool_objects(pool, resolve(pool), replicas=0)]
    policy = load(policy_manifest(spec__tiers=[{"name": "high", "poolRef": {"name": "high"}}]))
    assert isinstance(policy, RoutingPolicy)
    children += policy_objects(policy, compile_config(policy, {"high": plain}), SETTINGS)
    [group] = [m["spec"]["leaderWorkerTemplate"] for m in children if m["kind"] == "LeaderWorkerSet"]
    templates = [m["spec"]["template"] for m in children if m["kind"] == "Deployment"]
    return [template["spec"] for template in (*templates, group["leaderTemplate"], group["workerTemplate"])]


@pytest.mark.parametrize("spec", pod_specs(), ids=["engine", "router", "leader", "worker"])
def test_pods_meet_pod_security_restricted(spec: dict[str, Any]):
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert not any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))


@pytest.mark.parametrize("spec", pod_specs(), ids=["engine", "router", "leader", "worker"])
def test_no_service_link_can_reach_the_engine(spec: dict[str, Any]):
    """A Service named vllm would inject VLLM_PORT=tcp://..., which vLLM reads as its own port."""
    assert spec["enableServiceLinks"] is False


def test_a_pod_may_drain_before_it_is_killed():
    spec, router, leader, _ = pod_specs()
    (container,) = spec["containers"]
    command = container["command"]
    drain = int(command[command.index("--shutdown-timeout") + 1])
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain == 3600
    assert spec["terminationGracePeriodSeconds"] > drain + pre_stop
    (container,) = router["containers"]
    drain = int(container["command"][container["command"].index("--drain-seconds") + 1])
    assert router["terminationGracePeriodSeconds"] > drain + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert leader["terminationGracePeriodSeconds"] == spec["terminationGracePeriodSeconds"] - 3600 + 300


def test_a_policy_may_ask_its_routers_for_the_decision_log():
    def command(**changes: Any) -> list[str]:
        policy = load(policy_manifest(spec__tiers=[{"name": "high", "poolRef": {"name": "high"}}], **changes))
        assert isinstance(policy, RoutingPolicy)
        pool = load_pool(POOLS["everything"])
        objects = policy_objects(policy, compile_config(policy, {"high": pool}), SETTINGS)
        (router,) = [m for m in objects if m["kind"] == "Deployment"]
        return list(router["spec"]["template"]["spec"]["containers"][0]["command"])

    assert "--decision-log" not in command()
    assert command(spec__router={"decisionLog": "Stdout"})[-2:] == ["--decision-log", "-"]


def test_routers_get_the_keys_of_tenants_as_optional_read_only_mounts():
    keys = {name: {"secretRef": {"name": f"keys.{name}"}} for name in ("acme", "0" * 63)}
    tenants = [{"name": "default"}, *({"name": name, "apiKeys": own} for name, own in keys.items())]
    tiers = [{"name": "high", "poolRef": {"name": "high"}}]
    policy = load(policy_manifest(spec__tiers=tiers, spec__tenants=tenants))
    assert isinstance(policy, RoutingPolicy)
    objects = policy_objects(policy, compile_config(policy, {"high": load_pool(POOLS["everything"])}), SETTINGS)
    (spec,) = [m["spec"]["template"]["spec"] for m in objects if m["kind"] == "Deployment"]
    (container,) = spec["containers"]
    mounted = {m["mountPath"]: m["name"] for m in container["volumeMounts"] if m.get("readOnly")}
    secrets = {v["name"]: v["secret"] for v in spec["volumes"] if "secret" in v}
    assert mounted.pop("/etc/trimtab") == "config"
    assert mounted == {f"/etc/trimtab-keys/{n}": v for n, v in zip(keys, secrets, strict=True)}
    assert [s["secretName"] for s in secrets.values()] == ["keys.acme", f"keys.{'0' * 63}"]
    assert all(s["optional"] is True and s["defaultMode"] == 0o440 for s in secrets.values())
    assert all(len(name) <= 63 for name in secrets)
    assert container["command"][-2:] == ["--keys", "/etc/trimtab-keys"]
    assert "Secret" not in {m["kind"] for m in objects}


def test_a_slow_start_has_half_an_hour():
    spec, *_ = pod_specs()
    probe = spec["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800


def test_the_digest_tells_desires_apart_and_does_not_depend_on_replicas():
    pool = load_pool(POOLS["plain"])

    def digest(manifests: list[dict[str, Any]]) -> str:
        return str(manifests[-1]["metadata"]["annotations"][names.DIGEST_ANNOTATION])

    created = pool_objects(pool, resolve(pool), replicas=0)
    kept = pool_objects(pool, resolve(pool), replicas=None)
    assert digest(created) == digest(kept)
    assert "replicas" not in kept[-1]["spec"]
    other = load_pool(pool_manifest(spec__model__revision="v2"))
    assert digest(pool_objects(other, resolve(other), replicas=None)) != digest(kept)


def test_an_owner_that_no_server_knows_is_not_referenced():
    pool = load_pool(pool_manifest())
    assert all("ownerReferences" not in m["metadata"] for m in pool_objects(pool, resolve(pool), replicas=1))
