"""Whole sequences of steps: what is done, in which order, and when it waits."""

from dataclasses import dataclass, replace

import pytest

from support.fleets import H100, L4, Pods, busy, fixed_pool, fleet, pool, tier
from trimtab_crds.routingpolicy import RebalanceMode
from trimtab_operator.core.fleet import Fleet
from trimtab_operator.core.rebalance import plan
from trimtab_operator.core.steps import Step, next_step


@dataclass(slots=True)
class Story:
    """Ticks of 15 seconds; a draining pod takes `drain_ticks` to go, a starting one `start_ticks` to come."""

    observed: Fleet
    drain_ticks: int = 1
    start_ticks: int = 1
    now: float = 10_000.0

    def tell(self, ticks: int) -> list[str]:
        """One word per tick: the step, or `-`."""
        pods = {t.pool.name: Pods(t.pool) for t in self.observed.tiers}
        words = []
        for tick in range(1, ticks + 1):
            self.observed = replace(
                self.observed, tiers=tuple(replace(t, pool=pods[t.pool.name].state) for t in self.observed.tiers)
            )
            step = next_step(self.observed, plan(self.observed, now=self.now), now=self.now)
            words.append("-" if step is None else f"{step.cause} {step.pool} {step.from_replicas}>{step.to_replicas}")
            if step is not None:
                pods[step.pool].follow(step)
                pods[step.pool].reconcile()
                if step.cause.is_move:
                    self.observed = replace(self.observed, last_move_at=self.now)
            for each in pods.values():
                if tick % self.start_ticks == 0:
                    each.start(9)
                if tick % self.drain_ticks == 0:
                    each.end(9)
            self.now += 15
        return words


def shifted(**changes: int) -> Fleet:
    """Low has four replicas and needs one, high has one and needs three; five GPUs."""
    return fleet(tier(pool("low", running=4), busy(0.7)), tier(pool("high", running=1), busy(2.3)), budget=5, **changes)


@pytest.mark.parametrize(
    ("story", "told"),
    [
        pytest.param(
            Story(
                fleet(
                    tier(pool("low", running=0, start_replicas=4), None),
                    tier(pool("high", running=0, start_replicas=2), None),
                )
            ),
            ["Follow low 0>4", "Follow high 0>2", "-", "-"],
            id="starts-everything-at-once",
        ),
        pytest.param(
            Story(
                fleet(
                    tier(pool("low", running=0, start_replicas=4), None),
                    tier(pool("high", running=0, start_replicas=4), None),
                    budget=6,
                )
            ),
            ["Follow low 0>3", "Follow high 0>3", "-", "-"],
            id="starts-as-far-as-the-budget-allows",
        ),
        pytest.param(
            Story(shifted(cooldown_seconds=1)),
            ["Shrink low 4>3", "Grow high 1>2", "Shrink low 3>2", "Grow high 2>3", "-", "-"],
            id="one-gpu-after-another",
        ),
        pytest.param(
            Story(shifted(cooldown_seconds=1), drain_ticks=3),
            ["Shrink low 4>3", "-", "-", "Grow high 1>2", "Shrink low 3>2", "-", "Grow high 2>3", "-", "-"],
            id="waits-until-the-gpu-is-really-free",
        ),
        pytest.param(
            Story(shifted(cooldown_seconds=45)),
            ["Shrink low 4>3", "Grow high 1>2", "-", "-", "Shrink low 3>2", "Grow high 2>3", "-", "-"],
            id="rests-between-two-moves",
        ),
        pytest.param(
            Story(shifted(cooldown_seconds=1), start_ticks=9),
            ["Shrink low 4>3", "Grow high 1>2", "Shrink low 3>2", "Grow high 2>3", "-", "-", "-"],
            id="starting-replicas-count-as-supply",
        ),
        pytest.param(
            Story(
                fleet(
                    tier(pool("low", running=4), busy(0)),
                    tier(pool("big", running=1, gpus_per_replica=2), busy(2)),
                    budget=6,
                    cooldown_seconds=1,
                    release_after_seconds=15,
                )
            ),
            ["Shrink low 4>3", "Shrink low 3>2", "Grow big 1>2", "Release low 2>1", "-"],
            id="frees-two-gpus-for-a-replica-of-two",
        ),
        pytest.param(
            Story(fleet(tier(pool("low", running=8, max_replicas=8), busy(0)), release_after_seconds=15)),
            ["Release low 8>6", "Release low 6>5", "Release low 5>4", "Release low 4>3", "Release low 3>2"],
            id="gives-back-a-quarter-at-most",
        ),
        pytest.param(
            Story(replace(fleet(tier(pool("low", running=2), busy(0)), release_after_seconds=40), created_at=9_990.0)),
            ["-", "-", "Release low 2>1", "-"],
            id="a-new-policy-has-time-to-find-its-traffic",
        ),
        pytest.param(
            Story(
                fleet(tier(pool("low", running=0, start_replicas=2), busy(0)), release_after_seconds=15), start_ticks=3
            ),
            ["Follow low 0>2", "-", "-", "Release low 2>1", "-"],
            id="what-has-not-started-is-not-known-to-be-idle",
        ),
        pytest.param(
            Story(fleet(tier(pool("low", running=3), busy(3)), tier(pool("high", running=3), busy(3)), budget=4)),
            ["Budget low 3>2", "Budget high 3>2", "-"],
            id="a-lowered-budget-is-obeyed-at-once",
        ),
        pytest.param(
            Story(fleet(tier(pool("low", running=6, max_replicas=3), busy(6)), last_move_at=9_999.0)),
            ["Bounds low 6>3", "-"],
            id="a-lowered-maximum-does-not-wait-for-the-cooldown",
        ),
        pytest.param(
            Story(fleet(tier(pool("low", running=2, min_replicas=4), busy(0)), last_move_at=9_999.0)),
            ["Bounds low 2>4", "-"],
            id="a-raised-minimum-does-not-wait-either",
        ),
        pytest.param(
            Story(
                fleet(
                    tier(fixed_pool("low", 6, running=2), busy(0)),
                    tier(pool("high", running=6), busy(6)),
                    last_move_at=9_999.0,
                )
            ),
            ["-", "-"],
            id="a-raised-fixed-pool-waits-for-the-cooldown",
        ),
        pytest.param(
            Story(fleet(tier(fixed_pool("low", 2, running=5), None), last_move_at=9_999.0)),
            ["Follow low 5>2", "-"],
            id="a-fixed-pool-follows-its-replicas",
        ),
        pytest.param(
            Story(
                fleet(
                    tier(pool("low", running=4), busy(0)),
                    tier(pool("big", running=1, accelerator=H100), busy(3)),
                    budgets={L4: 4, H100: 2},
                    release_after_seconds=15,
                )
            ),
            ["Grow big 1>2", "Release low 4>3", "Release low 3>2", "Release low 2>1", "-"],
            id="accelerators-do-not-trade",
        ),
        pytest.param(
            Story(
                fleet(
                    tier(pool("low", running=5, start_replicas=5), busy(0)),
                    tier(pool("high", running=1), busy(9)),
                    mode=RebalanceMode.DRY_RUN,
                )
            ),
            ["-", "-"],
            id="dry-run-moves-nothing",
        ),
    ],
)
def test_the_whole_sequence(story: Story, told: list[str]) -> None:
    assert story.tell(len(told)) == told


def step_of(observed: Fleet, now: float = 10_000.0) -> Step | None:
    return next_step(observed, plan(observed, now=now), now=now)


def test_a_new_leader_continues_a_move_from_what_it_sees() -> None:
    in_the_middle = fleet(tier(pool("low", running=3), busy(0.7)), tier(pool("high", running=1), busy(2.3)), budget=5)
    step = step_of(in_the_middle)
    assert step is not None
    assert (step.pool, step.from_replicas, step.to_replicas) == ("high", 1, 2)


def test_a_draining_pod_and_its_replacement_both_count() -> None:
    replaced = fleet(
        tier(pool("low", running=2, ready=1, starting=1, draining=1), busy(2)),
        tier(pool("high", running=1), busy(3)),
        budget=4,
    )
    assert step_of(replaced) is None


def test_no_shrink_while_enough_gpus_are_on_their_way() -> None:
    draining = fleet(
        tier(pool("low", desired=3, ready=3, draining=1), busy(0.7)), tier(pool("high", running=1), busy(2.3)), budget=5
    )
    assert step_of(draining) is None


def test_a_budget_below_the_minimum_is_filled_but_never_passed() -> None:
    stalled = fleet(tier(pool("low", running=0, min_replicas=3, start_replicas=3), None), budget=2)
    step = step_of(stalled)
    assert step is not None
    assert (step.from_replicas, step.to_replicas) == (0, 2)
    assert step_of(fleet(tier(pool("low", running=2, min_replicas=3, start_replicas=3), None), budget=2)) is None


@pytest.mark.parametrize(
    ("observed", "reason", "gain"),
    [
        pytest.param(shifted(), "frees GPUs for high: demand for high takes 3 replicas, 1 of 1 ready", 43, id="shrink"),
        pytest.param(
            fleet(tier(pool("high", running=1), busy(2.3))),
            "demand for high takes 3 replicas, 1 of 1 ready",
            57,
            id="grow",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(0.9))),
            "nobody needs them: demand for low takes 1 to 2 replicas, 4 of 4 ready",
            0,
            id="release",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(4)), budget=3),
            f"4 {L4} GPUs are over the budget of 3",
            0,
            id="budget",
        ),
        pytest.param(fleet(tier(pool("low", running=0), None)), "low starts with 1 of replicas 1", 0, id="start"),
    ],
)
def test_a_step_says_why(observed: Fleet, reason: str, gain: int) -> None:
    step = step_of(observed)
    assert step is not None
    assert step.reason == reason
    assert step.expected_gain_percent == gain
