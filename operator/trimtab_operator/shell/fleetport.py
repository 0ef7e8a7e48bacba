"""The rebalancer's fleet on Kubernetes, and the pools that follow their own `replicas`.

Counts are read from the API server, not from the watches: two steps must never use the same free GPU. What cannot be
counted for certain (a pool that is unreadable or gone while its pods still end) stops the tick: FleetUnknownError.
One lock holds reads and writes of replicas apart, so a pool that a policy just claimed has no other writer in flight.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import SpecInvalid, load
from trimtab_crds.routingpolicy import RoutingPolicy, RoutingPolicyStatus
from trimtab_operator.core import names
from trimtab_operator.core.autoscalers import owner_of
from trimtab_operator.core.claims import claims, referenced
from trimtab_operator.core.enginepod import STARTUP_SECONDS
from trimtab_operator.core.fleet import pool_state
from trimtab_operator.core.kinds import DEPLOYMENT, POD, POLICY, POOL
from trimtab_operator.core.observation import Observation, ObservedPool
from trimtab_operator.core.observe import gpus_requested, is_ready, observe
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.children import replicas_body
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.reconcile import readable_pools
from trimtab_operator.shell.world import Key, wake_key

logger = logging.getLogger(__name__)

Manifest = Mapping[str, Any]


class FleetUnknownError(Exception):
    """GPUs are held that cannot be told apart; nothing may be moved until that is over."""


class ChangedError(Exception):
    """A Deployment is no longer what the step was planned from."""


@dataclass(frozen=True, slots=True)
class _Live:
    """What the API server says of one namespace: Deployments and pods of pools, by the pool's label value."""

    deployments: Mapping[str, Manifest]
    pods: Mapping[str, list[Manifest]]


class KubernetesFleet:
    """The fleet as a whole. `of` is one policy's view of it; `follow` serves pools that no policy moves."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self.lock = asyncio.Lock()

    def of(self, policy: Key) -> "PolicyFleet":
        """The `FleetPort` of one policy."""
        return PolicyFleet(self, policy)

    def claimed_by(self, policy: Key) -> list[str]:
        """Names of the pools that the policy moves."""
        manifest = self.deps.world.one(POLICY, policy)
        owners = claims(self.deps.world.all(POLICY, policy[0]))
        return [pool for pool in referenced(manifest or {}) if owners.get(pool) == policy[1]]

    async def follow(self, key: Key) -> None:
        """Let a pool that no policy moves have the replicas of its spec."""
        async with self.lock:
            if key[1] in claims(self.deps.world.all(POLICY, key[0])):
                return
            pool = readable_pools(self.deps, key[0]).get(key[1])
            deployment = self.deps.world.deployment(POOL, key, names.engine_name(key[1]))
            if pool is None or deployment is None or deployment["spec"].get("replicas") == pool.spec.replicas:
                return
            fresh = await self.deps.cluster.get(DEPLOYMENT, key[0], names.engine_name(key[1]))
            if fresh is not None and fresh["spec"].get("replicas") != pool.spec.replicas:
                await self.write(fresh, pool.spec.replicas)

    async def write(self, deployment: Manifest, replicas: int) -> None:
        """Write `.spec.replicas` of that very Deployment; the caller holds the lock."""
        meta = deployment["metadata"]
        if not any(r.get("kind") == POOL.kind and r.get("controller") for r in meta.get("ownerReferences") or []):
            raise ChangedError(f"Deployment {meta['name']} does not belong to a pool")
        await self.deps.cluster.apply(replicas_body(deployment, replicas), manager=names.REPLICAS_MANAGER)
        logger.info(
            "%s in %s: replicas %s to %s", meta["name"], meta["namespace"], deployment["spec"]["replicas"], replicas
        )


class PolicyFleet:
    """`FleetPort` for one policy on Kubernetes."""

    def __init__(self, fleet: KubernetesFleet, policy: Key) -> None:
        self._fleet = fleet
        self._deps = fleet.deps
        self._key = policy
        self._planned_from: dict[str, int] = {}

    async def observe(self, policy: str) -> Observation | None:
        """See FleetPort. Raises FleetUnknownError and ClusterError."""
        manifest = self._deps.world.one(POLICY, split(policy))
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return None
        try:
            parsed = load(_with_report(manifest, self._deps.reports.get(self._key)))
        except SpecInvalid:
            return None
        if not isinstance(parsed, RoutingPolicy):
            return None
        async with self._fleet.lock:
            mine = self._fleet.claimed_by(self._key)
            live = await self._read(mine)
        return self._observation(parsed, mine, live)

    async def set_replicas(self, pool: str, replicas: int) -> None:
        """See FleetPort. Raises ChangedError when the step was planned from something else, and ClusterError."""
        namespace, name = split(pool)
        async with self._fleet.lock:
            if name not in self._fleet.claimed_by(self._key):
                raise ChangedError(f"{pool} is no longer moved by this policy")
            deployment = await self._deps.cluster.get(DEPLOYMENT, namespace, names.engine_name(name))
            now = None if deployment is None else int(deployment["spec"]["replicas"])
            planned = self._planned_from.get(name)
            if deployment is None or now != planned:
                raise ChangedError(f"{pool} has {now} replicas, the step was planned from {planned}")
            await self._fleet.write(deployment, replicas)

    async def report(self, policy: str, report: TickReport) -> None:
        """See FleetPort: the policy's own loop writes it into the status."""
        before = self._deps.reports.get(split(policy))
        if report.last_move is None and before is not None:
            report = replace(report, last_move=before.last_move)
        self._deps.reports[self._key] = report
        if report != before:
            self._deps.wakeups.poke(wake_key(POLICY, self._key))

    async def _read(self, pools: Iterable[str]) -> _Live:
        values = ",".join(sorted(names.label_value(pool) for pool in pools))
        if not values:
            return _Live({}, {})
        selector = f"{names.POOL_LABEL} in ({values})"
        deployments = await self._deps.cluster.list_all(DEPLOYMENT, self._key[0], selector)
        pods: dict[str, list[Manifest]] = {}
        for pod in await self._deps.cluster.list_all(POD, self._key[0], selector):
            pods.setdefault(pod["metadata"]["labels"][names.POOL_LABEL], []).append(pod)
        by_name = {deployment["metadata"]["name"]: deployment for deployment in deployments}
        return _Live(by_name, pods)

    def _owner(self, pool: str) -> str:
        owner = owner_of(self._deps.autoscalers, self._key[0], pool)
        return owner.title if owner else ""

    def _observation(self, policy: RoutingPolicy, mine: Iterable[str], live: _Live) -> Observation:
        readable = readable_pools(self._deps, self._key[0])
        found: dict[str, ObservedPool] = {}
        cold_start_seconds = 0.0
        for name in mine:
            deployment = live.deployments.get(names.engine_name(name))
            pods = live.pods.get(names.label_value(name), [])
            if name not in readable:
                _refuse_unknown(name, pods)
            elif deployment is not None or pods:
                found[name] = _observed(readable[name], deployment, pods, self._owner(name))
                self._planned_from[name] = found[name].state.desired
                cold_start_seconds = max(cold_start_seconds, *(_cold_start_seconds(pod) for pod in pods), 0.0)
        return Observation(policy=policy, pools=found, cold_start_seconds=cold_start_seconds)


def _refuse_unknown(name: str, pods: list[Manifest]) -> None:
    seen = observe(None, pods)
    if seen.pods:
        raise FleetUnknownError(
            f"pool {name} cannot be read and {seen.pods} of its pods still hold GPUs; nothing moves"
        )


def _observed(pool: InferencePool, deployment: Manifest | None, pods: list[Manifest], owner: str) -> ObservedPool:
    seen = observe(deployment, pods)
    state = pool_state(
        pool, desired=seen.desired, ready=seen.ready, starting=seen.starting, draining=seen.draining, owner=owner
    )
    # Pods of an earlier spec may hold more GPUs each than the present one says.
    largest = max((gpus_requested(pod) for pod in pods), default=0)
    return ObservedPool(pool, replace(state, gpus_per_replica=max(state.gpus_per_replica, largest)))


def _cold_start_seconds(pod: Manifest) -> float:
    """How long the pod took to get ready; 0 for one that restarted, or that is not ready."""
    status = pod.get("status", {})
    restarts = sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or [])
    if restarts or not is_ready(pod):
        return 0.0
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    since = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    seconds = (datetime.fromisoformat(ready["lastTransitionTime"]) - since).total_seconds()
    # Beyond this the startup probe would have ended it: it was ready before and lost its readiness once.
    return seconds if 0 <= seconds <= STARTUP_SECONDS else 0.0


def _with_report(manifest: Manifest, report: TickReport | None) -> dict[str, Any]:
    """The policy with the last move that we know of, which its status may not yet show."""
    try:
        status = RoutingPolicyStatus.model_validate(manifest.get("status") or {})
    except ValidationError:  # written by somebody else; we are about to correct it
        status = RoutingPolicyStatus()
    move = (report.last_move if report else None) or status.last_move
    return {**manifest, "status": {"lastMove": move.model_dump(by_alias=True)} if move else {}}


def split(key: str) -> Key:
    """`namespace/name` to its parts."""
    namespace, _, name = key.partition("/")
    return namespace, name
