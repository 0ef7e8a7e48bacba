"""One tick of the rebalancer: observe, read demand, plan, look again, take at most one step, report.

The same code runs in the operator's leader and in the local mode; what differs is behind `FleetPort` and
`MetricsSource`. Nothing is remembered between ticks: a new leader continues where the old one died.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from trimtab_crds.routingpolicy import RebalanceMode, RoutingPolicy
from trimtab_operator.core.fleet import Demand, Fleet
from trimtab_operator.core.observation import Observation, fleet_of
from trimtab_operator.core.rebalance import Plan, plan
from trimtab_operator.core.steps import Step, next_step
from trimtab_operator.core.tickreport import TickReport, report_of
from trimtab_operator.shell.metrics import MetricsSource, MetricsUnavailable


class FleetPort(Protocol):
    """The fleet of one policy, wherever it runs. Keys are `namespace/name`."""

    async def observe(self, policy: str) -> Observation | None:
        """The policy and its pools as they are now; None when the policy is gone.

        It must reflect every `set_replicas` that returned: read from the source, not from a cache that may lag, else
        two steps could use the same free GPU. Counts are of real pods, ending ones included.
        """
        ...

    async def set_replicas(self, pool: str, replicas: int) -> None:
        """Ask for that many replicas of a pool; returns when it is accepted, not when it is done."""
        ...

    async def report(self, policy: str, report: TickReport) -> None:
        """Publish what the tick found; called once per tick, equal reports need no write."""
        ...


class Rebalancer:
    """The only writer of replicas. Run one tick per policy at a time."""

    def __init__(
        self,
        port: FleetPort,
        metrics_for: Callable[[RoutingPolicy], MetricsSource],
        clock: Callable[[], float],
    ) -> None:
        self._port = port
        self._metrics_for = metrics_for
        self._clock = clock

    async def tick(self, policy: str) -> TickReport | None:
        """One tick for the policy `namespace/name`; None when it is gone. Errors of the port pass through.

        When the report says `again`, the next tick may follow at once.
        """
        seen = await self._port.observe(policy)
        if seen is None:
            return None
        demand, problem = await self._demand(seen)
        now = self._clock()
        fleet = fleet_of(seen, demand)
        decided = plan(fleet, now=now)
        step = next_step(fleet, decided, now=now)
        if step is not None:
            step = await self._take(step, policy, demand)
        report = report_of(fleet, decided, step, metrics_problem=problem, now=now)
        await self._port.report(policy, report)
        return report

    async def _demand(self, seen: Observation) -> tuple[Mapping[str, Demand | None], str]:
        """Demand by tier, and why it is missing where nothing could be read."""
        policy = seen.policy
        if policy.spec.rebalance.mode is RebalanceMode.OFF:
            return {}, ""
        source = self._metrics_for(policy)
        try:
            return await source.demand(policy.key, seen.tier_names, window_seconds=seen.window_seconds), ""
        except MetricsUnavailable as unavailable:
            return {}, str(unavailable)

    async def _take(self, step: Step, policy: str, demand: Mapping[str, Demand | None]) -> Step | None:
        """Take the step if it is still the right one: reading metrics took time, and the fleet may have changed."""
        seen = await self._port.observe(policy)
        if seen is None or self._step(fleet_of(seen, demand)) != step:
            return None
        await self._port.set_replicas(f"{seen.policy.metadata.namespace}/{step.pool}", step.to_replicas)
        return step

    def _step(self, fleet: Fleet) -> Step | None:
        now = self._clock()
        decided: Plan = plan(fleet, now=now)
        return next_step(fleet, decided, now=now)
