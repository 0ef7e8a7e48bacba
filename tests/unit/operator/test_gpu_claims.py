"""GPUs by Dynamic Resource Allocation: the template, the pods, and the operator's care for both."""

import asyncio
from typing import Any

import pytest

from support.manifests import pool_manifest
from support.operatorparts import H100, Bench
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import load
from trimtab_operator.core import gpuclaim
from trimtab_operator.core.enginepod import pod_template
from trimtab_operator.core.kinds import CLAIM_TEMPLATE, POOL
from trimtab_operator.core.observe import gpus_requested
from trimtab_operator.core.pacing import Result
from trimtab_operator.shell.reconcile import reconcile_pool

KEY = ("default", "low")


def pool_of(**accelerator: Any) -> InferencePool:
    pool = load(pool_manifest(spec__accelerator={"name": H100, "allocation": "DRA", **accelerator}))
    assert isinstance(pool, InferencePool)
    return pool


def run(bench: Bench) -> Result:
    return asyncio.run(reconcile_pool(bench.refresh(), KEY))


def templates(bench: Bench) -> list[str]:
    return [name for kind, _, name in bench.cluster.objects if kind == CLAIM_TEMPLATE.kind]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_pool(spec__accelerator={"name": H100, "allocation": "DRA", "count": 2})
    return made


def test_the_template_asks_for_the_gpus_of_one_replica():
    template = gpuclaim.claim_template(pool_of(count=4, deviceClassName="mig.nvidia.com"))
    assert template is not None
    assert template["spec"] == {
        "spec": {
            "devices": {
                "requests": [
                    {
                        "name": "gpus",
                        "exactly": {"deviceClassName": "mig.nvidia.com", "allocationMode": "ExactCount", "count": 4},
                    }
                ]
            }
        }
    }


@pytest.mark.parametrize(
    ("accelerator", "devices"),
    [
        pytest.param({}, {"deviceClassName": "gpu.nvidia.com"}, id="whole GPUs"),
        pytest.param(
            {"name": f"{H100}-mig-3g-40gb"},
            {
                "deviceClassName": "mig.nvidia.com",
                "selectors": [{"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '3g.40gb'"}}],
            },
            id="a slice",
        ),
        pytest.param(
            {"name": f"{H100}-mig-3g-40gb", "deviceClassName": "ours"},
            {"deviceClassName": "ours"},
            id="a class of ours",
        ),
    ],
)
def test_the_devices_that_are_asked_for(accelerator: dict[str, Any], devices: dict[str, Any]):
    template = gpuclaim.claim_template(pool_of(**accelerator))
    assert template is not None
    [request] = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"] == devices | {"allocationMode": "ExactCount", "count": 1}


def test_pods_claim_and_ask_for_no_resource():
    pool = pool_of(count=2)
    template = gpuclaim.claim_template(pool)
    assert template is not None
    pod = pod_template(pool, [], {})
    assert pod["spec"]["resourceClaims"] == [
        {"name": "gpus", "resourceClaimTemplateName": template["metadata"]["name"]}
    ]
    assert pod["spec"]["containers"][0]["resources"] == {"requests": {}, "limits": {}, "claims": [{"name": "gpus"}]}
    assert gpus_requested(pod) == 2


def test_by_the_device_plugin_nothing_is_claimed():
    pool = load(pool_manifest())
    assert isinstance(pool, InferencePool)
    assert gpuclaim.claim_template(pool) is None
    pod = pod_template(pool, [], {})
    assert "resourceClaims" not in pod["spec"]
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert gpus_requested(pod) == 1


def test_the_template_is_owned_and_written_once(bench: Bench):
    assert run(bench) is Result.DONE
    (name,) = templates(bench)
    (reference,) = bench.cluster.one(CLAIM_TEMPLATE, name)["metadata"]["ownerReferences"]
    assert reference["uid"] == bench.cluster.one(POOL, "low")["metadata"]["uid"]
    bench.cluster.writes()
    assert run(bench) is Result.DONE
    assert bench.cluster.writes() == []


def test_another_claim_is_another_template(bench: Bench):
    run(bench)
    (before,) = templates(bench)
    bench.cluster.change(POOL, "low", {"spec": {"accelerator": {"deviceClassName": "other.example.com"}}})
    run(bench)
    (after,) = templates(bench)
    assert after != before
    bench.cluster.change(
        POOL, "low", {"spec": {"accelerator": {"allocation": "DevicePlugin", "deviceClassName": None}}}
    )
    run(bench)
    assert templates(bench) == []


def test_a_cluster_without_the_api_is_told(bench: Bench):
    bench.cluster.not_served.add(CLAIM_TEMPLATE)
    assert run(bench) is Result.BLOCKED
    assert bench.message(POOL, "low", "NodesReady") == (
        "accelerator.allocation DRA needs resource.k8s.io/v1 ResourceClaimTemplate, which this cluster does not serve; "
        "use Kubernetes 1.34 or later, or set accelerator.allocation DevicePlugin"
    )
    bench.cluster.change(POOL, "low", {"spec": {"accelerator": {"allocation": "DevicePlugin"}}})
    assert run(bench) is Result.DONE


def test_a_template_of_somebody_else_stays(bench: Bench):
    run(bench)
    (name,) = templates(bench)
    bench.cluster.one(CLAIM_TEMPLATE, name)["metadata"]["ownerReferences"] = []
    before = bench.cluster.one(CLAIM_TEMPLATE, name)
    assert run(bench) is Result.BLOCKED
    assert bench.cluster.one(CLAIM_TEMPLATE, name) == before
    assert bench.conditions(POOL, "low")["NodesReady"] == ("False", "NotOurs")
