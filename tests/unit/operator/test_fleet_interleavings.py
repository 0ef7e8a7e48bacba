"""Moves, roll-outs, drains, evictions and restarts of two pools under one budget, in any order, on the fake cluster.

A replica of the pool `high` has two GPUs, on two nodes or, after an edit, on one.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.controllers import Controllers
from support.manifests import tier
from support.operatorparts import H100, Bench, FakeLoads
from support.rebalancing import FakeMetrics
from trimtab_operator.core.fleet import Demand
from trimtab_operator.core.kinds import POOL
from trimtab_operator.core.observe import gpus_requested
from trimtab_operator.shell.fleetport import ChangedError, KubernetesFleet
from trimtab_operator.shell.rebalancer import Rebalancer
from trimtab_operator.shell.reconcile import reconcile_pool

POOLS = ("low", "high")
POLICY = ("default", "chat")
ACCELERATORS: dict[str, dict[str, Any]] = {
    "low": {"name": H100, "count": 1},
    "high": {"name": H100, "count": 2, "nodes": 2},
}
PRESETS = ["throughput", "interactive", "balanced", "reasoning"]
#: More than three replicas can do, and next to nothing.
MUCH, LITTLE = Demand(30.0, 30_000.0, 20_000.0), Demand(0.1, 100.0, 60.0)


@dataclass
class Fleet:
    """Two pools and the rebalancer of their policy."""

    budget: int
    bench: Bench = field(default_factory=Bench)
    loads: FakeLoads = field(default_factory=FakeLoads)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)

    def __post_init__(self) -> None:
        self.play = Controllers(self.bench)
        for name in POOLS:
            scaling = {"minReplicas": 1, "maxReplicas": 4}
            self.bench.add_pool(name, spec__replicas=1, spec__scaling=scaling, spec__accelerator=ACCELERATORS[name])
        rebalance = {
            "mode": "Apply",
            "gpuBudget": [{"accelerator": H100, "gpus": self.budget}],
            "cooldownSeconds": 1,
            "releaseAfterSeconds": 30,
        }
        self.bench.add_policy(spec__tiers=[tier("low"), tier("high")], spec__rebalance=rebalance)
        self.restart()

    def restart(self) -> None:
        """A new operator, which remembers nothing."""
        self.bench.deps.wanted.clear()
        self.bench.deps.reports.clear()
        self.fleet = KubernetesFleet(self.bench.deps, self.loads)
        self.rebalancer = Rebalancer(self.fleet.of(POLICY), lambda _: self.metrics, self.bench.clock)

    def pass_over(self, name: str) -> None:
        """The loop of one pool."""
        asyncio.run(reconcile_pool(self.bench.refresh(), ("default", name)))
        self.bench.refresh()
        asyncio.run(self.fleet.tend(("default", name)))

    def rebalance(self) -> None:
        """One tick."""
        self.bench.refresh()
        try:
            asyncio.run(self.rebalancer.tick("default/chat"))
        except ChangedError:
            return

    def idle(self) -> None:
        """Nothing is in flight anywhere."""
        self.loads.readings = {p["metadata"]["name"]: 0 for p in self.play.pods()}

    def spare(self) -> int:
        """GPUs that nobody holds or was promised."""
        self.bench.refresh()
        seen = asyncio.run(self.fleet.of(POLICY).observe("default/chat"))
        assert seen is not None
        return self.budget - sum(o.state.gpus_committed for o in seen.pools.values())

    def asked(self, name: str) -> int:
        return sum(
            d["spec"]["replicas"] for d in self.play.workloads() if d["metadata"]["labels"]["trimtab.dev/pool"] == name
        )

    def check(self) -> None:
        assert sum(map(gpus_requested, self.play.pods())) <= self.budget


def act(fleet: Fleet, data: st.DataObject) -> None:
    """Something happens."""
    which = data.draw(st.sampled_from(POOLS))
    match data.draw(st.sampled_from(["operator", "kubernetes", "people"])):
        case "operator":
            _operator(fleet, data, which)
        case "kubernetes":
            _kubernetes(fleet, data, which)
        case "people":
            _people(fleet, data, which)


def _operator(fleet: Fleet, data: st.DataObject, which: str) -> None:
    fleet.bench.clock.now += data.draw(st.sampled_from([1, 10]))
    match data.draw(st.sampled_from(["pass", "pass", "tick", "restart"])):
        case "pass":
            fleet.pass_over(which)
        case "tick":
            fleet.rebalance()
        case "restart":
            fleet.restart()


def _kubernetes(fleet: Fleet, data: st.DataObject, which: str) -> None:
    match data.draw(st.sampled_from(["reconcile", "start", "finish", "evict"])):
        case "reconcile":
            fleet.play.reconcile()
        case "start":
            fleet.play.start(data.draw(st.integers(1, 3)))
        case "finish":
            fleet.play.finish(data.draw(st.integers(1, 3)))
        case "evict":
            pods = [p["metadata"]["name"] for p in fleet.play.pods(which) if "deletionTimestamp" not in p["metadata"]]
            # A Deployment replaces it at once: without spare GPUs nothing could hold the budget.
            if pods and fleet.spare() >= ACCELERATORS[which]["count"]:
                fleet.play.end(data.draw(st.sampled_from(pods)))


def _people(fleet: Fleet, data: st.DataObject, which: str) -> None:
    match data.draw(st.sampled_from(["edit", "demand", "load"])):
        case "edit":
            preset = data.draw(st.sampled_from(PRESETS))
            nodes = data.draw(st.integers(1, ACCELERATORS[which]["count"]))
            spec = {"recipe": {"preset": preset}, "accelerator": {"nodes": nodes}}
            fleet.bench.cluster.change(POOL, which, {"spec": spec})
        case "demand":
            low, high = data.draw(st.sampled_from([(MUCH, LITTLE), (LITTLE, MUCH), (None, MUCH), (LITTLE, LITTLE)]))
            fleet.metrics.readings = {"low": low, "high": high}
        case "load":
            pods = [p["metadata"]["name"] for p in fleet.play.pods()]
            fleet.loads.readings = {name: data.draw(st.integers(0, 1)) for name in pods if data.draw(st.booleans())}


@settings(max_examples=6, deadline=None)
@given(st.data(), st.integers(3, 9))
def test_the_budget_holds_whatever_happens_in_which_order(data: st.DataObject, budget: int):
    fleet = Fleet(budget)
    for name in POOLS:
        fleet.pass_over(name)
    for _ in range(data.draw(st.integers(10, 50))):
        act(fleet, data)
        fleet.check()
    fleet.metrics.readings = {"low": LITTLE, "high": MUCH}
    for _ in range(40):
        fleet.bench.clock.now += 10
        fleet.idle()
        for name in POOLS:
            fleet.pass_over(name)
            fleet.check()
        fleet.rebalance()
        fleet.play.reconcile()
        fleet.check()
        fleet.play.start()
        fleet.play.finish()
    assert fleet.asked("low") == 1
    assert fleet.asked("high") == min(4, (budget - 1) // 2)
    for name in POOLS:
        assert fleet.bench.conditions(POOL, name)["RolledOut"] == ("True", "UpToDate")
        assert fleet.bench.conditions(POOL, name)["Ready"] == ("True", "Available")
