"""How Flux and `kubectl` plug-ins judge a custom resource: the generic rules of kstatus.

A transcription of `checkGenericProperties` and `checkReadyCondition` of sigs.k8s.io/cli-utils, package kstatus, which
is Go. Argo CD's health checks of custom resources follow the same conditions.
"""

from collections.abc import Mapping
from typing import Any


def verdict(thing: Mapping[str, Any]) -> str:
    """Terminating, InProgress, Failed or Current."""
    metadata, status = thing["metadata"], thing.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"
