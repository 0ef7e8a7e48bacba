"""How long one plan and its first step take, by the number of pools: `python -m benchmarks.rebalance`."""

import random
import time

from trimtab_crds.routingpolicy import GpuBudget, Rebalance, RebalanceMode
from trimtab_operator.core.fleet import Demand, Fleet, PoolState, ReplicaRates, TierState
from trimtab_operator.core.rebalance import plan
from trimtab_operator.core.steps import next_step

ACCELERATOR = "nvidia-h100-80gb"
SIZES = (10, 100, 1_000, 10_000)
REPEATS = 3


def fleet_of(pools: int, seed: int = 1) -> Fleet:
    """Pools of one, two or four GPUs with random demand, and a budget of about 0.8 of what they need."""
    draw = random.Random(seed)
    tiers, needed = [], 0.0
    for i in range(pools):
        gpus, work = draw.choice((1, 2, 4)), draw.uniform(0, 8)
        running = draw.randint(1, 6)
        state = PoolState(
            name=f"pool-{i}",
            accelerator=ACCELERATOR,
            gpus_per_replica=gpus,
            min_replicas=1,
            max_replicas=20,
            start_replicas=1,
            scaled=True,
            desired=running,
            ready=running,
            starting=0,
            draining=0,
        )
        needed += gpus * max(work, 1)
        tiers.append(TierState(f"tier-{i}", state, 1, Demand(work, 100 * work, 100 * work), ReplicaRates(200, 200)))
    budget = int(0.8 * needed)
    settings = Rebalance(mode=RebalanceMode.APPLY, gpu_budget=[GpuBudget(accelerator=ACCELERATOR, gpus=budget)])
    return Fleet("default/benchmark", tuple(tiers), {ACCELERATOR: budget}, settings, None)


def seconds_of(fleet: Fleet) -> float:
    """The fastest of a few runs."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        next_step(fleet, plan(fleet, now=0), now=0)
        best = min(best, time.perf_counter() - started)
    return best


def main(_: list[str]) -> int:
    """Print one line per size."""
    print("pools   plan and step, seconds")
    for size in SIZES:
        print(f"{size:>6}  {seconds_of(fleet_of(size)):.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main([]))
