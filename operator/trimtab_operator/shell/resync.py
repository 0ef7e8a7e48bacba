"""Every few minutes: look at everything again, and find out whether the watches still hear.

A watch can go deaf without an error. The API server's own answer tells: a kind whose listed object differs from what
its index holds, while the index did not move from one check to the next, has a deaf watch; only a restart cures it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_operator.core import names
from trimtab_operator.core.kinds import POLICY, POOL, Kind
from trimtab_operator.shell import groups
from trimtab_operator.shell.cluster import Cluster, ClusterError
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.health import Health
from trimtab_operator.shell.nodes import sweep_nodes
from trimtab_operator.shell.world import WATCHED, World

logger = logging.getLogger(__name__)

#: Between the two looks of one check; a healthy watch needs milliseconds.
_SECOND_LOOK_SECONDS = 20.0
_SELECTOR = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"

Versions = Mapping[str, str]


def selector(kind: Kind) -> str:
    """Which objects of a kind are watched: all of our own resources, children by their label."""
    return "" if kind in (POOL, POLICY) else _SELECTOR


@dataclass(frozen=True, slots=True)
class Look:
    """What was listed of a kind, and what the index held just after."""

    listed: Versions
    known: Versions


def is_deaf(first: Look, second: Look) -> bool:
    """Whether the index missed something it had the time between the looks to hear of."""
    return any(
        first.known.get(uid) == second.known.get(uid) != version
        for uid, version in first.listed.items()
        if uid in second.listed
    ) or any(uid in second.known for uid in first.known if uid not in first.listed and uid not in second.listed)


async def check_watches(
    cluster: Cluster, world: World, namespaces: Sequence[str | None], *, pause_seconds: float = _SECOND_LOOK_SECONDS
) -> list[str]:
    """Kinds whose watch is deaf. Lists only; raises ClusterError when the API server does not answer."""
    first = {kind: await _look(cluster, world, kind, namespaces) for kind in WATCHED}
    doubtful = [kind for kind, look in first.items() if look.listed != look.known]
    if not doubtful:
        return []
    await asyncio.sleep(pause_seconds)
    return [kind.kind for kind in doubtful if is_deaf(first[kind], await _look(cluster, world, kind, namespaces))]


async def _look(cluster: Cluster, world: World, kind: Kind, namespaces: Sequence[str | None]) -> Look:
    listed = [item for ns in namespaces for item in await cluster.list_all(kind, ns, selector(kind))]
    versions = {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in listed}
    return Look(versions, world.versions(kind))


async def run_resync(deps: Deps, health: Health, namespaces: Sequence[str | None], *, every_seconds: float) -> None:
    """Run for ever: beat, compare, poke every loop."""
    while True:
        # An API server that is away for some rounds costs the lease first.
        health.beat("resync", promised_seconds=3 * every_seconds + 120)
        try:
            await groups.look(deps, namespaces)
        except ClusterError as error:
            logger.warning("LeaderWorkerSets were not listed: %s", error)
        await asyncio.sleep(every_seconds)
        try:
            deaf = await check_watches(deps.cluster, deps.world, namespaces)
            if None in namespaces:
                await sweep_nodes(deps)
        except ClusterError as error:
            logger.warning("the resync did not come to its end: %s", error)
            continue
        deps.telemetry.deaf_watches.set(len(deaf))
        deps.telemetry.last_resync.set(time.time())
        health.fault("watches", f"no longer heard: {', '.join(deaf)}" if deaf else None)
        deps.wakeups.poke_all()


async def run_heartbeat(health: Health, *, every_seconds: float = 2.0) -> None:
    """Show that the event loop turns."""
    while True:
        health.beat("event loop", promised_seconds=30)
        await asyncio.sleep(every_seconds)
