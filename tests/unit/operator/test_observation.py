"""From what is observed to the fleet that is planned for."""

import pytest

from support.rebalancing import observation, observed_pool
from trimtab_operator.core.fleet import Demand, pool_state, two_digits
from trimtab_operator.core.observation import fleet_of, replica_rates

ASKED = Demand(1, 1_000, 500)


@pytest.mark.parametrize(
    ("value", "rounded"), [(0, 0), (0.001234, 0.0012), (1.26, 1.3), (99.6, 100), (12_345, 12_000), (0.5, 0.5)]
)
def test_two_digits(value: float, rounded: float) -> None:
    assert two_digits(value) == pytest.approx(rounded)


def test_work_is_replica_seconds_per_second() -> None:
    observed = observed_pool("low")
    rates = replica_rates(observed, ASKED)
    assert rates is not None
    assert rates.work(ASKED) == pytest.approx(
        1_000 / rates.prompt_tokens_per_second + 500 / rates.output_tokens_per_second
    )


def test_speed_scales_what_a_replica_does() -> None:
    plain, fast = replica_rates(observed_pool("low"), ASKED), replica_rates(observed_pool("low", speed=4), ASKED)
    assert plain is not None
    assert fast is not None
    assert fast.work(ASKED) == pytest.approx(plain.work(ASKED) / 4)


def test_rates_follow_the_mean_request() -> None:
    short, long = (replica_rates(observed_pool("low"), Demand(1, n, 500)) for n in (100, 8_000))
    assert short is not None
    assert long is not None
    assert short.output_tokens_per_second > long.output_tokens_per_second


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"spec__model__shape": None}, id="no-shape"),
        pytest.param(
            {"spec__model__shape": {
                "parametersMillions": 70_000, "layers": 80, "attentionHeads": 64, "kvHeads": 8, "headDim": 128
            }},
            id="does-not-fit",
        ),
    ],
)  # fmt: skip
def test_capacity_is_unknown_where_nothing_can_run(changes: dict[str, object]) -> None:
    assert replica_rates(observed_pool("low", **changes), ASKED) is None


def test_budgets_weights_and_states_reach_the_fleet() -> None:
    seen = observation(observed_pool("low", running=2), observed_pool("high", running=1), gpus=5)
    fleet = fleet_of(seen, {"low": ASKED})
    assert fleet.budgets == {"nvidia-l4-24gb": 5}
    assert [(t.name, t.pool.desired, t.weight, t.demand) for t in fleet.tiers] == [
        ("low", 2, 1, ASKED),
        ("high", 1, 1, None),
    ]
    assert fleet.last_move_at is None


def test_a_pool_without_scaling_is_bound_to_its_replicas() -> None:
    pool = observed_pool("low", spec__scaling=None, spec__replicas=3).pool
    state = pool_state(pool, desired=1, ready=1, starting=0, draining=2)
    assert (state.scaled, state.min_replicas, state.max_replicas, state.start_replicas) == (False, 3, 3, 3)
    assert (state.gpus_held, state.gpus_committed) == (3, 3)


@pytest.mark.parametrize(
    ("counts", "held", "committed"),
    [
        pytest.param((3, 3, 0, 0), 3, 3, id="steady"),
        pytest.param((3, 0, 0, 0), 3, 3, id="not-created-yet"),
        pytest.param((2, 2, 0, 1), 3, 3, id="draining"),
        pytest.param((3, 2, 0, 1), 3, 4, id="replacement-to-come"),
        pytest.param((1, 3, 0, 0), 3, 3, id="about-to-drain"),
    ],
)
def test_gpus_count_every_pod(counts: tuple[int, int, int, int], held: int, committed: int) -> None:
    desired, ready, starting, draining = counts
    pool = observed_pool("low").pool
    state = pool_state(pool, desired=desired, ready=ready, starting=starting, draining=draining)
    assert (state.gpus_held, state.gpus_committed) == (held, committed)
