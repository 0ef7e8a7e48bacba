"""What GitOps tools make of a pool's status, at every stage of its life."""

import asyncio

import pytest

from support.kstatus import verdict
from support.operatorparts import Bench
from trimtab_operator.core import names
from trimtab_operator.core.kinds import POOL
from trimtab_operator.shell.reconcile import reconcile_pool

KEY = ("default", "low")


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_pool()
    return made


def look(bench: Bench) -> str:
    """The verdict after a pass."""
    asyncio.run(reconcile_pool(bench.refresh(), KEY))
    return verdict(bench.cluster.one(POOL, "low"))


def answer(bench: Bench) -> None:
    """One replica is asked for, and it answers."""
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": bench.engine(), "namespace": "default"},
        "spec": {"replicas": 1},
    }
    asyncio.run(bench.cluster.apply(body, manager=names.REPLICAS_MANAGER))
    bench.run_pods(ready=1)
    bench.settle(bench.engine(), ready=1)


def test_a_new_pool_is_in_progress_and_current_when_it_answers(bench: Bench):
    assert look(bench) == "InProgress"
    answer(bench)
    assert look(bench) == "Current"


def test_a_refused_recipe_has_failed(bench: Bench):
    look(bench)
    answer(bench)
    bench.cluster.change(POOL, "low", {"spec": {"accelerator": {"name": "nvidia-t4-16gb"}}})
    assert look(bench) == "Failed"


def test_an_edit_is_in_progress_before_anyone_has_looked_at_it(bench: Bench):
    look(bench)
    answer(bench)
    look(bench)
    bench.cluster.change(POOL, "low", {"spec": {"recipe": {"preset": "throughput"}}})
    assert verdict(bench.cluster.one(POOL, "low")) == "InProgress"
