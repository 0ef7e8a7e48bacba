"""The operator as kopf sees it: indices, event handlers that only poke, and one loop per object.

There are no create, update or delete handlers: those act on edges and leave annotations. Whatever happens, the loop of
the object looks at the whole of it again.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kopf

from trimtab_operator.core.kinds import CHILDREN, POD, POLICY, POOL, Kind
from trimtab_operator.core.pacing import Pace, Result
from trimtab_operator.settings import Settings
from trimtab_operator.shell.autoscalers import EVERY_SECONDS, run_autoscalers
from trimtab_operator.shell.deps import Deps
from trimtab_operator.shell.engineload import EngineMetrics
from trimtab_operator.shell.eventpokes import poke_for
from trimtab_operator.shell.fleetport import KubernetesFleet
from trimtab_operator.shell.health import Health
from trimtab_operator.shell.loop import Loop, run_loop
from trimtab_operator.shell.nodes import release_nodes
from trimtab_operator.shell.rebalanceloop import Sources, run_rebalance_loop
from trimtab_operator.shell.rebalancer import Rebalancer
from trimtab_operator.shell.reconcile import reconcile_policy, reconcile_pool
from trimtab_operator.shell.resync import run_resync
from trimtab_operator.shell.world import Index, child_key


@dataclass(slots=True)
class App:
    """The parts that handlers need. `indices` is filled by kopf before the first handler runs."""

    deps: Deps
    health: Health
    settings: Settings
    indices: dict[str, Index]


def configure_logging(level: str) -> None:
    """JSON lines on standard error, ours and kopf's."""
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(level)
    logging.getLogger("kopf.objects").setLevel(max(logging.WARNING, logging.getLevelName(level)))


def build_registry(app: App) -> kopf.OperatorRegistry:
    """All handlers."""
    registry = kopf.OperatorRegistry()
    for kind in (POOL, POLICY):
        _index(registry, kind, own=True)
        _events(registry, app, kind)
    for kind in (*CHILDREN, POD):
        _index(registry, kind, own=False)
        _events(registry, app, kind)
    fleet = KubernetesFleet(app.deps, EngineMetrics())
    _pool_loops(registry, app, fleet)
    _policy_loops(registry, app)
    _rebalance_loops(registry, app, fleet)
    _lifecycle(registry, app)
    return registry


def _index(registry: kopf.OperatorRegistry, kind: Kind, *, own: bool) -> None:
    async def index(body: kopf.Body, **_: Any) -> Mapping[Any, Any] | None:
        manifest = {**body, "apiVersion": kind.api_version, "kind": kind.kind}
        meta = manifest["metadata"]
        if own:
            return {(meta["namespace"], meta["name"]): manifest}
        key = child_key(meta)
        return {} if key is None else {key: manifest}

    kopf.index(kind.api_version, kind.plural, id=kind.kind, registry=registry)(index)


def _events(registry: kopf.OperatorRegistry, app: App, kind: Kind) -> None:
    async def handler(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002 - else a thread runs it
        poke_for(app.deps, kind, dict(body["metadata"]), deleted=type == "DELETED")

    kopf.on.event(kind.api_version, kind.plural, id=f"poke-{kind.kind}", registry=registry)(handler)


def _pool_loops(registry: kopf.OperatorRegistry, app: App, fleet: KubernetesFleet) -> None:
    async def pool(name: str, namespace: str | None, stopped: Any, **_: Any) -> None:
        key = (namespace or "", name)

        async def step() -> Result:
            result = await reconcile_pool(app.deps, key)
            moving = await fleet.tend(key)
            settled = result in (Result.DONE, Result.BLOCKED, Result.INVALID)
            return Result.MOVING if moving and settled else result

        await run_loop(app.deps, Loop(POOL, key, step), stopped, _pace(app))
        await release_nodes(app.deps, key)

    kopf.daemon(POOL.api_version, POOL.plural, id="pool", registry=registry, cancellation_timeout=5)(pool)


def _policy_loops(registry: kopf.OperatorRegistry, app: App) -> None:
    async def policy(name: str, namespace: str | None, stopped: Any, **_: Any) -> None:
        key = (namespace or "", name)

        async def step() -> Result:
            return await reconcile_policy(app.deps, key)

        await run_loop(app.deps, Loop(POLICY, key, step), stopped, _pace(app))

    kopf.daemon(POLICY.api_version, POLICY.plural, id="policy", registry=registry, cancellation_timeout=5)(policy)


def _rebalance_loops(registry: kopf.OperatorRegistry, app: App, fleet: KubernetesFleet) -> None:
    sources = Sources()

    async def rebalance(name: str, namespace: str | None, stopped: Any, **_: Any) -> None:
        key = (namespace or "", name)
        rebalancer = Rebalancer(fleet.of(key), sources.of, app.deps.clock)
        await run_rebalance_loop(app.deps, rebalancer, key, stopped)

    kopf.daemon(POLICY.api_version, POLICY.plural, id="rebalance", registry=registry, cancellation_timeout=5)(rebalance)


def _lifecycle(registry: kopf.OperatorRegistry, app: App) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def startup(**kwargs: Any) -> None:
        app.indices.update({kind.kind: kwargs[kind.kind] for kind in (POOL, POLICY, *CHILDREN, POD)})
        namespaces = app.settings.namespaces or (None,)
        resync = run_resync(app.deps, app.health, namespaces, every_seconds=app.settings.resync_seconds)
        tasks.append(asyncio.create_task(resync, name="resync"))
        autoscalers = run_autoscalers(app.deps, namespaces, every_seconds=EVERY_SECONDS)
        tasks.append(asyncio.create_task(autoscalers, name="autoscalers"))

    async def cleanup(**_: Any) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        app.health.forget("resync")

    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        # The same choice as that of our own client.
        if app.settings.kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            return kopf.login_with_service_account(**kwargs)
        return kopf.login_via_client(**kwargs)

    kopf.on.login(id="login", registry=registry)(login)
    kopf.on.startup(id="startup", registry=registry)(startup)
    kopf.on.cleanup(id="cleanup", registry=registry)(cleanup)


def _pace(app: App) -> Pace:
    return Pace(resync_seconds=app.settings.resync_seconds)
