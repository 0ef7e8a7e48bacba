"""Builders of fleets for the rebalancer's tests, and a fleet whose pods start late and drain long."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trimtab_crds.routingpolicy import GpuBudget, Rebalance, RebalanceMode
from trimtab_operator.core.fleet import Demand, Fleet, PoolState, ReplicaRates, TierState
from trimtab_operator.core.steps import Step

L4 = "nvidia-l4-24gb"
H100 = "nvidia-h100-80gb"
#: One request a second of this size keeps exactly one replica with UNIT_RATES busy.
UNIT_RATES = ReplicaRates(prompt_tokens_per_second=200, output_tokens_per_second=200)


def busy(replicas: float) -> Demand:
    """Demand that keeps that many replicas with UNIT_RATES busy without a pause."""
    return Demand(replicas, 100 * replicas, 100 * replicas)


def pool(name: str = "low", *, running: int = 1, **changes: object) -> PoolState:
    """A scaled pool of one-GPU replicas, 1 to 8, that starts at 1; `running` are desired and ready."""
    whole = PoolState(
        name=name,
        accelerator=L4,
        gpus_per_replica=1,
        min_replicas=1,
        max_replicas=8,
        start_replicas=1,
        scaled=True,
        desired=running,
        ready=running,
        starting=0,
        draining=0,
    )
    return replace(whole, **changes)


def fixed_pool(name: str, replicas: int, *, running: int, **changes: object) -> PoolState:
    """A pool without `scaling`."""
    bounds = {"min_replicas": replicas, "max_replicas": replicas, "start_replicas": replicas, "scaled": False}
    return pool(name, running=running, **bounds | changes)


def tier(
    state: PoolState, demand: Demand | None, *, weight: int = 1, rates: ReplicaRates | None = UNIT_RATES
) -> TierState:
    """The tier of the same name as its pool."""
    return TierState(state.name, state, weight, demand, rates)


def settings(
    mode: RebalanceMode = RebalanceMode.APPLY, budgets: Mapping[str, int] | None = None, **changes: int
) -> Rebalance:
    """Full utilization and no threshold, so that the figures in a test are easy to follow."""
    plain = {
        "max_utilization_percent": 100,
        "min_gain_percent": 2,
        "cooldown_seconds": 60,
        "release_after_seconds": 180,
    }
    budget = [GpuBudget(accelerator=name, gpus=gpus) for name, gpus in (budgets or {L4: 8}).items()]
    return Rebalance(mode=mode, gpu_budget=budget, **plain | changes)


def fleet(
    *tiers: TierState,
    budget: int = 8,
    budgets: Mapping[str, int] | None = None,
    mode: RebalanceMode = RebalanceMode.APPLY,
    last_move_at: float | None = None,
    **changes: int,
) -> Fleet:
    """A fleet in mode Apply with `budget` L4 GPUs."""
    limits = {L4: budget} if budgets is None else dict(budgets)
    return Fleet("default/chat", tiers, limits, settings(mode, limits, **changes), last_move_at)


@dataclass(slots=True)
class Pods:
    """The pods of one pool, as a Deployment keeps them: it replaces what ends without waiting for it."""

    state: PoolState

    def follow(self, step: Step) -> None:
        """The Deployment is told; its pods follow when its controller gets to it."""
        assert self.state.desired == step.from_replicas
        self.state = replace(self.state, desired=step.to_replicas)

    def evict(self) -> None:
        """A node drain ends a ready pod; the controller will replace it."""
        self.state = replace(self.state, ready=self.state.ready - 1, draining=self.state.draining + 1)

    def reconcile(self) -> None:
        """What the Deployment's controller does: create what is missing, end what is too much."""
        state = self.state
        surplus = state.ready + state.starting - state.desired
        if surplus < 0:
            self.state = replace(state, starting=state.starting - surplus)
        elif surplus > 0:
            unready = min(surplus, state.starting)
            self.state = replace(
                state,
                starting=state.starting - unready,
                ready=state.ready - (surplus - unready),
                draining=state.draining + surplus,
            )

    def start(self, count: int) -> None:
        """Some starting pods become ready."""
        count = min(count, self.state.starting)
        self.state = replace(self.state, starting=self.state.starting - count, ready=self.state.ready + count)

    def end(self, count: int) -> None:
        """Some draining pods are gone."""
        self.state = replace(self.state, draining=self.state.draining - min(count, self.state.draining))

    @property
    def gpus(self) -> int:
        """GPUs that existing pods hold."""
        return self.state.gpus_per_replica * (self.state.ready + self.state.starting + self.state.draining)
