"""Targets, verdicts and sentences of a plan, case by case."""

import pytest

from support.fleets import H100, L4, busy, fixed_pool, fleet, pool, tier
from trimtab_crds.routingpolicy import RebalanceMode
from trimtab_operator.core.fleet import Demand, Fleet
from trimtab_operator.core.rebalance import plan


@pytest.mark.parametrize(
    ("observed", "targets"),
    [
        pytest.param(
            fleet(tier(pool("low", running=4), busy(1)), tier(pool("high", running=1), busy(4)), budget=5),
            {"low": 1, "high": 4},
            id="replicas-follow-demand",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(4)), tier(pool("high", running=4), busy(4))),
            {"low": 4, "high": 4},
            id="served-and-full",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(0)), tier(pool("high", running=1), busy(1))),
            {"low": 1, "high": 2},
            id="no-demand-shrinks-to-minimum",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), None), tier(pool("high", running=1), busy(6))),
            {"low": 4, "high": 4},
            id="missing-demand-is-held-others-grow-beside-it",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(0), rates=None), tier(pool("high", running=1), busy(6))),
            {"low": 4, "high": 4},
            id="unknown-capacity-is-held",
        ),
        pytest.param(
            fleet(tier(fixed_pool("low", 3, running=3), busy(0)), tier(pool("high", running=1), busy(6))),
            {"low": 3, "high": 5},
            id="fixed-pool-keeps-its-replicas",
        ),
        pytest.param(
            fleet(tier(fixed_pool("low", 5, running=3), busy(0)), tier(pool("high", running=4), busy(6))),
            {"low": 5, "high": 3},
            id="raised-fixed-pool-comes-before-scaled-ones",
        ),
        pytest.param(
            fleet(tier(pool("low", running=0, start_replicas=3), None)), {"low": 3}, id="starts-from-its-replicas"
        ),
        pytest.param(
            fleet(tier(pool("low", running=0, min_replicas=0), busy(0)), last_move_at=5.0),
            {"low": 0},
            id="a-pool-that-was-shrunk-to-zero-stays",
        ),
        pytest.param(
            fleet(tier(pool("low", running=0, min_replicas=0), busy(1)), last_move_at=5.0),
            {"low": 2},
            id="a-pool-at-zero-grows-on-demand",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4, max_replicas=2), None)), {"low": 2}, id="a-lowered-maximum-holds-at-once"
        ),
        pytest.param(
            fleet(tier(pool("low", running=3), busy(3)), tier(pool("high", running=3), busy(3)), budget=4),
            {"low": 2, "high": 2},
            id="a-lowered-budget-is-shared",
        ),
        pytest.param(
            fleet(
                tier(pool("low", running=4), busy(1)),
                tier(pool("big", running=1, accelerator=H100), busy(3)),
                budgets={L4: 4, H100: 2},
            ),
            {"low": 2, "big": 2},
            id="budgets-of-two-accelerators-are-apart",
        ),
    ],
)
def test_targets(observed: Fleet, targets: dict[str, int]) -> None:
    assert plan(observed, now=0).targets == targets


@pytest.mark.parametrize("mode", [RebalanceMode.OFF, RebalanceMode.DRY_RUN])
def test_pools_stay_at_their_replicas_unless_it_applies(mode: RebalanceMode) -> None:
    observed = fleet(
        tier(pool("low", running=4, start_replicas=4), busy(0)), tier(pool("high", running=1), busy(4)), mode=mode
    )
    assert plan(observed, now=0).targets == {"low": 4, "high": 1}


def test_dry_run_still_says_what_it_would_do() -> None:
    observed = fleet(
        tier(pool("low", running=4, start_replicas=4), busy(0)),
        tier(pool("high", running=1), busy(4)),
        budget=5,
        mode=RebalanceMode.DRY_RUN,
    )
    decided = plan(observed, now=0)
    assert {name: verdict.desired for name, verdict in decided.verdicts.items()} == {"low": 1, "high": 4}
    assert decided.decision == f"{L4}: DryRun, would change low 4 to 1, high 1 to 4 (demand served +68 points)"


@pytest.mark.parametrize(
    ("observed", "tier_name", "limit"),
    [
        pytest.param(fleet(tier(pool("low"), busy(1)), mode=RebalanceMode.OFF), "low", "Off", id="off"),
        pytest.param(fleet(tier(pool("low"), busy(4)), mode=RebalanceMode.DRY_RUN), "low", "DryRun", id="dry-run"),
        pytest.param(fleet(tier(pool("low"), None)), "low", "MissingData", id="missing-data"),
        pytest.param(fleet(tier(pool("low"), busy(1), rates=None)), "low", "UnknownCapacity", id="unknown-capacity"),
        pytest.param(fleet(tier(pool("low"), busy(9))), "low", "", id="grows-now"),
        pytest.param(fleet(tier(pool("low", running=8), busy(9))), "low", "MaxReplicas", id="at-its-maximum"),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(9)), budget=4), "low", "Budget", id="the-budget-is-used-up"
        ),
        pytest.param(fleet(tier(pool("low", min_replicas=2, running=2), busy(0))), "low", "MinReplicas", id="minimum"),
        pytest.param(fleet(tier(pool("low", running=2), busy(2)), budget=2), "low", "", id="served"),
        pytest.param(
            fleet(tier(pool("low", running=50, max_replicas=99), busy(50)), budget=90, min_gain_percent=50),
            "low",
            "BelowGainThreshold",
            id="gain-too-small",
        ),
        pytest.param(
            fleet(tier(pool("low", running=1, draining=3), busy(0)), tier(pool("high"), busy(4)), budget=5),
            "high",
            "WaitingForGpus",
            id="gpus-still-held",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(0)), tier(pool("high"), busy(4)), budget=5, last_move_at=990.0),
            "high",
            "Cooldown",
            id="too-soon",
        ),
    ],
)
def test_limits(observed: Fleet, tier_name: str, limit: str) -> None:
    assert plan(observed, now=1_000).verdicts[tier_name].limited_by == limit


@pytest.mark.parametrize(
    ("ready", "demand", "percent"),
    [(2, busy(2), 100), (1, busy(2), 50), (0, busy(2), 0), (3, busy(0), 100), (2, None, None), (2, busy(2.01), 99)],
)
def test_coverage_counts_ready_replicas_only(ready: int, demand: Demand | None, percent: int | None) -> None:
    observed = fleet(tier(pool("low", running=3, ready=ready, starting=3 - ready), demand))
    assert plan(observed, now=0).verdicts["low"].coverage_percent == percent


@pytest.mark.parametrize(
    ("observed", "sentence"),
    [
        pytest.param(fleet(tier(pool("low", running=2), busy(2)), budget=2), "nothing to move", id="rest"),
        pytest.param(fleet(tier(pool("low"), None)), "nothing to move; held for want of demand data: low", id="blind"),
        pytest.param(
            fleet(tier(pool("low"), busy(1), rates=None)),
            "nothing to move; held because spec.model.shape is not set: low",
            id="no-shape",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(0)), tier(pool("high"), busy(4)), budget=5, last_move_at=990.0),
            "change low 4 to 1, high 1 to 4 (demand served +68 points), resting until 00:17:30Z",
            id="cooldown",
        ),
        pytest.param(
            fleet(tier(pool("low", running=4), busy(0)), last_move_at=990.0),
            "change low 4 to 1 (demand served stays the same), resting until 00:19:30Z",
            id="a-release-waits-longer",
        ),
        pytest.param(
            fleet(tier(pool("low", running=3), busy(3)), budget=2),
            "over the budget of 2 GPUs: low 3 to 2",
            id="over-budget",
        ),
        pytest.param(
            fleet(tier(pool("low", running=50, max_replicas=99), busy(50)), budget=90, min_gain_percent=50),
            "hold: low 50 to 63 brings demand served +7 points, below minGainPercent 50",
            id="threshold",
        ),
        pytest.param(fleet(tier(pool("low"), None), mode=RebalanceMode.OFF), "rebalancing is off", id="off"),
    ],
)
def test_the_decision_is_a_sentence(observed: Fleet, sentence: str) -> None:
    assert plan(observed, now=1_000).decision == f"{L4}: {sentence}"


def test_a_budget_below_the_minimum_names_field_value_and_fix() -> None:
    observed = fleet(
        tier(pool("low", running=0), None), tier(pool("high", running=0, gpus_per_replica=4), None), budget=3
    )
    problem = plan(observed, now=0).problem
    assert problem is not None
    assert problem.reason == "BudgetTooSmall"
    assert problem.message == (
        f"spec.rebalance.gpuBudget[{L4}].gpus 3 is below the 5 GPUs that the pools need at least (low 1, high 4); "
        "raise it, or lower scaling.minReplicas or replicas of a pool"
    )


def test_a_missing_budget_starts_nothing_and_takes_nothing_away() -> None:
    observed = fleet(
        tier(pool("low", running=3), busy(8)), tier(pool("high", running=0, min_replicas=0), busy(8)), budgets={H100: 4}
    )
    decided = plan(observed, now=0)
    assert decided.problem is not None
    assert decided.problem.reason == "BudgetMissing"
    assert sum(decided.targets.values()) == 3


def test_weights_decide_who_is_served_when_gpus_are_short() -> None:
    observed = fleet(tier(pool("low", running=3), busy(4)), tier(pool("high", running=1), busy(4), weight=3), budget=4)
    assert plan(observed, now=0).targets == {"low": 1, "high": 3}


def test_a_gain_below_the_threshold_moves_nothing() -> None:
    observed = fleet(
        tier(pool("low", running=50, max_replicas=99), busy(45)),
        tier(pool("high", running=40, max_replicas=99), busy(41)),
        budget=90,
        min_gain_percent=5,
    )
    assert plan(observed, now=0).targets == {"low": 50, "high": 40}
