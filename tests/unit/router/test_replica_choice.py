"""Which replica serves, and when one that failed is tried again."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_crds.wire import CanaryConfig, PoolConfig
from trimtab_router.core.breaker import WELL, failed, refused
from trimtab_router.core.pick import BOUND, pick
from trimtab_router.shell.endpoints import Directory, Replicas, listed

SEEDS = [101, 202, 303, 404]


def test_the_rest_doubles_up_to_its_bound():
    health, now, rests = WELL, 0.0, []
    for _ in range(8):
        health = failed(health, now)
        rests.append(health.rests_until - now)
        now = health.rests_until
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30]


def test_failures_while_it_rests_are_one_failure():
    once = failed(WELL, 10.0)
    assert failed(once, 10.5) == once
    assert once.rests(10.5)
    assert not once.rests(11.0)


def test_a_refusal_is_a_short_rest_without_distrust():
    health = refused(refused(WELL, 0.0), 5.0)
    assert (health.failures, health.rests_until) == (0, 6.0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.integers(0, 2**32), st.integers(0, 2**30))
def test_the_busiest_is_never_chosen_beyond_the_bound(loads, key, draw):
    chosen = pick(loads, SEEDS[: len(loads)], key=key, draw=draw)
    busiest_of_all = all(loads[chosen] > load for i, load in enumerate(loads) if i != chosen)
    within = loads[chosen] <= BOUND * sum(loads) / len(loads) + 1
    assert within or not busiest_of_all


def test_equal_prefixes_go_to_one_replica_while_it_has_room():
    idle = [0, 0, 0, 0]
    first = pick(idle, SEEDS, key=77, draw=0)
    assert {pick(idle, SEEDS, key=77, draw=d) for d in range(50)} == {first}
    busy = [20 if i == first else 0 for i in range(4)]
    assert first not in {pick(busy, SEEDS, key=77, draw=d) for d in range(50)}


def test_prefixes_spread_over_the_replicas():
    share = Counter(pick([0] * 4, SEEDS, key=key * 7919, draw=0) for key in range(400))
    assert min(share.values()) > 50


def test_a_replica_that_leaves_moves_only_its_own_prefixes():
    before = {key: SEEDS[pick([0] * 4, SEEDS, key=key, draw=0)] for key in range(200)}
    after = {key: SEEDS[pick([0] * 3, SEEDS[:3], key=key, draw=0)] for key in range(200)}
    assert all(after[key] == seed for key, seed in before.items() if seed != SEEDS[3])


def replicas(*addresses):
    found = Replicas(PoolConfig(name="p", served_name="m"))
    found.replace(listed(addresses))
    return found


def test_replicas_that_stay_keep_their_history():
    found = replicas("10.0.0.1:8000", "10.0.0.2:8000")
    first, second = found.endpoints
    found.replace(listed(["10.0.0.2:8000", "[fd00::1]:8000"]))
    assert found.endpoints[0] is second
    assert (first.gone, second.gone) == (True, False)
    assert [e.address for e in found.endpoints] == ["10.0.0.2:8000", "[fd00::1]:8000"]


def test_a_replica_that_failed_is_left_out_while_there_is_another():
    found = replicas("10.0.0.1:8000", "10.0.0.2:8000")
    first, second = found.endpoints
    first.failed(0.0)
    assert {found.pick(set(), key, 0.5) for key in range(50)} == {second}
    assert found.pick({second}, 1, 0.5) is first
    assert found.pick({first, second}, 1, 0.5) is None
    assert {found.pick(set(), key, 1.5) for key in range(50)} == {first, second}


def test_a_replica_that_answers_is_well_again():
    (only,) = replicas("10.0.0.1:8000").endpoints
    only.failed(0.0)
    only.succeeded()
    assert only.health == WELL


@pytest.mark.parametrize("addresses", [[], ["10.0.0.1:8000"]])
def test_a_pool_gives_what_it_has(addresses):
    found = replicas(*addresses)
    assert [found.pick(set(), 1, 0.0)] == (found.endpoints or [None])


class TestCanary:
    """A share of the pool's requests tries the replicas of a new revision."""

    @staticmethod
    def pool(*addresses, percent=20):
        canary = CanaryConfig(host="p-new", weight_percent=percent)
        found = Replicas(PoolConfig(name="p", served_name="m", host="p", canary=canary))
        found.replace(listed(addresses))
        return found

    @staticmethod
    def share(found, address):
        picks = Counter(found.pick(set(), key * 7919, 0.0).address for key in range(2000))
        return picks[address] / 2000

    @pytest.mark.parametrize("percent", [5, 20, 80])
    def test_it_gets_its_share_however_many_replicas_there_are(self, percent):
        found = self.pool("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000", "10.0.0.9:8000", percent=percent)
        found.canaries = frozenset(listed(["10.0.0.9:8000"]))
        assert abs(self.share(found, "10.0.0.9:8000") - percent / 100) < 0.05

    def test_the_other_side_takes_what_one_cannot(self):
        found = self.pool("10.0.0.1:8000", "10.0.0.9:8000", percent=99)
        found.canaries = frozenset(listed(["10.0.0.9:8000"]))
        old, new = found.endpoints
        assert found.pick({new}, 1, 0.0) is old
        assert found.pick({old}, 1, 0.0) is new
        new.failed(0.0)
        assert {found.pick(set(), key, 0.5) for key in range(50)} == {old}

    def test_before_it_answers_and_where_nothing_else_is_left_all_are_alike(self):
        found = self.pool("10.0.0.1:8000", "10.0.0.2:8000", percent=1)
        assert {e.address for e in (found.pick(set(), key, 0.0) for key in range(50))} == {
            "10.0.0.1:8000",
            "10.0.0.2:8000",
        }
        found.canaries = frozenset(listed(["10.0.0.1:8000", "10.0.0.2:8000"]))
        assert found.pick(set(), 1, 0.0) is not None

    def test_its_addresses_are_resolved_again_and_again(self):
        answers = {"p-new": listed(["10.0.0.9:8000"])}

        async def resolver(host, port):
            return answers.get(host)

        found, directory = self.pool("10.0.0.9:8000"), Directory(resolver)
        asyncio.run(directory.refresh_canaries(found, 8000))
        assert found.canaries == {("10.0.0.9", 8000)}
        answers.clear()
        asyncio.run(directory.refresh_canaries(found, 8000))
        assert found.canaries == {("10.0.0.9", 8000)}, "a silent server changes nothing"
        found.config = found.config.model_copy(update={"canary": None})
        asyncio.run(directory.refresh_canaries(found, 8000))
        assert found.canaries == frozenset()
