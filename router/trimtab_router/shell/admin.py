"""The admin port: metrics and health. Never on the request path."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from trimtab_router.shell.exposition import Sum
from trimtab_router.shell.fleet import Fleet


def admin_app(fleet: Fleet) -> Starlette:
    """The application of the admin port."""
    registry, total = CollectorRegistry(auto_describe=False), Sum()
    registry.register(total)

    async def metrics(_: Request) -> Response:
        fleet.summed(total)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        well = fleet.healthy() or fleet.draining
        return PlainTextResponse("ok\n" if well else "no worker reports\n", 200 if well else 503)

    async def readyz(_: Request) -> Response:
        why = fleet.why_not_ready()
        lines = (why or "ok", *fleet.notes())
        return PlainTextResponse("".join(f"{line}\n" for line in lines), 503 if why else 200)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])
