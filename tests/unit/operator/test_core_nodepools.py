"""NodePools and ComputeClasses as they are written, and what of them the pods get."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.manifests import compute_class, karpenter, pool_manifest
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import load
from trimtab_operator.core import names, nodepools
from trimtab_operator.core.enginepod import pod_template

UID = "11111111-1111-1111-1111-111111111111"
NAME = "trimtab-default-low-01f9d20d"


def pool_of(nodes: dict[str, Any], accelerator: str = "nvidia-h100-80gb", count: int = 1) -> InferencePool:
    gpu = {"name": accelerator, "count": count}
    pool = load(pool_manifest(metadata__uid=UID, spec__nodes=nodes, spec__accelerator=gpu))
    assert isinstance(pool, InferencePool)
    return pool


def made(nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    pool = pool_of(nodes, **more)
    assert nodepools.refusals(pool) == ()
    manifest = nodepools.node_object(pool)
    assert manifest is not None
    return manifest


def test_static_nodes_need_nothing():
    pool = pool_of({"selector": {"a": "b"}})
    assert nodepools.node_object(pool) is None
    assert nodepools.pod_selector(pool) == {"a": "b"}
    assert nodepools.pod_annotations(pool) == {}


def test_a_node_pool_of_karpenter():
    manifest = made(
        karpenter(
            capacityTypes=["spot", "on-demand"],
            requirements=[{"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["us-east-1e"]}],
            maxGpus=16,
            expireAfterHours=720,
            disruption={
                "consolidateAfterSeconds": 60,
                "budgets": [{"nodes": "10%"}, {"nodes": "0", "schedule": "0 8 * * 1-5", "durationMinutes": 600}],
            },
        )
        | {"selector": {"team": "a"}}
    )
    assert (manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]) == (
        "karpenter.sh/v1",
        "NodePool",
        NAME,
    )
    assert "ownerReferences" not in manifest["metadata"]
    assert "namespace" not in manifest["metadata"]
    assert manifest["spec"] == {
        "limits": {"nvidia.com/gpu": "16"},
        "disruption": {
            "consolidationPolicy": "WhenEmpty",
            "consolidateAfter": "60s",
            "budgets": [{"nodes": "10%"}, {"nodes": "0", "schedule": "0 8 * * 1-5", "duration": "600m"}],
        },
        "template": {
            "metadata": {"labels": {"trimtab.dev/pool": "low"}},
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
                "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
                "expireAfter": "720h",
                "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand", "spot"]},
                    {"key": "karpenter.k8s.aws/instance-gpu-name", "operator": "In", "values": ["h100"]},
                    {"key": "team", "operator": "In", "values": ["a"]},
                    {"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["us-east-1e"]},
                ],
            },
        },
    }


def test_by_default_nodes_stay_while_replicas_are_on_them():
    spec = made(karpenter())["spec"]
    assert spec["template"]["spec"]["expireAfter"] == "Never"
    assert spec["disruption"] == {
        "consolidationPolicy": "WhenEmpty",
        "consolidateAfter": "300s",
        "budgets": [{"nodes": "1"}],
    }
    assert nodepools.pod_annotations(pool_of(karpenter())) == {"karpenter.sh/do-not-disrupt": "true"}
    packed = pool_of(karpenter(disruption={"consolidation": "WhenEmptyOrUnderutilized"}))
    assert nodepools.pod_annotations(packed) == {}


@pytest.mark.parametrize(
    ("accelerator", "low", "high"), [("nvidia-a100-40gb", 36864, 45056), ("nvidia-a100-80gb", 73728, 90112)]
)
def test_two_gpus_of_one_name_are_told_apart_by_memory(accelerator: str, low: int, high: int):
    memory = "karpenter.k8s.aws/instance-gpu-memory"
    requirements = made(karpenter(), accelerator=accelerator)["spec"]["template"]["spec"]["requirements"]
    assert [(r["operator"], r["values"]) for r in requirements if r["key"] == memory] == [
        ("Gt", [str(low)]),
        ("Lt", [str(high)]),
    ]


def test_a_compute_class_of_gke():
    nodes = compute_class(
        {"machineType": "a3-highgpu-8g", "spot": True, "gpus": 8},
        {"machineFamily": "a3", "flexStart": True},
        {},
    )
    nodes["gkeComputeClass"]["consolidationDelayMinutes"] = 10
    manifest = made(nodes | {"selector": {"team": "a", "topology.kubernetes.io/zone": "us-central1-a"}}, count=2)
    assert (manifest["apiVersion"], manifest["kind"]) == ("cloud.google.com/v1", "ComputeClass")
    gpu = {"type": "nvidia-h100-80gb", "count": 2}
    assert manifest["spec"] == {
        "nodePoolAutoCreation": {"enabled": True},
        "nodePoolConfig": {"nodeLabels": {"team": "a"}},
        "autoscalingPolicy": {"consolidationDelayMinutes": 10},
        "whenUnsatisfiable": "DoNotScaleUp",
        "priorities": [
            {"gpu": {"type": "nvidia-h100-80gb", "count": 8}, "spot": True, "machineType": "a3-highgpu-8g"},
            {"gpu": gpu, "spot": False, "machineFamily": "a3", "flexStart": {"enabled": True}},
            {"gpu": gpu, "spot": False},
        ],
    }


@pytest.mark.parametrize(
    ("nodes", "label"),
    [(karpenter(), "karpenter.sh/nodepool"), (compute_class({}), "cloud.google.com/compute-class")],
    ids=["Karpenter", "GKE"],
)
def test_pods_go_to_their_own_nodes_only(nodes: dict[str, Any], label: str):
    pool = pool_of(nodes | {"selector": {"team": "a"}})
    template = pod_template(pool, [], {})
    assert template["spec"]["nodeSelector"] == {"team": "a", label: NAME}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in template["spec"]["tolerations"]
    assert "affinity" not in template["spec"]


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        pytest.param(
            pool_of(karpenter(), accelerator="nvidia-a10-24gb"),
            "nodes.karpenter.requirements is empty, and no label of karpenter.k8s.aws is known for accelerator.name "
            "nvidia-a10-24gb; add the requirement that chooses machines with this GPU",
            id="a GPU that AWS has no label for",
        ),
        pytest.param(
            pool_of(karpenter(nodeClassRef={"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "x"})),
            "nodes.karpenter.requirements is empty, and no label of karpenter.azure.com is known for accelerator.name "
            "nvidia-h100-80gb; add the requirement that chooses machines with this GPU",
            id="another cloud",
        ),
        pytest.param(
            pool_of(karpenter(maxGpus=2), count=4),
            "nodes.karpenter.maxGpus 2 is below accelerator.count 4; raise it: not one replica fits",
            id="a limit below one replica",
        ),
        pytest.param(
            pool_of(karpenter(requirements=[{"key": "x/gpus", "operator": "Gt", "values": ["many"]}])),
            "nodes.karpenter.requirements[].values ['many'] of x/gpus do not fit operator Gt; give one whole number",
            id="a comparison with a word",
        ),
        pytest.param(
            pool_of(compute_class({"gpus": 1}), count=2),
            "nodes.gkeComputeClass.priorities[0].gpus 1 is below accelerator.count 2; "
            "raise it: a replica needs all its GPUs on one node",
            id="too small a machine",
        ),
    ],
)
def test_nodes_that_could_never_be_made(pool: InferencePool, words: str):
    assert nodepools.refusals(pool) == (words,)


def test_a_gpu_that_gke_does_not_have():
    (words,) = nodepools.refusals(pool_of(compute_class({}), accelerator="nvidia-a10-24gb"))
    assert words.startswith("accelerator.name nvidia-a10-24gb is not offered by GKE; use nodes.mode Static, or one of ")
    assert "nvidia-l4-24gb" in words
    assert "nvidia-a10-24gb," not in words


@pytest.mark.parametrize("nodes", [karpenter(), compute_class({})], ids=["Karpenter", "GKE"])
def test_slices_need_nodes_that_are_there(nodes: dict[str, Any]):
    (words,) = nodepools.refusals(pool_of(nodes, accelerator="nvidia-h100-80gb-mig-3g-40gb"))
    assert words == (
        f"accelerator.name nvidia-h100-80gb-mig-3g-40gb is a slice, which nodes.mode {nodes['mode']} cannot make; "
        "use nodes.mode Static"
    )


def test_a_slice_is_asked_for_by_its_profile():
    pod = pod_template(pool_of({}, accelerator="nvidia-h100-80gb-mig-3g-40gb"), [], {})
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/mig-3g.40gb": "1"}
    assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_whose_an_object_is_its_uid_says():
    manifest = made(karpenter())
    assert nodepools.is_of(manifest, UID)
    assert not nodepools.is_of(manifest, "22222222-2222-2222-2222-222222222222")
    assert not nodepools.is_of(manifest, "")
    foreign = {"metadata": {"labels": {names.POOL_UID_LABEL: UID}}}
    assert not nodepools.is_of(foreign, UID)
    assert nodepools.owner_of(manifest) == ("default", "low")
    assert nodepools.owner_of(foreign) is None


LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?", fullmatch=True)


@given(LABELS, LABELS, LABELS, LABELS)
def test_no_two_pools_share_nodes(namespace: str, pool: str, other_namespace: str, other: str):
    first, second = names.nodes_name(namespace, pool), names.nodes_name(other_namespace, other)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])", first)
    assert (first == second) == ((namespace, pool) == (other_namespace, other))
