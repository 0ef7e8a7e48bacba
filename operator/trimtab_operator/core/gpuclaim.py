"""GPUs by Dynamic Resource Allocation: a ResourceClaimTemplate per pool, and what the pods say of it.

Reference: Kubernetes documentation, "Dynamic Resource Allocation" (resource.k8s.io/v1, stable since 1.34). The spec of
a template cannot be changed, so a digest of it is in the name: another spec is another template.
"""

import hashlib
import json
from typing import Any

from trimtab_crds.accelerators import SLICES
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import childmeta, names
from trimtab_operator.core.kinds import CLAIM_TEMPLATE

Manifest = dict[str, Any]

#: DeviceClasses of NVIDIA's DRA driver; the first is the domain of its attributes too.
GPU_CLASS = "gpu.nvidia.com"
SLICE_CLASS = "mig.nvidia.com"
#: Name of the claim in the pod, and of its only request.
CLAIM = "gpus"


def is_claimed(pool: InferencePool) -> bool:
    """Whether the pool's GPUs are claimed, not asked for as a resource."""
    return pool.spec.accelerator.allocation == "DRA"


def claim_template(pool: InferencePool) -> Manifest | None:
    """The template, stamped; None where the device plugin gives the GPUs."""
    if not is_claimed(pool):
        return None
    labels = childmeta.labels(component="engine", instance=pool.metadata.name, key=names.POOL_LABEL)
    return childmeta.stamped(
        {
            "apiVersion": CLAIM_TEMPLATE.api_version,
            "kind": CLAIM_TEMPLATE.kind,
            "metadata": childmeta.metadata(pool, _name(pool), labels),
            "spec": _spec(pool),
        }
    )


def pod_claims(pool: InferencePool) -> Manifest:
    """Fields of the pod's spec."""
    return {"resourceClaims": [{"name": CLAIM, "resourceClaimTemplateName": _name(pool)}]} if is_claimed(pool) else {}


def pod_annotations(pool: InferencePool) -> dict[str, str]:
    """How many GPUs the pod claims, for whoever counts them by pods."""
    return {names.GPUS_ANNOTATION: str(pool.spec.accelerator.gpus_per_node)} if is_claimed(pool) else {}


def _spec(pool: InferencePool) -> Manifest:
    wanted = pool.spec.accelerator
    exactly = {**_devices(pool), "allocationMode": "ExactCount", "count": wanted.gpus_per_node}
    return {"spec": {"devices": {"requests": [{"name": CLAIM, "exactly": exactly}]}}}


def _devices(pool: InferencePool) -> Manifest:
    """The class that the spec names, else that of NVIDIA's driver for GPUs, or for slices of the profile."""
    wanted = pool.spec.accelerator
    if wanted.device_class_name is not None:
        return {"deviceClassName": wanted.device_class_name}
    if wanted.name not in SLICES:
        return {"deviceClassName": GPU_CLASS}
    profile = SLICES[wanted.name].resource.removeprefix("nvidia.com/mig-")
    expression = f"device.attributes['{GPU_CLASS}'].profile == '{profile}'"
    return {"deviceClassName": SLICE_CLASS, "selectors": [{"cel": {"expression": expression}}]}


def _name(pool: InferencePool) -> str:
    digest = hashlib.sha256(json.dumps(_spec(pool), sort_keys=True).encode()).hexdigest()[:8]
    return f"{names.engine_name(pool.metadata.name)}-gpus-{digest}"
