"""Watches that no longer hear are found by comparing them with the API server's own answer."""

import asyncio
from collections.abc import Callable

import pytest

from support.fakecluster import FakeCluster
from support.operatorparts import Bench, Clock
from trimtab_operator.core.kinds import DEPLOYMENT, POOL
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.health import Health
from trimtab_operator.shell.resync import Look, check_watches, is_deaf, run_heartbeat, run_resync
from trimtab_operator.shell.world import World, wake_key


def deaf(cluster: FakeCluster, world: World) -> list[str]:
    return asyncio.run(check_watches(cluster, world, [None], pause_seconds=0))


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_pool()
    made.refresh()
    return made


def test_watches_that_hear_are_well(bench: Bench):
    assert deaf(bench.cluster, bench.deps.world) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c.change(POOL, "low", {"spec": {"replicas": 7}}), id="a change"),
        pytest.param(lambda c: c.remove(POOL, "low"), id="an end"),
        pytest.param(
            lambda c: c.put({"apiVersion": "x", "kind": "InferencePool", "metadata": {"name": "n"}}), id="new"
        ),
    ],
)
def test_what_a_watch_missed_makes_it_deaf(bench: Bench, change: Callable[[FakeCluster], object]):
    change(bench.cluster)
    assert deaf(bench.cluster, bench.deps.world) == ["InferencePool"]


def test_a_watch_that_catches_up_between_the_looks_is_well(bench: Bench):
    bench.cluster.change(POOL, "low", {"spec": {"replicas": 7}})

    async def story() -> list[str]:
        check = asyncio.create_task(check_watches(bench.cluster, bench.deps.world, [None], pause_seconds=0))
        await asyncio.sleep(0)
        bench.refresh()
        return await check

    assert asyncio.run(story()) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(Look({"a": "2"}, {"a": "1"}), Look({"a": "2"}, {"a": "2"}), False, id="it came late"),
        pytest.param(Look({"a": "2"}, {"a": "1"}), Look({"a": "9"}, {"a": "5"}), False, id="it moves all the time"),
        pytest.param(Look({"a": "2"}, {"a": "1"}), Look({"a": "2"}, {"a": "1"}), True, id="it stands still"),
        pytest.param(Look({"a": "2"}, {}), Look({"a": "2"}, {}), True, id="never heard of"),
        pytest.param(Look({}, {"a": "1"}), Look({}, {"a": "1"}), True, id="an end never heard of"),
        pytest.param(Look({}, {"a": "1"}), Look({}, {}), False, id="an end heard late"),
        pytest.param(Look({"a": "2"}, {}), Look({}, {}), False, id="it came and went"),
    ],
)
def test_deafness(first: Look, second: Look, expected: bool):
    assert is_deaf(first, second) is expected


def test_other_peoples_deployments_are_no_news(bench: Bench):
    theirs = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {}}
    bench.cluster.put(theirs)
    assert bench.cluster.one(DEPLOYMENT, "web")
    assert deaf(bench.cluster, bench.deps.world) == []


def rounds(bench: Bench, health: Health) -> bool:
    """A few rounds of the resync; whether the pool's loop was woken."""

    async def story() -> bool:
        with bench.deps.wakeups.listening(wake_key(POOL, ("default", "low"))) as poked:
            task = asyncio.create_task(run_resync(bench.deps, health, [None], every_seconds=0))
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return poked.is_set()

    return asyncio.run(story())


def test_every_round_wakes_every_loop(bench: Bench):
    health = Health(Clock(0))
    assert rounds(bench, health)
    assert health.dead() == []


def test_an_api_server_that_is_away_is_no_death(bench: Bench):
    health = Health(Clock(0))
    bench.cluster.fail_always["list_all"] = ClusterError("list", 0, "no answer")
    assert not rounds(bench, health)
    assert health.dead() == []


def test_a_stuck_event_loop_is_a_death():
    clock = Clock(0)
    health = Health(clock)

    async def story() -> None:
        task = asyncio.create_task(run_heartbeat(health, every_seconds=0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert health.dead() == []
    clock.now = 31
    assert health.dead() == ["event loop is silent for 31 s, it promised 30 s"]
