"""The rebalancer's fleet on Kubernetes, and the pools that follow their own `replicas`.

Replicas are written here and nowhere else: by a policy's rebalancer through `PolicyFleet`, by `tend` for drains, for
roll-outs and for pools that no policy moves. Counts are read from the API server, not from the watches: two steps must
never use the same free GPU. What cannot be counted for certain (a pool that is unreadable or gone while its pods still
end) stops the tick: FleetUnknownError. Locks hold reads and writes of replicas apart (poollocks.py), so a pool that a
policy just claimed has no other writer in flight.
"""

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
from trimtab_operator.core.groups import is_member
from trimtab_operator.core.kinds import BY_NAME, DEPLOYMENT, POD, POLICY, POOL
from trimtab_operator.core.observation import Observation, ObservedPool
from trimtab_operator.core.observe import is_ready, observe, replica_gpus
from trimtab_operator.core.resize import Mark, Write, resize, to_ask
from trimtab_operator.core.revisions import PoolReplicas, pool_replicas
from trimtab_operator.core.rollout import Room, expired
from trimtab_operator.core.tending import Look, decide
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.core.workloads import template_of
from trimtab_operator.shell import groups
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.engineload import EngineLoads
from trimtab_operator.shell.poollocks import PoolLocks
from trimtab_operator.shell.reconcile import readable_pool, readable_pools
from trimtab_operator.shell.replicawrites import write_one
from trimtab_operator.shell.world import Key, wake_key

logger = logging.getLogger(__name__)

Manifest = Mapping[str, Any]


class FleetUnknownError(Exception):
    """GPUs are held that cannot be told apart; nothing may be moved until that is over."""


class ChangedError(Exception):
    """A workload is no longer what the step was planned from."""


@dataclass(frozen=True, slots=True)
class _Live:
    """What the API server says of one namespace: workloads and pods of pools, by the pool's label value."""

    workloads: Mapping[str, list[Manifest]]
    pods: Mapping[str, list[Manifest]]


class KubernetesFleet:
    """The fleet as a whole. `of` is one policy's view of it; `tend` keeps one pool's drains and roll-outs going."""

    def __init__(self, deps: Deps, loads: EngineLoads) -> None:
        self.deps = deps
        self.loads = loads
        self.locks = PoolLocks()

    def of(self, policy: Key) -> "PolicyFleet":
        """The `FleetPort` of one policy."""
        return PolicyFleet(self, policy)

    def claimed_by(self, policy: Key) -> list[str]:
        """Names of the pools that the policy moves."""
        manifest = self.deps.world.one(POLICY, policy)
        owners = claims(self.deps.world.all(POLICY, policy[0]))
        return [pool for pool in referenced(manifest or {}) if owners.get(pool) == policy[1]]

    async def tend(self, key: Key) -> bool:
        """Go on with the pool's drains and its roll-out, and let a pool that no policy moves have its `replicas`.

        At rest nothing is asked of the API server. Returns whether there is more to do soon.
        """
        pool = readable_pool(self.deps, key)
        if pool is None:
            return False
        known = self._watched(key)
        asked = to_ask(known, victims=known.rolling or self._follows(key, pool) not in (None, known.intended))
        in_flight = await self.loads.in_flight(asked) if asked else {}
        look = Look(pool, self._follows(key, pool), in_flight, self.deps.clock())
        writes = decide(known, look, Room(surge=True, regrow=True))
        if not writes:
            await self._forget(key, known, pool)
            return known.rolling or known.drains_since is not None
        if all(isinstance(write, Mark) for write in writes):
            # What is remembered of a revision holds no GPU: nothing needs to be counted for it.
            await self.execute(self._as_watched(key), key, writes)
            return True
        together = self._together(key)
        async with self.locks.holding(key[0], together):
            if self._together(key) != together:
                return True
            live = await self.read(key[0], [key[1]])
            fresh = self.replicas(key, live)
            look = replace(look, follows=self._follows(key, pool), now=self.deps.clock())
            await self.execute(live, key, decide(fresh, look, await self._room(key, pool, fresh)))
        return True

    def _together(self, key: Key) -> list[str]:
        """The pools whose GPUs are counted together with the pool's, itself included."""
        owner = claims(self.deps.world.all(POLICY, key[0])).get(key[1])
        return [key[1]] if owner is None else self.claimed_by((key[0], owner))

    async def read(self, namespace: str, pools: Iterable[str]) -> _Live:
        """Workloads and pods of these pools as of now."""
        asked = list(pools)
        values = ",".join(sorted(names.label_value(pool) for pool in asked))
        if not values:
            return _Live({}, {})
        selector = f"{names.POOL_LABEL} in ({values})"
        workloads, pods = [await self.deps.cluster.list_all(kind, namespace, selector) for kind in (DEPLOYMENT, POD)]
        if any(is_member(pod["metadata"]) for pod in pods) or any(self._may_have_groups((namespace, p)) for p in asked):
            workloads += await groups.listed(self.deps, namespace, selector) or []
        return _Live(_by_pool(workloads), _by_pool(pods))

    def _may_have_groups(self, key: Key) -> bool:
        return groups.concerns(self.deps, key, readable_pool(self.deps, key))

    def replicas(self, key: Key, live: _Live) -> PoolReplicas:
        """One pool's replicas out of what was read."""
        value = names.label_value(key[1])
        owned = [w for w in live.workloads.get(value, ()) if _is_a_pools(w)]
        return pool_replicas(owned, live.pods.get(value, ()), wanted=self.deps.wanted.get(key, ""))

    async def execute(self, live: _Live, key: Key, writes: Iterable[Write]) -> None:
        """Write; the caller holds the lock and has just read. What is gone meanwhile is seen at the next look."""
        workloads = {w["metadata"]["name"]: w for w in live.workloads.get(names.label_value(key[1]), ())}
        for write in writes:
            try:
                await write_one(self.deps, key[0], workloads, write)
            except ClusterError as error:
                if not error.is_precondition:
                    raise
                logger.info("pool %s/%s changed meanwhile: %s", *key, error)
                return

    def _watched(self, key: Key) -> PoolReplicas:
        owned = [w for w in self.deps.world.workloads(POOL, key) if _is_a_pools(w)]
        return pool_replicas(owned, self.deps.world.pods(POOL, key), wanted=self.deps.wanted.get(key, ""))

    def _as_watched(self, key: Key) -> _Live:
        return _Live({names.label_value(key[1]): self.deps.world.workloads(POOL, key)}, {})

    def _follows(self, key: Key, pool: InferencePool) -> int | None:
        """The number of replicas that the pool has by its spec; None where a policy moves it."""
        return None if key[1] in claims(self.deps.world.all(POLICY, key[0])) else pool.spec.replicas

    async def _room(self, key: Key, pool: InferencePool, own: PoolReplicas) -> Room:
        """What the budget allows a roll-out. Without one, only what the pool held before."""
        owner = claims(self.deps.world.all(POLICY, key[0])).get(key[1])
        budgeted = None if owner is None else await self.of((key[0], owner)).free_gpus(key[1])
        if budgeted is None:
            held = max(own.intended + own.balance, own.ready + own.starting) + own.draining
            return Room(surge=False, regrow=held < own.intended)
        fits = budgeted >= pool.spec.accelerator.count
        return Room(surge=fits, regrow=fits)

    async def _forget(self, key: Key, known: PoolReplicas, pool: InferencePool) -> None:
        """Delete revisions beyond the history."""
        for revision in expired(known, pool.spec.rollout) if not known.rolling else ():
            live = self.deps.world.workload(POOL, key, revision.name)
            if live is not None and "deletionTimestamp" not in live["metadata"]:
                await self.deps.cluster.delete(
                    BY_NAME[live["kind"]], key[0], revision.name, uid=live["metadata"]["uid"]
                )


def _by_pool(items: Iterable[Manifest]) -> dict[str, list[Manifest]]:
    found: dict[str, list[Manifest]] = {}
    for item in items:
        found.setdefault(item["metadata"]["labels"][names.POOL_LABEL], []).append(item)
    return found


def _is_a_pools(workload: Manifest) -> bool:
    """Whether a pool controls it; what merely carries the label is somebody else's."""
    references = workload["metadata"].get("ownerReferences") or []
    return any(r.get("kind") == POOL.kind and r.get("controller") for r in references)


class PolicyFleet:
    """`FleetPort` for one policy on Kubernetes."""

    def __init__(self, fleet: KubernetesFleet, policy: Key) -> None:
        self._fleet = fleet
        self._deps = fleet.deps
        self._key = policy
        self._planned_from: dict[str, int] = {}

    async def observe(self, policy: str) -> Observation | None:
        """See FleetPort. Raises FleetUnknownError and ClusterError."""
        parsed = self._parsed()
        if parsed is None or parsed.key != policy:
            return None
        while True:
            mine = self._fleet.claimed_by(self._key)
            async with self._fleet.locks.holding(self._key[0], mine):
                if self._fleet.claimed_by(self._key) == mine:
                    return self._observation(parsed, mine, await self._fleet.read(self._key[0], mine))

    def _parsed(self) -> RoutingPolicy | None:
        manifest = self._deps.world.one(POLICY, self._key)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            return None
        try:
            parsed = load(_with_report(manifest, self._deps.reports.get(self._key)))
        except SpecInvalid:
            return None
        return parsed if isinstance(parsed, RoutingPolicy) else None

    async def set_replicas(self, pool: str, replicas: int) -> None:
        """See FleetPort. Raises ChangedError when the step was planned from something else, and ClusterError."""
        namespace, name = key = split(pool)
        in_flight = await self._in_flight(key, replicas)
        mine = self._fleet.claimed_by(self._key)
        async with self._fleet.locks.holding(namespace, [*mine, name]):
            if name not in mine or self._fleet.claimed_by(self._key) != mine:
                raise ChangedError(f"{pool} is no longer moved by this policy")
            live = await self._fleet.read(namespace, [name])
            fresh = self._fleet.replicas(key, live)
            planned = self._planned_from.get(name)
            if fresh.target is None or fresh.intended != planned:
                now = None if fresh.target is None else fresh.intended
                raise ChangedError(f"{pool} has {now} replicas, the step was planned from {planned}")
            await self._fleet.execute(live, key, resize(fresh, replicas, in_flight))

    async def free_gpus(self, pool: str) -> int | None:
        """GPUs of the pool's kind that nobody holds and no roll-out of another pool was promised; None: no budget.

        The caller holds the locks of all pools of the policy.
        """
        policy = self._parsed()
        mine = self._fleet.claimed_by(self._key)
        if policy is None or pool not in mine:
            return None
        try:
            seen = self._observation(policy, mine, await self._fleet.read(self._key[0], mine))
        except FleetUnknownError:
            return 0
        own = seen.pools[pool].state if pool in seen.pools else None
        budgets = {budget.accelerator: budget.gpus for budget in policy.spec.rebalance.gpu_budget}
        if own is None or own.accelerator not in budgets:
            return None
        others = [o.state for name, o in seen.pools.items() if name != pool and o.state.accelerator == own.accelerator]
        return budgets[own.accelerator] - own.gpus_taken - sum(state.gpus_committed for state in others)

    async def _in_flight(self, key: Key, replicas: int) -> Mapping[str, int]:
        """Requests in flight where a victim is to be chosen."""
        if replicas >= self._planned_from.get(key[1], 0):
            return {}
        pods = pool_replicas((), self._deps.world.pods(POOL, key))
        return await self._fleet.loads.in_flight(to_ask(pods, victims=True))

    async def report(self, policy: str, report: TickReport) -> None:
        """See FleetPort: the policy's own loop writes it into the status."""
        before = self._deps.reports.get(split(policy))
        if report.last_move is None and before is not None:
            report = replace(report, last_move=before.last_move)
        self._deps.reports[self._key] = report
        if report != before:
            self._deps.wakeups.poke(wake_key(POLICY, self._key))

    def _owner(self, pool: str) -> str:
        owner = owner_of(self._deps.autoscalers, self._key[0], pool)
        return owner.title if owner else ""

    def _observation(self, policy: RoutingPolicy, mine: Iterable[str], live: _Live) -> Observation:
        mine = list(mine)
        readable = readable_pools(self._deps, self._key[0], mine)
        found: dict[str, ObservedPool] = {}
        cold_start_seconds = 0.0
        for name in mine:
            pods = live.pods.get(names.label_value(name), [])
            replicas = self._fleet.replicas((self._key[0], name), live)
            if name not in readable:
                _refuse_unknown(name, pods)
            elif replicas.revisions:
                asked = [w for w in live.workloads.get(names.label_value(name), ()) if w["spec"].get("replicas")]
                held = max(map(replica_gpus, (*pods, *map(template_of, asked))), default=0)
                found[name] = _observed(readable[name], replicas, held, self._owner(name))
                self._planned_from[name] = found[name].state.desired
                cold_start_seconds = max(cold_start_seconds, *(_cold_start_seconds(pod) for pod in pods), 0.0)
        return Observation(policy=policy, pools=found, cold_start_seconds=cold_start_seconds)


def _refuse_unknown(name: str, pods: list[Manifest]) -> None:
    seen = observe(None, pods)
    if seen.pods:
        raise FleetUnknownError(
            f"pool {name} cannot be read and {seen.pods} of its pods still hold GPUs; nothing moves"
        )


def _observed(pool: InferencePool, seen: PoolReplicas, held: int, owner: str) -> ObservedPool:
    state = pool_state(
        pool, desired=seen.intended, ready=seen.ready, starting=seen.starting, draining=seen.draining, owner=owner
    )
    state = replace(state, balance=seen.balance, reclaimable=seen.reclaimable)
    # Replicas of an earlier spec may hold more GPUs each than the present one says.
    return ObservedPool(pool, replace(state, gpus_per_replica=max(state.gpus_per_replica, held)))


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
