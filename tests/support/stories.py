"""One pool and the operator that tends it, on the fake cluster; tests play Kubernetes' controllers and the clock."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from support.controllers import Controllers
from support.operatorparts import H100, Bench, FakeLoads
from trimtab_operator.core import names
from trimtab_operator.core.kinds import POOL
from trimtab_operator.core.observe import gpus_requested, is_ready
from trimtab_operator.shell.fleetport import KubernetesFleet
from trimtab_operator.shell.reconcile import reconcile_pool

KEY = ("default", "low")


@dataclass
class Story:
    """One pool `low`, tended; time goes on by ticks."""

    bench: Bench = field(default_factory=Bench)
    loads: FakeLoads = field(default_factory=FakeLoads)

    def __post_init__(self) -> None:
        self.play = Controllers(self.bench)
        self.fleet = KubernetesFleet(self.bench.deps, self.loads)

    def tick(self, seconds: float = 10) -> bool:
        """One pass of the pool's loop."""
        self.bench.clock.now += seconds
        asyncio.run(reconcile_pool(self.bench.refresh(), KEY))
        return asyncio.run(self.fleet.tend(KEY)) if self.bench.refresh() else False

    def run(self, ticks: int, *, idle: bool = True) -> None:
        """Ticks, after each of which everything settles; `idle`: nothing is ever in flight."""
        for _ in range(ticks):
            if idle:
                self.rest()
            self.tick()
            self.play.settle()

    def rest(self) -> None:
        """Every replica says that nothing is in flight."""
        self.loads.readings = {p["metadata"]["name"]: 0 for p in self.play.pods()}

    def wait_in_vain(self, ticks: int) -> None:
        """Ticks in which replicas end and are made, and none becomes ready."""
        for _ in range(ticks):
            self.rest()
            self.tick()
            self.play.reconcile()
            self.play.finish()

    def started(self, replicas: int = 2, budget: int | None = None, **pool: Any) -> "Story":
        """The pool runs at rest; with a budget, in a policy of mode DryRun."""
        self.bench.add_pool(spec__replicas=replicas, **pool)
        if budget is not None:
            rebalance = {"mode": "DryRun", "gpuBudget": [{"accelerator": H100, "gpus": budget}]}
            tiers = [{"name": "low", "poolRef": {"name": "low"}}]
            self.bench.add_policy(spec__tiers=tiers, spec__rebalance=rebalance)
            self.tick()
            self.scale(replicas)
        self.run(4)
        assert self.serving() == replicas
        return self

    def scale(self, replicas: int) -> None:
        """The rebalancer asks for a number."""
        port = self.fleet.of(("default", "chat"))

        async def both() -> None:
            assert await port.observe("default/chat") is not None
            await port.set_replicas("default/low", replicas)

        self.bench.refresh()
        asyncio.run(both())

    def edit(self, spec: dict[str, Any]) -> None:
        self.bench.cluster.change(POOL, "low", {"spec": spec})

    def serving(self) -> int:
        """Ready pods that the pool's Service leads to."""
        pods = [p for p in self.play.pods() if "deletionTimestamp" not in p["metadata"]]
        leads = [p for p in pods if p["metadata"]["labels"].get(names.SERVING_LABEL) == names.SERVING]
        return sum(map(is_ready, leads))

    def asked(self) -> list[int]:
        """Replicas by revision, oldest first."""
        return [w["spec"]["replicas"] for w in self.play.workloads()]

    def gpus(self) -> int:
        """GPUs that pods hold, ending ones included."""
        return sum(map(gpus_requested, self.play.pods()))

    def status(self) -> dict[str, Any]:
        return dict(self.bench.cluster.one(POOL, "low")["status"])

    def reason(self, kind: str) -> tuple[str, str]:
        return self.bench.conditions(POOL, "low")[kind]

    def cordoned(self) -> list[str]:
        pods = self.play.pods()
        return [p["metadata"]["name"] for p in pods if p["metadata"]["labels"].get(names.SERVING_LABEL) == "false"]
