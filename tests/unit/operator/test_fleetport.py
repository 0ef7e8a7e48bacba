"""The rebalancer's fleet on Kubernetes: what counts as held, who may write replicas, and when nothing may be moved."""

import asyncio
from typing import Any

import pytest

from support.manifests import tier
from support.operatorparts import H100, Bench, FakeLoads, pod
from trimtab_crds.routingpolicy import Move
from trimtab_operator.core import names
from trimtab_operator.core.kinds import DEPLOYMENT, POD, POLICY, POOL
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.fleetport import ChangedError, FleetUnknownError, KubernetesFleet, PolicyFleet

SCALED = {"minReplicas": 1, "maxReplicas": 6}
POLICY_NAME = "default/chat"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_moved_pools()
    return made


@pytest.fixture
def fleet(bench: Bench) -> PolicyFleet:
    return KubernetesFleet(bench.refresh(), FakeLoads()).of(("default", "chat"))


def observe(bench: Bench, fleet: PolicyFleet) -> Any:
    bench.refresh()
    return asyncio.run(fleet.observe(POLICY_NAME))


def set_replicas(bench: Bench, fleet: PolicyFleet, pool: str, replicas: int) -> None:
    observe(bench, fleet)
    asyncio.run(fleet.set_replicas(f"default/{pool}", replicas))


def replicas(bench: Bench, pool: str) -> int:
    return int(bench.cluster.one(DEPLOYMENT, bench.engine(pool))["spec"]["replicas"])


def test_it_counts_pods_one_by_one_ending_ones_included(bench: Bench, fleet: PolicyFleet):
    bench.run_pods("low", ready=2, starting=1, draining=1)
    bench.cluster.put(pod("low-engine-old", "done", pool="low"))
    state = observe(bench, fleet).pools["low"].state
    assert (state.desired, state.ready, state.starting, state.draining) == (0, 2, 1, 1)
    assert state.gpus_held == 4


def test_it_reads_the_api_server_and_not_the_watches(bench: Bench, fleet: PolicyFleet):
    bench.refresh()
    bench.run_pods("low", draining=2)
    seen = asyncio.run(fleet.observe(POLICY_NAME))
    assert seen is not None
    assert seen.pools["low"].state.draining == 2


def test_replicas_are_written_under_their_own_manager_and_nothing_else(bench: Bench, fleet: PolicyFleet):
    before = bench.cluster.one(DEPLOYMENT, bench.engine())["spec"]["template"]
    set_replicas(bench, fleet, "low", 3)
    after = bench.cluster.one(DEPLOYMENT, bench.engine())
    assert after["spec"]["replicas"] == 3
    assert after["spec"]["template"] == before
    assert [f["manager"] for f in after["metadata"]["managedFields"]] == [names.REPLICAS_MANAGER]


def test_an_observation_shows_a_write_at_once(bench: Bench, fleet: PolicyFleet):
    set_replicas(bench, fleet, "low", 3)
    seen = asyncio.run(fleet.observe(POLICY_NAME))
    assert seen is not None
    assert seen.pools["low"].state.desired == 3


def test_a_deployment_that_changed_since_is_not_written(bench: Bench, fleet: PolicyFleet):
    observe(bench, fleet)
    bench.cluster.change(DEPLOYMENT, bench.engine(), {"spec": {"replicas": 5}})
    with pytest.raises(ChangedError, match="default/low has 5 replicas, the step was planned from 0"):
        asyncio.run(fleet.set_replicas("default/low", 1))
    assert replicas(bench, "low") == 5


def test_a_deployment_that_is_gone_or_not_a_pools_is_not_written(bench: Bench, fleet: PolicyFleet):
    observe(bench, fleet)
    owned = bench.cluster.one(DEPLOYMENT, bench.engine())
    del owned["metadata"]["ownerReferences"]
    with pytest.raises(ChangedError, match="has None replicas"):
        asyncio.run(fleet.set_replicas("default/low", 1))
    bench.cluster.remove(DEPLOYMENT, bench.engine())
    with pytest.raises(ChangedError, match="has None replicas"):
        asyncio.run(fleet.set_replicas("default/low", 1))


def test_a_pool_that_another_policy_claimed_meanwhile_is_not_written(bench: Bench, fleet: PolicyFleet):
    observe(bench, fleet)
    rebalance = {"mode": "Apply", "gpuBudget": [{"accelerator": H100, "gpus": 8}]}
    bench.add_policy("older", metadata__creationTimestamp="2025-01-01T00:00:00Z", spec__rebalance=rebalance)
    bench.refresh()
    with pytest.raises(ChangedError, match="default/low is no longer moved by this policy"):
        asyncio.run(fleet.set_replicas("default/low", 1))


@pytest.mark.parametrize("how", ["deleted", "unreadable"])
def test_gpus_that_cannot_be_told_apart_stop_the_tick(bench: Bench, fleet: PolicyFleet, how: str):
    bench.run_pods("low", draining=2)
    if how == "deleted":
        bench.cluster.remove(POOL, "low")
    else:
        bench.cluster.change(POOL, "low", {"spec": {"accelerator": {"name": "abacus"}}})
    with pytest.raises(FleetUnknownError, match="pool low cannot be read and 2 of its pods still hold GPUs"):
        observe(bench, fleet)
    bench.run_pods("low")
    assert "low" not in observe(bench, fleet).pools or how == "unreadable"


def test_pods_of_an_earlier_spec_hold_what_they_asked_for(bench: Bench, fleet: PolicyFleet):
    bench.run_pods("low", ready=2, gpus=4)
    assert observe(bench, fleet).pools["low"].state.gpus_held == 8


def test_a_pool_whose_recipe_is_refused_still_counts(bench: Bench, fleet: PolicyFleet):
    bench.run_pods("low", ready=2)
    bench.cluster.change(POOL, "low", {"spec": {"engine": {"args": ["-tp", "2"]}}})
    assert observe(bench, fleet).pools["low"].state.ready == 2


def test_a_policy_that_is_gone_ends_or_cannot_be_read_is_not_observed(bench: Bench, fleet: PolicyFleet):
    bench.cluster.change(POLICY, "chat", {"spec": {"rebalance": {"intervalSeconds": "often"}}})
    assert observe(bench, fleet) is None
    bench.cluster.change(POLICY, "chat", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert observe(bench, fleet) is None
    bench.cluster.remove(POLICY, "chat")
    assert observe(bench, fleet) is None


def test_a_cold_start_is_measured_on_pods_that_never_restarted(bench: Bench, fleet: PolicyFleet):
    bench.cluster.put(pod("low-engine-1", "ready", pool="low"))
    assert observe(bench, fleet).cold_start_seconds == 90
    bench.cluster.put(pod("low-engine-1", "ready", pool="low", containerStatuses=[{"restartCount": 2}]))
    assert observe(bench, fleet).cold_start_seconds == 0


def test_the_last_move_is_known_before_the_status_shows_it(bench: Bench, fleet: PolicyFleet):
    move = Move(time="2026-01-01T00:00:00Z", pool="low", from_replicas=2, to_replicas=1, reason="why")
    plain = {"tiers": (), "gpus": (), "decision": "", "step": None, "problem": None, "metrics_problem": ""}
    asyncio.run(fleet.report(POLICY_NAME, TickReport(last_move=move, **plain)))
    asyncio.run(fleet.report(POLICY_NAME, TickReport(last_move=None, **plain)))
    assert observe(bench, fleet).policy.status.last_move == move


class TestFollow:
    """Pools that no policy moves."""

    def follow(self, bench: Bench, name: str = "low") -> None:
        asyncio.run(KubernetesFleet(bench.refresh(), FakeLoads()).tend(("default", name)))

    def test_a_pool_in_a_policy_is_not_followed(self, bench: Bench):
        self.follow(bench)
        assert replicas(bench, "low") == 0

    def test_a_policy_that_cannot_be_read_still_holds_its_pools(self, bench: Bench):
        bench.cluster.change(POLICY, "chat", {"spec": {"rebalance": {"intervalSeconds": "often"}}})
        self.follow(bench)
        assert replicas(bench, "low") == 0

    def test_a_pool_in_no_policy_has_the_replicas_of_its_spec(self, bench: Bench):
        bench.cluster.change(POLICY, "chat", {"spec": {"tiers": [tier("high")]}})
        self.follow(bench)
        assert replicas(bench, "low") == 3
        bench.cluster.writes()
        self.follow(bench)
        assert bench.cluster.writes() == []

    def test_a_policy_that_ends_lets_its_pools_go(self, bench: Bench):
        bench.cluster.change(POLICY, "chat", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        self.follow(bench)
        assert replicas(bench, "low") == 3

    def test_a_pool_without_a_deployment_waits(self, bench: Bench):
        bench.cluster.remove(POLICY, "chat")
        bench.cluster.remove(DEPLOYMENT, bench.engine())
        bench.cluster.writes()
        self.follow(bench)
        assert bench.cluster.writes() == []

    def test_a_write_in_flight_is_over_before_a_policy_is_observed(self, bench: Bench):
        """The claim is read under the lock: a pool that a policy just claimed has no other writer left."""

        async def both() -> int:
            fleet = KubernetesFleet(bench.deps, FakeLoads())
            following = asyncio.create_task(fleet.tend(("default", "low")))
            await asyncio.sleep(0)
            bench.add_policy(spec__rebalance={"mode": "Apply", "gpuBudget": [{"accelerator": H100, "gpus": 8}]})
            bench.refresh()
            seen = await fleet.of(("default", "chat")).observe(POLICY_NAME)
            await following
            assert seen is not None
            return seen.pools["low"].state.desired

        bench.cluster.remove(POLICY, "chat")
        bench.refresh()
        assert asyncio.run(both()) == replicas(bench, "low")


def test_only_pods_with_the_label_are_read(bench: Bench, fleet: PolicyFleet):
    bench.cluster.put(pod("stranger", "ready", pool="elsewhere"))
    assert observe(bench, fleet).pools["low"].state.ready == 0
    assert bench.cluster.one(POD, "stranger")
