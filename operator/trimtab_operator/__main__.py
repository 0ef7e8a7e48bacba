"""`trimtab-operator`: settings, logging, probes, the lease, then kopf.

Exit status: 0 after a signal, 1 when the work does not end with the lease (Kubernetes starts it again), 2 when it
cannot start as it is set up.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import kopf

from trimtab_crds.meta import API_VERSION, GROUP
from trimtab_operator.app import App, build_registry, configure_logging
from trimtab_operator.core.desired import ChildSettings
from trimtab_operator.leader import HungError, run_until_stopped
from trimtab_operator.settings import ENVIRONMENT, Settings, SettingsError, configure_kopf
from trimtab_operator.shell import health as probes
from trimtab_operator.shell.cluster import ClusterError, KubernetesCluster, NotConfiguredError, connect
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.health import Health
from trimtab_operator.shell.lease import Lease
from trimtab_operator.shell.loopthread import LoopThread
from trimtab_operator.shell.resync import run_heartbeat
from trimtab_operator.shell.telemetry import Telemetry
from trimtab_operator.shell.wakeups import Wakeups
from trimtab_operator.shell.world import World

logger = logging.getLogger("trimtab_operator")

_CRDS_WAIT_SECONDS = 30


class StartError(Exception):
    """The operator cannot start as it is set up; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator until a signal; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="trimtab-operator",
        description="Reconciles InferencePools and RoutingPolicies of trimtab.dev; configured by its environment.",
        epilog=ENVIRONMENT + "\nexample: KUBECONFIG=~/.kube/config TRIMTAB_ROUTER_IMAGE=localhost/trimtab:test "
        "trimtab-operator",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    try:
        settings = Settings.from_environment()
        configure_logging(settings.log_level)
        return asyncio.run(_run(settings))
    except (SettingsError, NotConfiguredError, StartError) as error:
        sys.stderr.write(f"trimtab-operator: {error}\n")
        return 2


async def _run(settings: Settings) -> int:
    cluster = await connect(settings.kubeconfig)
    try:
        await await_crds(cluster)
        health, telemetry = Health(time.monotonic), Telemetry()
        _serve(settings, health, telemetry)
        heartbeat = asyncio.create_task(run_heartbeat(health))
        with LoopThread("lease") as beside:
            store = await beside.run(connect(settings.kubeconfig))
            lease = Lease(store, settings.lease, time.monotonic)
            cluster.may_write = lease.is_held
            try:
                while await _lead(settings, cluster, _Election(lease, beside), health, telemetry):
                    logger.info("standing by again")
            except HungError:
                logger.exception("ending without a clean end")
                os._exit(1)
            finally:
                heartbeat.cancel()
                await beside.run(store.close())
        return 0
    finally:
        await cluster.close()


@dataclass(frozen=True, slots=True)
class _Election:
    """The lease, in the event loop in which it is renewed: a thousand loops that start at once must not delay that."""

    lease: Lease
    beside: LoopThread

    async def acquire(self) -> None:
        await self.beside.run(self.lease.acquire())

    async def hold(self) -> None:
        await self.beside.run(self.lease.hold())

    async def release(self) -> None:
        await self.beside.run(self.lease.release())


async def _lead(
    settings: Settings, cluster: KubernetesCluster, election: _Election, health: Health, telemetry: Telemetry
) -> bool:
    """Stand by, lead until a signal or until the lease is lost, and give it up; whether it was lost. Raises HungError.

    A process that was stopped for a while has lost the lease and nothing else: it need not start again to lead again.
    """
    health.set_ready(True)
    if not await _acquired(election):
        return False
    telemetry.leader.set(1)
    # Made before kopf starts: it cancels every task that is younger than itself.
    holding = asyncio.create_task(election.hold(), name="lease")

    async def work(stop: asyncio.Event) -> None:
        deps = _deps(settings, cluster, telemetry)
        await kopf.operator(
            registry=build_registry(App(deps, health, settings, deps.world.indices)),
            settings=configure_kopf(),
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=stop,
        )

    await run_until_stopped(work, holding)
    lost = holding.done()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    telemetry.leader.set(0)
    await election.release()
    return lost


async def _acquired(election: _Election) -> bool:
    """Whether the lease was acquired; False when a signal came first."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    acquiring = asyncio.create_task(election.acquire())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([acquiring, stopping], return_when=asyncio.FIRST_COMPLETED)
    won = acquiring.done() and not stop.is_set()
    for task in (acquiring, stopping):
        task.cancel()
    await asyncio.gather(acquiring, stopping, return_exceptions=True)
    if not won:
        await election.release()
    return won


def _deps(settings: Settings, cluster: KubernetesCluster, telemetry: Telemetry) -> Deps:
    return Deps(
        cluster=cluster,
        world=World({}),
        wakeups=Wakeups(telemetry.wakeups),
        telemetry=telemetry,
        children=ChildSettings(router_image=settings.router_image),
        clock=time.time,
        identity=settings.lease.identity,
    )


def _serve(settings: Settings, health: Health, telemetry: Telemetry) -> None:
    try:
        telemetry.serve(settings.metrics_port, settings.listen_address)
        probes.serve(health, settings.probe_port, settings.listen_address)
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.listen_address}: {error}; "
            "free TRIMTAB_METRICS_PORT and TRIMTAB_PROBE_PORT or set others"
        ) from error


async def await_crds(cluster: KubernetesCluster, *, patience_seconds: float = _CRDS_WAIT_SECONDS) -> None:
    """The CRDs may be installed in the same moment; raises StartError when they are not there by then."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            if await cluster.served(f"/apis/{API_VERSION}"):
                return
            problem = f"the API server does not serve {GROUP}; install the CRDs: trimtab crds | kubectl apply -f -"
        except ClusterError as error:
            problem = f"the API server does not answer: {error}"
        if time.monotonic() > deadline:
            raise StartError(problem)
        await asyncio.sleep(2)


if __name__ == "__main__":
    raise SystemExit(main())
