"""Where the engine finds its model: the volume of `model.cache`, and the hub's variables.

Sources: huggingface_hub documentation, "Environment variables" (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE); Kubernetes
documentation, "Image volumes" (stable since 1.36, on by default since 1.35).
"""

from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.modelcache import ModelCache

Manifest = dict[str, Any]

VOLUME = "trimtab-model"


def volumes(pool: InferencePool) -> list[Manifest]:
    """The pod's volume with models, if it has one."""
    cache = pool.spec.model.cache
    return [{"name": VOLUME, **_source(cache)}] if cache else []


def mounts(pool: InferencePool) -> list[Manifest]:
    """Where the container mounts it."""
    cache = pool.spec.model.cache
    if cache is None:
        return []
    return [{"name": VOLUME, "mountPath": cache.mount_path, "readOnly": cache.is_read_only or None}]


def environment(pool: InferencePool) -> list[Manifest]:
    """Variables that `spec.model` owns; `engine.env` may not set them."""
    model, found = pool.spec.model, list[Manifest]()
    if model.cache is not None and model.is_on_hub:
        found.append({"name": "HF_HOME", "value": model.cache.mount_path})
    if model.token_secret is not None:
        reference = {"name": model.token_secret.name, "key": model.token_secret.key}
        found.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    if model.offline:
        found.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    return found


def lacks_token(pool: InferencePool, trouble: str) -> bool:
    """Whether `trouble`, the kubelet's words, says that the Secret of the token or its key is missing."""
    secret = pool.spec.model.token_secret
    if secret is None:
        return False
    return f'secret "{secret.name}" not found' in trouble or (
        f"find key {secret.key} in Secret" in trouble and f"/{secret.name}" in trouble
    )


def _source(cache: ModelCache) -> Manifest:
    if cache.claim_name is not None:
        # Mounted read-only below, not here: a claim that is read-only in the pod cannot be shared by writers.
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    if cache.host_path is not None:
        # Never created: a folder that the kubelet makes belongs to root, and engines do not run as root.
        return {"hostPath": {"path": cache.host_path, "type": "Directory"}}
    return {"image": {"reference": cache.image, "pullPolicy": "IfNotPresent"}}
