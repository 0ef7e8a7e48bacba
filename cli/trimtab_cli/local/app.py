"""The whole loop on one machine: start, run until the end, drain, leave nothing behind."""

import asyncio
import signal
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from trimtab_cli.local.children import Children
from trimtab_cli.local.engines import Engines
from trimtab_cli.local.inputs import Inputs
from trimtab_cli.local.load import Load, Tally
from trimtab_cli.local.localfleet import LocalFleet
from trimtab_cli.local.options import Address, Options
from trimtab_cli.local.ports import free_port
from trimtab_cli.local.prometheus import Prometheus
from trimtab_cli.local.router import Router
from trimtab_cli.local.scraped import ScrapedMetrics
from trimtab_cli.local.screen import Screen
from trimtab_cli.local.snapshot import GpuRow, Ledger, Snapshot, TierRow, cost_per_hour, notes_of, tier_row
from trimtab_operator.core.observation import prefill_name
from trimtab_operator.core.tickreport import TickReport
from trimtab_operator.shell.metrics import MetricsSource, PrometheusMetrics
from trimtab_operator.shell.rebalancer import Rebalancer

HOST = "127.0.0.1"
SAMPLE_SECONDS = 0.5
#: Open answers may take this long after the load ended; a second Ctrl-C does not wait.
FINISH_SECONDS = 60.0


class Interrupts:
    """Ctrl-C and SIGTERM: the first drains, the second does not wait."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def install(self) -> None:
        """Take over both signals for the running loop."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt)

    def _interrupt(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def run(inputs: Inputs, options: Options, screen: Screen) -> Snapshot:
    """Run until the end; the last picture. Raises EngineFailed or RouterFailed when a part cannot run."""
    interrupts = Interrupts()
    interrupts.install()
    async with Children(logs=options.logs) as children:
        loop = LocalLoop(inputs, options, children, screen)
        return await loop.run(interrupts)


class LocalLoop:
    """Everything that runs, and its order."""

    def __init__(self, inputs: Inputs, options: Options, children: Children, screen: Screen) -> None:
        self._inputs = inputs
        self._options = options
        self._children = children
        self._screen = screen
        folder, admin = children.folder, Address(HOST, free_port())
        self._router = Router(
            inputs.policy, inputs.pools, folder=folder, listen=inputs.listen, admin=admin, keys=options.keys
        )
        self._prometheus: Prometheus | None = None
        if inputs.prometheus is not None:
            address = Address(HOST, free_port())
            self._prometheus = Prometheus(inputs.prometheus, folder=folder, address=address, router=admin)
        self._engines = Engines(
            inputs.pools, inputs.budgets, options, children, changed=self._list_engines, settled=self._router.caught_up
        )
        speed = options.time_scale if options.engine == "sim" else 1.0
        self._fleet = LocalFleet(inputs.policy, inputs.pools, self._engines, speed=speed)
        self._load: Load | None = None
        self._ledger = Ledger()
        self._started_at = time.monotonic()
        self._phase = "starting"
        self._background: set[asyncio.Task[Any]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, interrupts: Interrupts) -> Snapshot:
        """From the start to the end. Whatever happens, no task is left."""
        try:
            await self._unless(interrupts.first, self._start())
            if not interrupts.first.is_set():
                await self._serve(interrupts)
            self._halt("load", "rebalance", "watch")
            last = self.snapshot()
            self._phase = "draining"
            await self._unless(interrupts.second, self._finish())
            return replace(last, tally=self.snapshot().tally)
        finally:
            await self._engines.abandon()
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            if not self._broken.cancel() and not self._broken.cancelled():
                self._broken.exception()  # what broke at the end is not waited for

    async def _start(self) -> None:
        """Router and metrics first, so that the rebalancer sees a zero and not nothing; then the engines."""
        self._list_engines()
        self._go(self._draw())
        await self._router.start(self._children)
        self._go(self._router.failed(), name="watch")
        self._go(self._engines.failure(), name="watch")
        source = await self._metrics()
        policy = self._inputs.policy
        for verifier in policy.pool_names[len(policy.moved_pool_names) :]:  # no tier moves it: its own number stands
            self._engines.scale(verifier, self._inputs.pools[verifier].spec.replicas)
        self._go(self._rebalance(Rebalancer(self._fleet, lambda _: source, time.time)), name="rebalance")
        await self._wait_until_all_serve()
        await self._router.caught_up()

    async def _serve(self, interrupts: Interrupts) -> None:
        """Load until the time is over or somebody interrupts."""
        self._phase, self._started_at = "serving", time.monotonic()
        options = self._options
        if options.load:
            self._load = Load(
                self._router.url, self._inputs.policy.spec.models[0],
                requests_per_second=options.requests_per_second, seed=options.seed, for_seconds=options.for_seconds,
                key=self._inputs.load_key,
            )  # fmt: skip
            self._go(self._load.run(), name="load")
        over = asyncio.sleep(options.for_seconds) if options.for_seconds is not None else asyncio.Event().wait()
        await self._unless(interrupts.first, over)

    async def _finish(self) -> None:
        """Open answers end, engines leave, the router last."""
        if self._load is not None:
            await self._load.finish(FINISH_SECONDS)
        await self._engines.close()
        await self._router.stop()

    async def _metrics(self) -> MetricsSource:
        if self._prometheus is not None:
            await self._prometheus.start(self._children)
            return PrometheusMetrics(self._prometheus.url, stale_after_seconds=10)
        scraped = ScrapedMetrics(self._router.metrics_url, clock=time.monotonic)
        self._go(scraped.run())
        return scraped

    async def _rebalance(self, rebalancer: Rebalancer) -> None:
        interval = self._inputs.policy.spec.rebalance.interval_seconds
        while True:
            report: TickReport | None = await rebalancer.tick(self._inputs.policy.key)
            await asyncio.sleep(0 if report and report.again else interval)

    async def _draw(self) -> None:
        while True:
            self._screen.show(self.snapshot())
            await asyncio.sleep(SAMPLE_SECONDS)

    def _list_engines(self) -> None:
        addresses = self._engines.addresses()
        self._router.list_engines(addresses)
        if self._prometheus is not None:
            self._prometheus.list_engines(addresses)

    async def _wait_until_all_serve(self) -> None:
        """The first targets are reached: the rebalancer has nothing left to start, and every pool answers."""
        while True:
            report, states = self._fleet.latest, self._engines.states().values()
            if report and report.step is None and all(s.ready > 0 or s.desired == 0 for s in states):
                return
            await asyncio.sleep(0.1)

    def _go(self, work: Coroutine[Any, Any, None], name: str = "") -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._over)
        self._background.add(task)

    def _over(self, task: asyncio.Task[None]) -> None:
        """A background task that fails ends everything, also while the parts still start."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _halt(self, *names: str) -> None:
        """End these background tasks."""
        for task in [task for task in self._background if task.get_name() in names]:
            task.cancel()
            self._background.discard(task)

    async def _unless(self, event: asyncio.Event, work: Coroutine[Any, Any, Any]) -> None:
        """Do the work until it is done or the event happens. The error of a background task ends the work too."""
        main, stop = asyncio.create_task(work), asyncio.create_task(event.wait())
        try:
            done, _ = await asyncio.wait((main, stop, self._broken), return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            for task in (main, stop):
                task.cancel()
            await asyncio.gather(main, stop, return_exceptions=True)

    def snapshot(self) -> Snapshot:
        """The picture of this moment."""
        now, states, report = time.monotonic(), self._engines.states(), self._fleet.latest
        price, tally = cost_per_hour(self._inputs.pools, states), self._load.tally if self._load else Tally()
        self._ledger.advance(now, cost_per_hour=price, answered=tally.answered)
        self._ledger.remember(report)
        return Snapshot(
            policy=self._inputs.policy.metadata.name,
            url=self._router.url,
            source="Prometheus" if self._prometheus else "the router's metrics",
            phase=self._phase,
            elapsed_seconds=now - self._started_at,
            for_seconds=self._options.for_seconds,
            hard_share=self._load.hard_share if self._load else None,
            tiers=self._tiers(report),
            gpus=self._gpus(),
            cost_per_hour=price,
            spent=self._ledger.spent,
            requests_per_second=self._ledger.requests_per_second,
            open_requests=self._load.open_requests if self._load else 0,
            tally=tally,
            moves=self._fleet.moves,
            history=tuple(self._fleet.history),
            decision=report.decision if report else "",
            notes=notes_of(report),
        )

    def _tiers(self, report: TickReport | None) -> tuple[TierRow, ...]:
        statuses, states = {tier.name: tier for tier in report.tiers} if report else {}, self._engines.states()
        rows = []
        for tier in self._inputs.policy.spec.tiers:
            named = [(tier.name, tier.pool_ref)]
            named += [(prefill_name(tier), tier.prefill_pool_ref)] if tier.prefill_pool_ref else []
            for name, reference in named:
                pool, demand = reference.name, self._ledger.demand(name)
                rows.append(tier_row(name, self._inputs.pools[pool], states[pool], statuses.get(name), demand))
        return tuple(rows)

    def _gpus(self) -> tuple[GpuRow, ...]:
        budgets = self._inputs.budgets
        return tuple(GpuRow(name, s.held, s.peak, budgets.get(name)) for name, s in self._engines.slots.items())
