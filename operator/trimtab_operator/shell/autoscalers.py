"""Looks for other people's autoscalers now and then: their kinds may not be served, so they are not watched."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from trimtab_operator.core.autoscalers import Autoscaler, read_autoscalers
from trimtab_operator.core.kinds import AUTOSCALER_KINDS, POOL
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Deps

logger = logging.getLogger(__name__)

#: Two list calls; an autoscaler itself acts every 15 s.
EVERY_SECONDS = 15.0
_NOT_THERE = (403, 404)


async def run_autoscalers(deps: Deps, namespaces: Sequence[str | None], *, every_seconds: float) -> None:
    """Run for ever."""
    while True:
        try:
            await look(deps, namespaces)
        except ClusterError as error:
            logger.warning("autoscalers were not listed: %s", error)
        await asyncio.sleep(every_seconds)


async def look(deps: Deps, namespaces: Sequence[str | None]) -> None:
    """List them once, and wake the pools of every namespace where something changed."""
    found: list[dict[str, Any]] = []
    for kind in AUTOSCALER_KINDS:
        for namespace in namespaces:
            try:
                found += await deps.cluster.list_all(kind, namespace)
            except ClusterError as error:
                if error.status not in _NOT_THERE:
                    raise
    now = read_autoscalers(found)
    changed: frozenset[Autoscaler] = now ^ deps.autoscalers
    deps.autoscalers = now
    for group in {(kind, scaler.namespace) for scaler in changed for kind in (POOL.kind, "rebalance")}:
        deps.wakeups.poke_group(*group)
