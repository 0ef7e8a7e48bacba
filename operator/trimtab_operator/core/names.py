"""Names of everything that the operator makes: children, labels, annotations, field managers.

Children are named after their pool or policy. A Service needs a DNS label that starts with a letter while our objects
may have any DNS subdomain as their name, so an unfit name is cleaned and gets a hash of the original: two objects never
meet in one child. No child is ever called `vllm`: Kubernetes would inject `VLLM_PORT=tcp://...` into pods beside it,
which vLLM reads as its own port.
"""

import hashlib
import re

from trimtab_crds.meta import GROUP

#: Field manager of all children; it owns everything in them but `.spec.replicas` of a pool's workloads.
FIELD_MANAGER = "trimtab"
#: Field manager that owns `.spec.replicas` of a pool's workloads and nothing else.
REPLICAS_MANAGER = "trimtab-replicas"
#: Field manager of what is remembered of a revision, in annotations of its workload.
ROLLOUT_MANAGER = "trimtab-rollout"
#: Field manager of what marks a pod that drains.
DRAIN_MANAGER = "trimtab-drain"
#: Field manager of `status` of our own resources.
STATUS_MANAGER = "trimtab-status"

FINALIZER = f"{GROUP}/operator"
POOL_LABEL = f"{GROUP}/pool"
POLICY_LABEL = f"{GROUP}/policy"
#: On objects outside of namespaces, which cannot have an owner reference to a pool: its uid, and `namespace/name`.
POOL_UID_LABEL = f"{GROUP}/pool-uid"
OWNER_ANNOTATION = f"{GROUP}/owner"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "trimtab"
#: On pods whose GPUs are claimed by Dynamic Resource Allocation: how many, since the pod only names a template.
GPUS_ANNOTATION = f"{GROUP}/gpus"
#: On pods of a replica with several nodes: how many.
NODES_ANNOTATION = f"{GROUP}/nodes"
#: On a pool's workloads and pods: which template they are of.
REVISION_LABEL = f"{GROUP}/revision"
#: On engine pods: whether the pool's Services lead to them; "false" while they drain.
SERVING_LABEL = f"{GROUP}/serving"
SERVING, NOT_SERVING = "true", "false"
#: On a pod that drains: since when, and what makes the ReplicaSet end it before others.
DRAIN_ANNOTATION = f"{GROUP}/draining-since"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
#: On a pool's workloads: replicas asked for beyond the pool's number by a roll-out (negative: not asked for yet).
BALANCE_ANNOTATION = f"{GROUP}/rollout-balance"
#: On a pool's workloads: since when a replica of it has answered, and why it was given up.
PROVEN_ANNOTATION = f"{GROUP}/ready-since"
FAILED_ANNOTATION = f"{GROUP}/rollout-failed"
#: On a pool's LeaderWorkerSets: since when the first replica of one is tried, whose pods are made anew after a crash.
STARTING_ANNOTATION = f"{GROUP}/starting-since"
#: On every child: a digest of what we applied, so that an unchanged desire costs no write.
DIGEST_ANNOTATION = f"{GROUP}/desired"

ENGINE_PORT = 8000
ROUTER_PORT = 8080
ROUTER_ADMIN_PORT = 9090
ROUTER_SERVICE_PORT = 80
CONFIG_KEY = "router.json"
#: Writable folders of a pod whose root file system is read-only: volume name to path.
OWN_VOLUMES = {"trimtab-tmp": "/tmp", "trimtab-home": "/home/engine", "trimtab-shm": "/dev/shm"}  # noqa: S108

_LABEL_LENGTH = 63
_GROUP_LENGTH = 45
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def engine_name(pool: str) -> str:
    """Name of the headless Service and the PodDisruptionBudget of a pool."""
    return _child(pool, "engine")


def revision_name(pool: str, revision: str) -> str:
    """Name of the Deployment of one revision of a pool, and of the Service that leads to it alone."""
    return _child(pool, f"engine-{revision}")


def group_name(pool: str, revision: str) -> str:
    """Name of the LeaderWorkerSet of one revision of a pool.

    It is shorter: names of its pods end in two numbers, and a label of these pods in a digest too.
    """
    return _child(pool, f"engine-{revision}", length=_GROUP_LENGTH)


def canary_name(pool: str, revision: str) -> str:
    """Name of the Service that leads to one revision alone where a LeaderWorkerSet has its name for its own Service."""
    return _child(pool, f"engine-{revision}-canary")


def router_name(policy: str) -> str:
    """Name of the Deployment, the Service, the ConfigMap and the PodDisruptionBudget of a policy."""
    return _child(policy, "router")


def keys_volume(tenant: str) -> str:
    """Name of the volume of a tenant's API keys in the router's pod."""
    return _child(tenant, "keys")


def nodes_name(namespace: str, pool: str) -> str:
    """Name of the NodePool or ComputeClass of a pool; it is a label value too, and no two pools share one."""
    cleaned = re.sub(r"[^a-z0-9-]", "-", f"trimtab-{namespace}-{pool}")
    return f"{cleaned[: _LABEL_LENGTH - 9].rstrip('-')}-{_hash(f'{namespace}/{pool}')}"


def engine_host(pool: str, namespace: str) -> str:
    """DNS name whose addresses are the ready replicas of a pool, inside the cluster."""
    return host(engine_name(pool), namespace)


def host(service: str, namespace: str) -> str:
    """DNS name of a headless Service."""
    return f"{service}.{namespace}.svc"


def label_value(name: str) -> str:
    """`name` as a label value: itself where it fits into 63 characters, else cut and told apart by a hash."""
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 9].rstrip('-.')}-{_hash(name)}"


def _child(name: str, suffix: str, *, length: int = _LABEL_LENGTH) -> str:
    if _DNS_LABEL.fullmatch(name) and len(name) + 1 + len(suffix) <= length:
        return f"{name}-{suffix}"
    cleaned = re.sub(r"[^a-z0-9-]", "-", name)
    if not cleaned[:1].isalpha():
        cleaned = f"x{cleaned}"
    room = length - len(suffix) - 10
    return f"{cleaned[:room].rstrip('-')}-{_hash(name)}-{suffix}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
