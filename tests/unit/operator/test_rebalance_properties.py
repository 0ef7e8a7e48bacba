"""Invariants of plan and steps under random demand, slow pods and restarts."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from support.fleets import H100, L4, Pods, busy, fixed_pool, fleet, pool, tier
from trimtab_operator.core.fleet import Fleet, TierState
from trimtab_operator.core.rebalance import Plan, plan
from trimtab_operator.core.steps import next_step

EXAMPLES = settings(max_examples=60)
WORK = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 1.0]), st.floats(0, 12))


@st.composite
def tiers(draw: st.DrawFn, *, empty: bool = False) -> tuple[TierState, ...]:
    """Up to five tiers; `empty` pools have no pods yet."""
    out = []
    for i in range(draw(st.integers(1, 5))):
        low, extra = draw(st.integers(0, 2)), draw(st.integers(0, 5))
        bounds = {
            "accelerator": draw(st.sampled_from([L4, L4, H100])),
            "gpus_per_replica": draw(st.sampled_from([1, 1, 2, 4])),
        }
        start = draw(st.integers(low, low + extra))
        running = 0 if empty else start
        if draw(st.integers(0, 4)) == 0:
            state = fixed_pool(f"pool-{i}", start, running=running, **bounds)
        else:
            scaling = {"min_replicas": low, "max_replicas": low + extra, "start_replicas": start}
            state = pool(f"pool-{i}", running=running, **bounds | scaling)
        work = draw(WORK)
        out.append(tier(state, None if work is None else busy(work), weight=draw(st.integers(1, 4))))
    return tuple(out)


def least_gpus(members: tuple[TierState, ...], accelerator: str) -> int:
    return sum(
        t.pool.gpus_per_replica * (t.pool.min_replicas if t.pool.scaled else t.pool.start_replicas)
        for t in members
        if t.pool.accelerator == accelerator
    )


@st.composite
def budgeted(draw: st.DrawFn, *, empty: bool = True) -> Fleet:
    """A fleet whose budgets hold at least the pools' minimum."""
    members = draw(tiers(empty=empty))
    budgets = {name: least_gpus(members, name) + draw(st.integers(0, 10)) for name in (L4, H100)}
    gain = draw(st.sampled_from([0, 2, 10]))
    return fleet(*members, budgets=budgets, min_gain_percent=gain, cooldown_seconds=draw(st.sampled_from([1, 30])))


def within_bounds(observed: Fleet, decided: Plan) -> bool:
    return all(t.pool.min_replicas <= decided.targets[t.pool.name] <= t.pool.max_replicas for t in observed.tiers)


@EXAMPLES
@given(budgeted(empty=False))
def test_targets_keep_bounds_and_budget(observed: Fleet) -> None:
    decided = plan(observed, now=0)

    assert within_bounds(observed, decided)
    for accelerator, budget in observed.budgets.items():
        held = sum(t.pool.gpus_per_replica * decided.targets[t.pool.name] for t in observed.on(accelerator))
        assert held <= budget


@EXAMPLES
@given(budgeted(empty=False))
def test_plan_is_a_function_of_what_is_observed(observed: Fleet) -> None:
    assert plan(observed, now=5) == plan(observed, now=5)


@EXAMPLES
@given(budgeted(empty=False))
def test_tiers_without_demand_data_are_held(observed: Fleet) -> None:
    decided = plan(observed, now=0)
    for member in observed.tiers:
        affordable = (
            sum(t.pool.gpus_held for t in observed.on(member.pool.accelerator))
            <= observed.budgets[member.pool.accelerator]
        )
        if member.demand is None and member.pool.scaled and affordable and member.pool.desired > 0:
            assert decided.targets[member.pool.name] == member.pool.desired
            assert decided.verdicts[member.name].limited_by == "MissingData"


@dataclass(slots=True)
class World:
    """Pods that lag behind what the steps ask for."""

    observed: Fleet
    pods: dict[str, Pods]
    now: float = 1_000.0

    @classmethod
    def of(cls, observed: Fleet) -> "World":
        return cls(observed, {t.pool.name: Pods(t.pool) for t in observed.tiers})

    def look(self, demand: dict[str, float | None] | None = None) -> Fleet:
        members = tuple(
            replace(
                t,
                pool=self.pods[t.pool.name].state,
                demand=t.demand if demand is None else None if (w := demand[t.name]) is None else busy(w),
            )
            for t in self.observed.tiers
        )
        self.observed = replace(self.observed, tiers=members)
        return self.observed

    def tick(self, demand: dict[str, float | None] | None = None) -> bool:
        """One step, if there is one."""
        seen = self.look(demand)
        step = next_step(seen, plan(seen, now=self.now), now=self.now)
        if step is None:
            return False
        self.pods[step.pool].follow(step)
        if step.cause.is_move:
            self.observed = replace(self.observed, last_move_at=self.now)
        return True

    def spare_gpus(self, accelerator: str) -> int:
        """GPUs that no pod holds and no Deployment will take."""
        states = [pods.state for pods in self.pods.values() if pods.state.accelerator == accelerator]
        return self.observed.budgets[accelerator] - sum(state.gpus_committed for state in states)

    def live(self, data: st.DataObject) -> None:
        """What happens to pods between two ticks; the controller may be late, and nodes are drained."""
        for pods in self.pods.values():
            if data.draw(st.booleans()):
                pods.reconcile()
            self.assert_within_budget()
            pods.start(data.draw(st.integers(0, 2)))
            pods.end(data.draw(st.integers(0, 2)))
            spare = self.spare_gpus(pods.state.accelerator) >= pods.state.gpus_per_replica
            if pods.state.ready and spare and data.draw(st.booleans()):
                pods.evict()

    def settle(self) -> None:
        """Every pod is where it should be."""
        for pods in self.pods.values():
            pods.reconcile()
            pods.start(99)
            pods.end(99)

    def assert_within_budget(self) -> None:
        for accelerator, budget in self.observed.budgets.items():
            held = sum(p.gpus for p in self.pods.values() if p.state.accelerator == accelerator)
            assert held <= budget, f"{accelerator}: {held} of {budget}"


@EXAMPLES
@given(budgeted(), st.data())
def test_no_state_is_ever_over_budget(observed: Fleet, data: st.DataObject) -> None:
    world = World.of(observed)
    for _ in range(data.draw(st.integers(5, 40))):
        world.now += data.draw(st.sampled_from([0.5, 15, 90]))
        world.tick({t.name: data.draw(WORK) for t in observed.tiers})
        world.assert_within_budget()
        world.live(data)


@EXAMPLES
@given(budgeted())
def test_constant_demand_comes_to_rest_at_the_plan(observed: Fleet) -> None:
    world = World.of(observed)
    quiet, steps = 0, 0
    while quiet < 3:
        world.now += 100
        moved = world.tick()
        quiet = 0 if moved else quiet + 1
        steps += moved
        world.settle()
        assert steps < 60, "it does not come to rest"
    at_rest = world.look()
    assert plan(at_rest, now=world.now).targets == {t.pool.name: t.pool.desired for t in at_rest.tiers}
    assert within_bounds(at_rest, plan(at_rest, now=world.now))


@EXAMPLES
@given(budgeted(empty=False), st.integers(0, 3))
def test_a_lowered_budget_is_reached_without_going_below_the_minimum(observed: Fleet, cut: int) -> None:
    lowered = {name: max(least_gpus(observed.tiers, name), gpus - cut) for name, gpus in observed.budgets.items()}
    world = World.of(replace(observed, budgets=lowered))
    for _ in range(40):
        world.now += 100
        world.tick()
        world.settle()
        assert all(p.state.desired >= p.state.min_replicas for p in world.pods.values())
    world.assert_within_budget()
