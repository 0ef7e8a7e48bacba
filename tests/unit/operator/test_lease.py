"""Leader election: who leads when, by the clock of the candidate alone."""

import asyncio
from collections.abc import Awaitable

from support.fakecluster import FakeCluster
from support.operatorparts import Clock
from trimtab_operator.core.kinds import LEASE
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.lease import Lease, LeaseSettings


class Election:
    """Candidates for one lease, each with a clock of its own."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.clocks: dict[str, Clock] = {}

    def candidate(self, name: str, *, starts_at: float = 0) -> Lease:
        clock = self.clocks[name] = Clock(starts_at)
        return Lease(self.cluster, LeaseSettings("default", "operator", name, period_seconds=0), clock)

    @property
    def holder(self) -> str:
        return str(self.cluster.one(LEASE, "operator")["spec"]["holderIdentity"])


def acquired(lease: Lease) -> bool:
    """Whether the candidate gets the lease without anything changing."""

    async def attempt() -> bool:
        task = asyncio.create_task(lease.acquire())
        for _ in range(50):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return done

    return asyncio.run(attempt())


def ends(work: Awaitable[None]) -> bool:
    async def attempt() -> bool:
        task = asyncio.ensure_future(work)
        for _ in range(50):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return done

    return asyncio.run(attempt())


def test_the_first_candidate_leads_and_the_second_stands_by():
    election = Election()
    first, second = election.candidate("a"), election.candidate("b")
    assert acquired(first)
    assert not acquired(second)
    assert election.holder == "a"
    assert (first.is_held(), second.is_held()) == (True, False)


def test_a_dead_leader_is_followed_after_the_lease_s_duration_on_the_follower_s_clock():
    election = Election()
    assert acquired(election.candidate("a", starts_at=1_000_000))
    second = election.candidate("b")
    assert not acquired(second)
    election.clocks["b"].now = 14.9
    assert not acquired(second)
    election.clocks["b"].now = 15.0
    assert acquired(second)
    assert election.holder == "b"
    assert election.cluster.one(LEASE, "operator")["spec"]["leaseTransitions"] == 1


def test_a_renewal_keeps_the_others_away():
    election = Election()
    first, second = election.candidate("a"), election.candidate("b")
    assert acquired(first)
    assert not acquired(second)
    election.clocks["a"].now = election.clocks["b"].now = 9
    assert not ends(first.hold())
    election.clocks["b"].now = 20
    assert not acquired(second)


def test_a_lease_that_was_given_up_is_taken_at_once():
    election = Election()
    first, second = election.candidate("a"), election.candidate("b")
    assert acquired(first)
    asyncio.run(first.release())
    assert not first.is_held()
    assert acquired(second)


def test_who_does_not_hold_it_gives_nothing_up():
    election = Election()
    first, second = election.candidate("a"), election.candidate("b")
    assert acquired(first)
    assert not acquired(second)
    asyncio.run(second.release())
    assert election.holder == "a"


def test_a_leader_that_slept_may_not_write_and_gives_up_leading():
    election = Election()
    first = election.candidate("a")
    assert acquired(first)
    election.clocks["a"].now = 10
    assert not first.is_held(), "the renew deadline is before anybody else may take over"
    assert ends(first.hold())
    assert not first.is_held()


def test_a_leader_that_cannot_renew_stops_at_the_deadline():
    election = Election()
    first = election.candidate("a")
    assert acquired(first)

    async def outage() -> bool:
        task = asyncio.create_task(first.hold())
        election.cluster.fail_always["get"] = ClusterError("get", 0, "no answer")
        for second in range(12):
            assert not task.done() or second > 9
            election.clocks["a"].now = second
            for _ in range(3):
                await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return done

    assert asyncio.run(outage())


def test_a_short_outage_is_survived():
    election = Election()
    first = election.candidate("a")
    assert acquired(first)
    election.clocks["a"].now = 5
    election.cluster.fail_next["get"] = ClusterError("get", 503, "later")
    assert not ends(first.hold())
    assert first.is_held()


def test_a_lost_race_is_no_lease():
    election = Election()
    first = election.candidate("a")
    election.cluster.fail_next["create"] = ClusterError("create", 409, "already exists")
    assert acquired(first), "the second attempt finds nobody there"
    second = election.candidate("b")
    assert not acquired(second)
    election.clocks["b"].now = 30
    election.cluster.fail_next["replace"] = ClusterError("replace", 409, "the object has been modified")
    assert acquired(second)


def test_a_leader_whose_record_was_taken_is_lost():
    election = Election()
    first = election.candidate("a")
    assert acquired(first)
    election.cluster.change(LEASE, "operator", {"spec": {"holderIdentity": "b"}})
    assert ends(first.hold())
    assert not first.is_held()
