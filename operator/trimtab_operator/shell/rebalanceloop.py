"""The rebalancer's loop of one policy: a tick each interval, and at once when GPUs became free."""

import asyncio
import logging
from collections.abc import Callable

from trimtab_crds.load import SpecInvalid, load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core.kinds import POLICY
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.fleetport import ChangedError, FleetUnknownError
from trimtab_operator.shell.loop import Stop, first_of_stop
from trimtab_operator.shell.metrics import MetricsSource, PrometheusMetrics
from trimtab_operator.shell.rebalancer import Rebalancer
from trimtab_operator.shell.wakeups import first_of
from trimtab_operator.shell.world import Key, rebalance_key, wake_key

logger = logging.getLogger(__name__)

#: Events come in bursts; two ticks are at least that far apart.
_SHORTEST_SECONDS = 1.0
_USUAL_SECONDS = 15.0


class Sources:
    """One metrics source per Prometheus address, shared by policies."""

    def __init__(self, make: Callable[[str], MetricsSource] = PrometheusMetrics) -> None:
        self._make = make
        self._sources: dict[str, MetricsSource] = {}

    def of(self, policy: RoutingPolicy) -> MetricsSource:
        """The source that the policy names."""
        url = policy.spec.rebalance.prometheus.url
        if url not in self._sources:
            self._sources[url] = self._make(url)
        return self._sources[url]


async def run_rebalance_loop(deps: Deps, rebalancer: Rebalancer, key: Key, stop: Stop) -> None:
    """Run until told to stop. A tick in flight is cancelled then; its step was applied or was not."""
    with deps.wakeups.listening(rebalance_key(key)) as poked:
        while not stop:
            poked.clear()
            task = asyncio.ensure_future(_ticked(deps, rebalancer, key))
            await first_of_stop(task, stop)
            if not task.done() or task.cancelled():
                return
            report: TickReport | None = task.result()
            waits = [asyncio.ensure_future(stop.wait())]
            await first_of(waits, seconds=_SHORTEST_SECONDS)
            if stop or (report is not None and report.again):
                continue
            rest = max(0.0, _interval_seconds(deps, key) - _SHORTEST_SECONDS)
            await first_of([asyncio.ensure_future(stop.wait()), asyncio.ensure_future(poked.wait())], seconds=rest)
    deps.reports.pop(key, None)
    deps.holds.pop(key, None)


async def _ticked(deps: Deps, rebalancer: Rebalancer, key: Key) -> TickReport | None:
    """One tick; whatever goes wrong holds everything where it is until the next one."""
    name = "/".join(key)
    try:
        report = await rebalancer.tick(name)
    except FleetUnknownError as unknown:
        _hold(deps, key, str(unknown))
        return None
    except (ClusterError, ChangedError) as error:
        logger.warning("policy %s: no step this time: %s", name, error)
        deps.telemetry.ticks.labels(name, "transient").inc()
        return None
    except Exception:
        logger.exception("policy %s: a bug in a tick", name)
        deps.telemetry.ticks.labels(name, "bug").inc()
        return None
    if deps.holds.pop(key, None) is not None:
        deps.wakeups.poke(wake_key(POLICY, key))
    deps.telemetry.ticks.labels(name, "done").inc()
    if report is not None and report.step is not None:
        deps.telemetry.moves.labels(name, report.step.cause.value).inc()
        logger.info("policy %s: %s", name, report.step.reason)
    return report


def _hold(deps: Deps, key: Key, why: str) -> None:
    deps.telemetry.ticks.labels("/".join(key), "held").inc()
    if deps.holds.get(key) != why:
        logger.warning("policy %s: %s", "/".join(key), why)
        deps.holds[key] = why
        deps.wakeups.poke(wake_key(POLICY, key))


def _interval_seconds(deps: Deps, key: Key) -> float:
    manifest = deps.world.one(POLICY, key)
    try:
        policy = load({k: v for k, v in (manifest or {}).items() if k != "status"})
    except SpecInvalid:
        return _USUAL_SECONDS
    return policy.spec.rebalance.interval_seconds if isinstance(policy, RoutingPolicy) else _USUAL_SECONDS
