"""The status of a pool from what was resolved and observed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core import conditions, modelvolume, names
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.observe import Observation
from trimtab_operator.core.problems import Problem
from trimtab_operator.core.recipe import Resolution, replica_for
from trimtab_operator.core.replica import planned_rates
from trimtab_operator.core.revisions import PoolReplicas
from trimtab_operator.core.rollout import Phase
from trimtab_operator.core.rolloutstatus import revision_counts, rolled_out
from trimtab_operator.core.workloads import pod_selector


@dataclass(frozen=True, slots=True)
class PoolView:
    """Everything that a pool's status is made of. `pool` is None when its spec cannot be read."""

    pool: InferencePool | None
    resolution: Resolution | None
    seen: Observation
    problem: Problem | None
    gpus: int
    nodes: Fact
    """The condition NodesReady."""
    replicas: PoolReplicas = field(default_factory=lambda: PoolReplicas(()))
    """The revisions that `seen` sums up."""
    others: tuple[Fact, ...] = ()
    """Conditions about what others do to the pool: ScalingOwned, ChildrenOwned."""
    owned: bool = False
    """An autoscaler sets the pool's `replicas`."""
    previous: Mapping[str, Any] = field(default_factory=dict)


def pool_status(view: PoolView, *, name: str, generation: int, now: float) -> dict[str, Any]:
    """The whole status; equal worlds give equal statuses. `now` is in epoch seconds."""
    seen, resolution = view.seen, view.resolution
    previous: Sequence[Mapping[str, Any]] = view.previous.get("conditions") or []
    accepted = resolution is not None and resolution.accepted
    status: dict[str, Any] = {
        "conditions": conditions.merge(previous, _facts(view, now), generation=generation, now=now),
        "observedGeneration": generation,
        "replicas": seen.running,
        "readyReplicas": seen.ready,
        "desiredReplicas": seen.desired,
        "gpus": view.gpus,
        **revision_counts(view.replicas),
        "selector": pod_selector(view.pool) if view.pool else f"{names.POOL_LABEL}={names.label_value(name)}",
        # The engines go on with the flags of the last accepted recipe.
        "flags": list(resolution.flags) if resolution and accepted else view.previous.get("flags") or [],
        "dropped": [{"what": d.what, "why": d.why} for d in resolution.dropped] if resolution else [],
    }
    capacity = _capacity(view.pool) if view.pool and accepted else None
    return {**status, "capacity": capacity} if capacity else status


def target_reached(pool: InferencePool, seen: Observation, *, owned: bool = False) -> bool:
    """Whether the pool is meant to have a number that the spec allows; `owned` pools follow `replicas` alone."""
    scaling = None if owned else pool.spec.scaling
    if scaling is None:
        return seen.desired == pool.spec.replicas
    return scaling.min_replicas <= seen.desired <= scaling.max_replicas


def _facts(view: PoolView, now: float) -> Iterable[Fact]:
    rollout = rolled_out(view.pool, view.replicas, now=now)
    yield _recipe(view)
    yield view.nodes
    if rollout is not None:
        yield rollout
    yield from view.others
    if view.problem is not None:
        yield Fact(conditions.READY, status=False, reason=view.problem.reason, message=view.problem.message)
        yield Fact(conditions.STALLED, status=True, reason=view.problem.reason, message=view.problem.message)
        return
    if rollout is not None and rollout.reason == Phase.ROLLED_BACK:
        yield Fact(conditions.READY, status=False, reason=rollout.reason, message=rollout.message)
        yield Fact(conditions.STALLED, status=True, reason=rollout.reason, message=rollout.message)
        return
    yield from _progress(view)


def _recipe(view: PoolView) -> Fact:
    resolution, pool = view.resolution, view.pool
    if resolution is None or pool is None:
        why = view.problem.message if view.problem else "not looked at yet"
        return Fact(conditions.RECIPE_VALID, status=None, reason="SpecInvalid", message=why)
    if not resolution.accepted:
        why = "; ".join(resolution.reasons)
        return Fact(conditions.RECIPE_VALID, status=False, reason="RecipeRefused", message=why)
    left_out = f", {len(resolution.dropped)} parts left out (status.dropped)" if resolution.dropped else ""
    message = f"preset {pool.spec.recipe.preset} resolves to flags of vLLM {pool.spec.engine.version}{left_out}"
    return Fact(conditions.RECIPE_VALID, status=True, reason="Accepted", message=message)


def _progress(view: PoolView) -> Iterable[Fact]:
    seen, pool = view.seen, view.pool
    if seen.failed:
        yield Fact(conditions.STALLED, status=True, reason="ProgressDeadlineExceeded", message=seen.failed)
    counts = f"{seen.ready} of {seen.desired} replicas answer"
    settled = pool is not None and seen.exists and target_reached(pool, seen, owned=view.owned) and not seen.updating
    if settled and seen.desired == 0:
        yield Fact(conditions.READY, status=True, reason="ScaledToZero", message="no replicas are wanted")
        return
    if settled and seen.ready >= seen.desired:
        yield Fact(conditions.READY, status=True, reason="Available", message=counts)
        return
    reason, message = _waiting(view, counts)
    yield Fact(conditions.READY, status=False, reason=reason, message=message)
    if not seen.failed:
        yield Fact(conditions.RECONCILING, status=True, reason=reason, message=message)


def _waiting(view: PoolView, counts: str) -> tuple[str, str]:
    seen, pool = view.seen, view.pool
    if pool is not None and not target_reached(pool, seen, owned=view.owned):
        scaling = None if view.owned else pool.spec.scaling
        wanted = pool.spec.replicas if scaling is None else max(scaling.min_replicas, min(1, pool.spec.replicas))
        return "WaitingForReplicas", f"{counts}, and the spec wants {wanted}: they start within the GPU budget"
    if view.nodes.reason == "Queued":
        return "Queued", f"{counts}; {view.nodes.message}"
    if pool is not None and modelvolume.lacks_token(pool, seen.trouble):
        secret = pool.spec.model.token_secret
        named = f"key {secret.key} of Secret {secret.name}" if secret else "the token"
        return (
            "TokenSecretMissing",
            f"{counts}; model.tokenSecret: {named} is not there; create it, or correct the name",
        )
    if seen.trouble:
        return "PodsNotReady", f"{counts}; {seen.trouble}"
    return ("RollingOut" if seen.updating else "PodsNotReady"), counts


def _capacity(pool: InferencePool) -> dict[str, Any] | None:
    replica = replica_for(pool)
    if replica is None:
        return None
    planned = planned_rates(pool, replica)
    return {
        "promptTokensPerSecond": round(planned.prompt_tokens_per_second),
        "outputTokensPerSecond": round(planned.output_tokens_per_second),
        "concurrentSequences": planned.batch,
        "source": "prior",
    }
