"""Events: one per transition of a condition, in words that `kubectl describe` shows."""

from collections.abc import Mapping
from typing import Any

from trimtab_operator.core import names
from trimtab_operator.core.conditions import Transition, timestamp

_NOTE_LENGTH = 1024


def event(about: Mapping[str, Any], transition: Transition, *, now: float, reporter: str) -> dict[str, Any]:
    """The core/v1 Event of a transition. Its name holds the time, as those of other controllers do."""
    meta = about["metadata"]
    when = timestamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:230]}.{int(now * 1e6):x}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": "Warning" if transition.warning else "Normal",
        "reason": transition.reason,
        "message": transition.message[:_NOTE_LENGTH],
        "count": 1,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": reporter,
    }
