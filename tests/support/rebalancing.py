"""Hand-written fakes of the rebalancer's ports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from support.manifests import policy_manifest, pool_manifest, shape
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core.fleet import Demand, pool_state
from trimtab_operator.core.observation import Observation, ObservedPool
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.metrics import MetricsUnavailable

KEY = "default/chat"


def observed_pool(name: str, *, running: int = 1, speed: float = 1.0, **changes: object) -> ObservedPool:
    """A scaled pool of one-GPU replicas, all ready."""
    scaling = {"spec__scaling": {"minReplicas": 1, "maxReplicas": 8}, "spec__model__shape": shape()}
    pool = InferencePool.model_validate(pool_manifest(name, **scaling | changes))
    return ObservedPool(pool, pool_state(pool, desired=running, ready=running, starting=0, draining=0), speed)


def observation(*pools: ObservedPool, gpus: int = 8, cold_start_seconds: float = 0, **changes: object) -> Observation:
    """The policy `chat` in mode Apply over the pools low and high."""
    rebalance = {"mode": "Apply", "gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": gpus}]}
    policy = RoutingPolicy.model_validate(policy_manifest(**{"spec__rebalance": rebalance} | changes))
    return Observation(policy, {p.pool.metadata.name: p for p in pools}, cold_start_seconds)


@dataclass(slots=True)
class FakeFleet:
    """A FleetPort in memory: replicas are there at once. `meanwhile` happens after the first look."""

    seen: Observation | None
    meanwhile: Observation | None = None
    written: list[tuple[str, int]] = field(default_factory=list)
    reports: list[TickReport] = field(default_factory=list)

    async def observe(self, policy: str) -> Observation | None:
        seen = self.seen
        if self.meanwhile is not None:
            self.seen, self.meanwhile = self.meanwhile, None
        return seen if seen is not None and seen.policy.key == policy else None

    async def set_replicas(self, pool: str, replicas: int) -> None:
        self.written.append((pool, replicas))
        assert self.seen is not None
        name = pool.rpartition("/")[2]
        observed = self.seen.pools[name]
        state = replace(observed.state, desired=replicas, ready=replicas)
        self.seen = replace(self.seen, pools={**self.seen.pools, name: replace(observed, state=state)})

    async def report(self, policy: str, report: TickReport) -> None:
        self.reports.append(report)


@dataclass(slots=True)
class FakeMetrics:
    """A MetricsSource that answers what it was given, or is down with `problem`."""

    readings: Mapping[str, Demand | None] = field(default_factory=dict)
    problem: str = ""
    asked: list[tuple[str, tuple[str, ...], int]] = field(default_factory=list)

    async def demand(self, policy: str, tiers: Sequence[str], *, window_seconds: int) -> Mapping[str, Demand | None]:
        self.asked.append((policy, tuple(tiers), window_seconds))
        if self.problem:
            raise MetricsUnavailable(self.problem)
        return self.readings
