"""One pass over one pool or policy.

1. read the object and its children from the watches   2. parse it   3. resolve what it should have
4. apply what differs, prune what is left over         5. observe    6. write the status, if it differs

The answer says how the pass ended; pacing.py turns it into the time of the next one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import Resource, SpecInvalid
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_crds.wire import CanaryConfig, RouterConfig
from trimtab_operator.core import names, nodepools, workloads
from trimtab_operator.core.autoscalers import owner_of, scaling_owned
from trimtab_operator.core.claims import claims
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.desired import policy_objects, pool_objects, router_address
from trimtab_operator.core.kinds import LEADER_WORKER_SET, POLICY, POOL
from trimtab_operator.core.nodesready import nodes_ready, recent
from trimtab_operator.core.observe import Observation, gpus_held, observe
from trimtab_operator.core.ownership import is_owned
from trimtab_operator.core.pacing import Result
from trimtab_operator.core.policystatus import PolicyView, policy_status
from trimtab_operator.core.poolstatus import PoolView, pool_status
from trimtab_operator.core.problems import Problem, groups_api_missing, recipe_refused, spec_invalid
from trimtab_operator.core.recipe import Resolution, resolve
from trimtab_operator.core.revisions import PoolReplicas, pool_replicas
from trimtab_operator.core.rolloutstatus import canary_of, observe_pool
from trimtab_operator.core.routerconfig import compile_config, unbudgeted
from trimtab_operator.shell import groups
from trimtab_operator.shell.children import converge
from trimtab_operator.shell.deps import Deps, conflict_of, write_status
from trimtab_operator.shell.nodes import converge_claim, converge_nodes, events_about_waiting
from trimtab_operator.shell.world import Key

Manifest = Mapping[str, Any]


async def reconcile_pool(deps: Deps, key: Key) -> Result:
    """One pass over the pool of that key."""
    live = deps.written.newest(deps.world.one(POOL, key))
    if live is None or live["metadata"].get("deletionTimestamp"):
        return Result.GONE
    pool, problem = deps.parsed.of(live)
    has_groups = await groups.refresh(deps, key, pool if isinstance(pool, InferencePool) else None)
    resolution: Resolution | None = None
    no_nodes: Problem | None = None
    if isinstance(pool, InferencePool):
        resolution = deps.parsed.once(pool, "resolution", partial(resolve, pool))
        no_nodes = spec_invalid(refused) if (refused := nodepools.refusals(pool)) else None
        if not resolution.accepted:
            problem = recipe_refused(resolution.reasons)
        elif workloads.kind_of(pool) == LEADER_WORKER_SET and not has_groups:
            api = f"{LEADER_WORKER_SET.api_version} {LEADER_WORKER_SET.kind}"
            problem = groups_api_missing(pool.spec.accelerator.nodes, api)
        elif no_nodes is None:
            # A new workload starts empty: replicas come from their one writer, under the GPU budget.
            objects = deps.parsed.once(pool, "objects", partial(pool_objects, pool, resolution, replicas=0))
            problem = await converge(deps, POOL, live, objects)
            deps.wanted[key] = objects[-1]["metadata"]["name"]
            if has_groups and deps.world.workload(POOL, key, deps.wanted[key]) is None:
                await groups.refresh(deps, key, pool)
            no_nodes = await converge_nodes(deps, live, pool) or await converge_claim(deps, live, pool)
        problem = problem or no_nodes
    replicas, seen = _seen(deps, key, live["metadata"]["uid"])
    view = PoolView(
        pool=pool if isinstance(pool, InferencePool) else None,
        resolution=resolution,
        replicas=replicas,
        seen=seen,
        problem=problem,
        gpus=gpus_held(deps.world.pods(POOL, key)),
        nodes=await _nodes(deps, key, _NodesView(pool, no_nodes, seen.trouble)),
        others=_others(deps, key, pool),
        owned=owner_of(deps.autoscalers, *key) is not None,
        previous=live.get("status") or {},
    )
    status = pool_status(view, name=key[1], generation=live["metadata"]["generation"], now=deps.clock())
    await write_status(deps, live, status)
    if problem is None and view.nodes.status is not True:
        return Result.BLOCKED
    return _result(problem)


async def reconcile_policy(deps: Deps, key: Key) -> Result:
    """One pass over the policy of that key."""
    live = deps.written.newest(deps.world.one(POLICY, key))
    if live is None or live["metadata"].get("deletionTimestamp"):
        return Result.GONE
    policy, problem = deps.parsed.of(live)
    compiled = _Compiled(None, problem)
    if isinstance(policy, RoutingPolicy):
        compiled = _compile(deps, key, policy)
        if compiled.config is not None:
            objects = policy_objects(
                policy, compiled.config, deps.children, readable_pools(deps, key[0], policy.pool_names)
            )
            blocked = await converge(deps, POLICY, live, objects)
            compiled = _Compiled(compiled.config, blocked or compiled.problem)
    deployment = deps.world.workload(POLICY, key, names.router_name(key[1]))
    view = PolicyView(
        seen=observe(deployment, deps.world.pods(POLICY, key)),
        wanted_routers=policy.spec.router.replicas if isinstance(policy, RoutingPolicy) else 0,
        problem=compiled.problem,
        config_hash=compiled.config.digest() if compiled.config else "",
        address=router_address(policy) if isinstance(policy, RoutingPolicy) else "",
        report=deps.reports.get(key),
        hold=deps.holds.get(key, ""),
        conflict=conflict_of(deps, POLICY, key),
        previous=live.get("status") or {},
    )
    status = policy_status(view, generation=live["metadata"]["generation"], now=deps.clock())
    await write_status(deps, live, status)
    return _result(compiled.problem)


@dataclass(frozen=True, slots=True)
class _Compiled:
    config: RouterConfig | None
    problem: Problem | None


def _compile(deps: Deps, key: Key, policy: RoutingPolicy) -> _Compiled:
    pools = readable_pools(deps, key[0], policy.pool_names)
    try:
        config = compile_config(policy, pools, canaries=_canaries(deps, key, policy, pools))
    except SpecInvalid as invalid:
        return _Compiled(None, spec_invalid(invalid.problems))
    without_budget = unbudgeted(policy, pools)
    if without_budget:
        return _Compiled(config, Problem("BudgetMissing", "; ".join(without_budget)))
    return _Compiled(config, _shared(deps, key, policy))


def _canaries(
    deps: Deps, key: Key, policy: RoutingPolicy, pools: Mapping[str, InferencePool]
) -> dict[str, CanaryConfig]:
    """Pools of the policy whose new revision is being tried."""
    found: dict[str, CanaryConfig] = {}
    for name in set(policy.pool_names) & pools.keys():
        pool = pools[name]
        if pool.spec.rollout.canary is not None:
            replicas, _ = _seen(deps, (key[0], name), pool.metadata.uid)
            canary = canary_of(pool, replicas, now=deps.clock())
            found |= {name: canary} if canary else {}
    return found


def _shared(deps: Deps, key: Key, policy: RoutingPolicy) -> Problem | None:
    """Two policies cannot both move one pool."""
    owners = claims(deps.world.all(POLICY, key[0]))
    taken = [
        f"tiers[{i}].{field}.name {reference.name} is moved by policy {owners[reference.name]} already; "
        "give this tier a pool of its own"
        for i, tier in enumerate(policy.spec.tiers)
        for field, reference in (("poolRef", tier.pool_ref), ("prefillPoolRef", tier.prefill_pool_ref))
        if reference is not None and owners.get(reference.name, key[1]) != key[1]
    ]
    return Problem("PoolShared", "; ".join(taken)) if taken else None


def readable_pool(deps: Deps, key: Key) -> InferencePool | None:
    """The pool of that key, if it can be read and is not being deleted."""
    return readable_pools(deps, key[0], [key[1]]).get(key[1])


def readable_pools(deps: Deps, namespace: str, wanted: Iterable[str]) -> dict[str, InferencePool]:
    """The wanted pools of a namespace by name; unreadable ones and ones being deleted are left out."""
    found: dict[str, InferencePool] = {}
    for name in wanted:
        manifest = deps.world.one(POOL, (namespace, name))
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            continue
        pool, _ = deps.parsed.of(manifest)
        if isinstance(pool, InferencePool):
            found[name] = pool
    return found


def _others(deps: Deps, key: Key, pool: Resource | None) -> tuple[Fact, ...]:
    """What the pool's conditions say of others: who scales it, and who changed its children."""
    scaling = isinstance(pool, InferencePool) and pool.spec.scaling is not None
    ours = [m["metadata"]["name"] for m in deps.world.workloads(POOL, key)]
    scaled = scaling_owned(deps.autoscalers, namespace=key[0], pool=key[1], workloads=ours, scaling=scaling)
    return tuple(fact for fact in (scaled, conflict_of(deps, POOL, key)) if fact is not None)


@dataclass(frozen=True, slots=True)
class _NodesView:
    pool: Resource | None
    problem: Problem | None
    trouble: str


async def _nodes(deps: Deps, key: Key, view: _NodesView) -> Fact:
    pods = deps.world.pods(POOL, key)
    events = recent(await events_about_waiting(deps, pods), now=deps.clock())
    pool = view.pool if isinstance(view.pool, InferencePool) else None
    return nodes_ready(pool, pods, problem=view.problem, trouble=view.trouble, events=events)


def _seen(deps: Deps, key: Key, uid: str) -> tuple[PoolReplicas, Observation]:
    owned = [m for m in deps.world.workloads(POOL, key) if is_owned(m, uid)]
    pods = deps.world.pods(POOL, key)
    replicas = pool_replicas(owned, pods, wanted=deps.wanted.get(key, ""))
    return replicas, observe_pool(replicas, owned, pods)


def _result(problem: Problem | None) -> Result:
    if problem is None:
        return Result.DONE
    return Result.BLOCKED if problem.passing else Result.INVALID
