"""Locks by pool: pools without a common budget do not wait for each other, and nobody waits in a circle."""

import asyncio

import pytest

from support.fasttime import run_fast
from trimtab_operator.shell.poollocks import PoolLocks


async def hold(locks: PoolLocks, pools: list[str], seconds: float, *, namespace: str = "ns") -> tuple[float, float]:
    async with locks.holding(namespace, pools):
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        return began, asyncio.get_running_loop().time()


def times(*held: tuple[str, list[str]]) -> list[tuple[float, float]]:
    async def run() -> list[tuple[float, float]]:
        locks = PoolLocks()
        return await asyncio.gather(*(hold(locks, pools, 10, namespace=namespace) for namespace, pools in held))

    return run_fast(run())


@pytest.mark.parametrize(
    ("held", "seconds"),
    [
        ([("ns", ["low"]), ("ns", ["high"])], 10),
        ([("ns", ["low"]), ("other", ["low"])], 10),
        ([("ns", ["low"]), ("ns", ["low", "high"])], 20),
        ([("ns", ["low", "high"]), ("ns", ["high", "low"])], 20),
        ([("ns", ["low", "high"]), ("ns", ["high", "code"]), ("ns", ["code", "low"])], 30),
        ([("ns", ["low", "low"]), ("ns", ["high"])], 10),
    ],
    ids=["apart", "namespaces", "one of two", "either order", "a circle", "named twice"],
)
def test_who_shares_a_pool_waits_and_nobody_else(held: list[tuple[str, list[str]]], seconds: float):
    assert max(end for _, end in times(*held)) == pytest.approx(seconds, abs=0.5)
