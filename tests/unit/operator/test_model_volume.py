"""Where the engine's model comes from, and who may reach and displace its pods."""

import asyncio
from typing import Any

import pytest

from support.manifests import policy_manifest, pool_manifest
from support.operatorparts import NOW, Bench
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import conditions, modelvolume, networkpolicies
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.enginepod import pod_template
from trimtab_operator.core.kinds import NETWORK_POLICY, POLICY, POOL
from trimtab_operator.core.observe import Observation
from trimtab_operator.core.poolstatus import PoolView, pool_status
from trimtab_operator.core.recipe import resolve
from trimtab_operator.shell.reconcile import reconcile_policy, reconcile_pool


def pool_of(name: str = "low", **changes: Any) -> InferencePool:
    pool = load(pool_manifest(name, **changes))
    assert isinstance(pool, InferencePool)
    return pool


def spec_of(**changes: Any) -> dict[str, Any]:
    return dict(pod_template(pool_of(**changes), [], {})["spec"])


def engine_env(spec: dict[str, Any]) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in spec["containers"][0]["env"]}


@pytest.mark.parametrize(
    ("cache", "name", "source", "read_only"),
    [
        ({"claimName": "models"}, "org/model", {"persistentVolumeClaim": {"claimName": "models"}}, None),
        (
            {"claimName": "models", "readOnly": True},
            "/models/x",
            {"persistentVolumeClaim": {"claimName": "models"}},
            True,
        ),
        ({"hostPath": "/mnt/nvme"}, "org/model", {"hostPath": {"path": "/mnt/nvme", "type": "Directory"}}, None),
        (
            {"image": "registry/model:1"},
            "/models/x",
            {"image": {"reference": "registry/model:1", "pullPolicy": "IfNotPresent"}},
            True,
        ),
    ],
    ids=["claim", "read-only claim", "folder of the node", "image"],
)
def test_the_cache_is_mounted(cache: dict[str, Any], name: str, source: dict[str, Any], read_only: bool | None):
    spec = spec_of(spec__model__cache=cache, spec__model__name=name)
    assert {"name": modelvolume.VOLUME, **source} in spec["volumes"]
    mount = {"name": modelvolume.VOLUME, "mountPath": "/models", "readOnly": read_only}
    assert mount in spec["containers"][0]["volumeMounts"]
    assert engine_env(spec)["HF_HOME"] == ("/models" if name == "org/model" else "/home/engine/.cache/huggingface")


def test_without_a_cache_nothing_is_mounted_and_the_hub_may_be_asked():
    spec = spec_of()
    assert modelvolume.VOLUME not in [v["name"] for v in spec["volumes"]]
    assert {"HF_HUB_OFFLINE", "HF_TOKEN"}.isdisjoint(engine_env(spec))


def test_the_token_is_read_from_its_secret_and_never_copied():
    env = engine_env(spec_of(spec__model__tokenSecret={"name": "hf", "key": "token"}))
    assert env["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}


def test_offline_engines_are_told_so():
    spec = spec_of(spec__model__offline=True, spec__model__cache={"claimName": "models", "readOnly": True})
    assert engine_env(spec)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ('secret "hf" not found', "TokenSecretMissing"),
        ("couldn't find key HF_TOKEN in Secret default/hf", "TokenSecretMissing"),
        ('secret "other" not found', "PodsNotReady"),
        ('configmap "hf" not found', "PodsNotReady"),
    ],
)
def test_a_missing_token_is_explained(says: str, reason: str):
    pool = pool_of(spec__model__tokenSecret={"name": "hf"})
    seen = Observation(exists=True, desired=1, starting=1, trouble=f"CreateContainerConfigError: {says}")
    nodes = Fact(conditions.NODES_READY, status=True, reason="Scheduled", message="")
    view = PoolView(pool=pool, resolution=resolve(pool), seen=seen, problem=None, gpus=1, nodes=nodes)
    found = pool_status(view, name="low", generation=1, now=NOW)["conditions"]
    (ready,) = [c for c in found if c["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", reason)


def test_a_variable_of_a_volume_that_meets_the_cache_is_refused():
    taken = pool_of(
        spec__model__cache={"claimName": "models"},
        spec__engine={
            "pod": {
                "volumes": [{"name": "trimtab-model", "emptyDir": {}}],
                "volumeMounts": [{"name": "x", "mountPath": "/models"}],
            }
        },
    )
    assert resolve(taken).reasons == (
        "engine.pod.volumes[0].name trimtab-model is the operator's own; choose another name",
        "engine.pod.volumeMounts[0].mountPath /models is model.cache.mountPath too; change one of them",
    )


def test_pods_are_spread_softly_unless_the_user_says_otherwise():
    def spread(**pod_: Any) -> Any:
        return spec_of(spec__engine={"pod": pod_}).get("topologySpreadConstraints")

    assert [(c["topologyKey"], c["whenUnsatisfiable"]) for c in spread()] == [
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
        ("kubernetes.io/hostname", "ScheduleAnyway"),
    ]
    assert spread(topologySpread=[]) is None
    mine = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    selector = {"matchLabels": {"trimtab.dev/pool": "low"}}
    assert spread(topologySpread=[mine]) == [{"labelSelector": selector, **mine}]
    own = {**mine, "labelSelector": {"matchLabels": {"team": "a"}}}
    assert spread(topologySpread=[own]) == [own]


def test_the_priority_is_that_of_the_class():
    assert "priorityClassName" not in spec_of()
    assert spec_of(spec__engine={"pod": {"priorityClassName": "serving"}})["priorityClassName"] == "serving"


def test_an_isolated_pool_without_the_hub_reaches_dns_alone():
    offline = pool_of(spec__network={"isolated": True}, spec__model__name="/models/x", spec__model__offline=True)
    made = networkpolicies.of_engines(offline)
    assert made is not None
    (dns,) = made["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    online = networkpolicies.of_engines(pool_of(spec__network={"isolated": True}))
    assert online is not None
    assert online["spec"]["policyTypes"] == ["Ingress"]


def test_routers_reach_the_pools_that_answer_and_verify():
    judged = {"type": "BestOfN", "verifierPoolRef": {"name": "judge"}}
    policy = load(
        policy_manifest(
            spec__router={"network": {"isolated": True, "allowFrom": [{"podSelector": {}}]}},
            spec__classes=[{"name": "math", "tier": "high", "strategy": judged}],
        )
    )
    assert isinstance(policy, RoutingPolicy)
    pools = {name: pool_of(name) for name in ("low", "high", "judge", "other")}
    (made,) = networkpolicies.of_routers(policy, pools)
    assert made["spec"]["egress"][0]["to"][0]["podSelector"]["matchExpressions"][0]["values"] == [
        "high",
        "judge",
        "low",
    ]
    assert made["spec"]["ingress"][0] == {
        "from": [{"podSelector": {}}],
        "ports": [{"protocol": "TCP", "port": 8080}],
    }


def test_isolation_comes_and_goes_with_the_fields():
    bench = Bench()
    bench.add_pool("low", spec__network={"isolated": True})
    bench.add_pool("high")
    bench.add_policy()

    def passes() -> set[str]:
        for name in ("low", "high"):
            asyncio.run(reconcile_pool(bench.refresh(), ("default", name)))
        asyncio.run(reconcile_policy(bench.refresh(), ("default", "chat")))
        return {key[2] for key in bench.cluster.objects if key[0] == NETWORK_POLICY.kind}

    assert passes() == {"low-engine", "chat-router-engines"}
    bench.cluster.change(POLICY, "chat", {"spec": {"router": {"network": {"isolated": True}}}})
    assert passes() == {"low-engine", "chat-router-engines", "chat-router"}
    bench.cluster.change(POOL, "low", {"spec": {"network": {"isolated": False}}})
    assert passes() == {"chat-router"}
