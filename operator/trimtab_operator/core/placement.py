"""Where the scheduler puts a pool's pods beside each other, and whom they may displace."""

from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import names

Manifest = dict[str, Any]

#: Softly: GPUs that are free somewhere are better than a replica that waits for an even spread.
_SPREAD = tuple(
    {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway"}
    for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
)


def placement(pool: InferencePool) -> Manifest:
    """Fields of the pod's spec."""
    asked, priority = pool.spec.engine.pod.topology_spread, pool.spec.engine.pod.priority_class_name
    own = {"labelSelector": {"matchLabels": {names.POOL_LABEL: names.label_value(pool.metadata.name)}}}
    # Nodes of one replica belong close together.
    usual = _SPREAD if pool.spec.accelerator.nodes == 1 else ()
    spread = [{**own, **constraint} for constraint in (usual if asked is None else asked)]
    found: Manifest = {"topologySpreadConstraints": spread} if spread else {}
    return {**found, "priorityClassName": priority} if priority else found
