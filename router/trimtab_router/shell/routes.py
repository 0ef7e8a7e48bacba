"""What each path of the data port does."""

import logging
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson

from trimtab_router.core.decisions import feedback, read_feedback
from trimtab_router.core.errors import ApiError
from trimtab_router.core.facts import Route
from trimtab_router.core.keys import KeyRing, tenant_of
from trimtab_router.core.ladder import Ladder
from trimtab_router.core.parse import TENANT_HEADER, Ask, known_models, parse_body, understand, unknown_model
from trimtab_router.core.plan import UNSCORED, Plan
from trimtab_router.core.planner import needs_scores, plan_as_dict, plan_on
from trimtab_router.core.scores import Scores
from trimtab_router.shell.batch import Batch
from trimtab_router.shell.conductor import Conductor
from trimtab_router.shell.curves import packaged_curves
from trimtab_router.shell.exchange import Exchange
from trimtab_router.shell.exchange import Host as ExchangeHost
from trimtab_router.shell.request import Request
from trimtab_router.shell.server import ClientConnection

MODEL_PATH: Final = b"/v1/models/"
_REJECTED: Final = b"\r\nx-trimtab-reason: Rejected"
_log = logging.getLogger(__name__)
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class Host(ExchangeHost, Protocol):
    """The worker, as far as routes need it."""

    ladder: Ladder | None
    batch: Batch | None

    @property
    def keys(self) -> KeyRing:
        """The API keys that are valid now."""

    def request_id(self) -> bytes:
        """A new one."""

    def clock(self) -> float:
        """Seconds of a clock fine enough to time a decision."""


def dispatch(host: Host, client: ClientConnection, request: Request) -> None:
    """Answers a request, or starts the exchange that will."""
    given = request.headers.get(b"x-request-id")
    if given is None or _REQUEST_ID.fullmatch(given) is None:
        request.headers[b"x-request-id"] = host.request_id()
    _guarded(host, client, request, lambda: _route(host, client, request))


def _guarded(host: Host, client: ClientConnection, request: Request, step: Callable[[], None]) -> None:
    """Runs a step; whatever it raises, this request gets an answer and no other request is touched."""
    try:
        step()
    except ApiError as error:
        _reject(host, client, request, error)
    except Exception:  # noqa: BLE001 - a fault must cost one request only
        _log.exception("a request failed")
        if client.exchange is None:
            _reject(host, client, request, ApiError(500, "router: internal error; see its log", code="internal"))
        else:
            client.abort()


def _route(host: Host, client: ClientConnection, request: Request) -> None:
    path = request.path()
    route = _ROUTES.get(path)
    if route is None and path.startswith(MODEL_PATH):
        route = ("GET", _model)
    if route is None:
        known = ", ".join(p.decode() for p in _ROUTES)
        raise ApiError(404, f"path: {path[:80].decode('latin-1')} does not exist; use one of {known}", code="not_found")
    method, handler = route
    asked = request.method.decode()
    if asked != method and not (asked == "HEAD" and method == "GET"):
        raise ApiError(
            405, f"method: {asked} is not allowed here; use {method}", code="method_not_allowed", allow=_allow(method)
        )
    if host.ladder is not None and host.ladder.keyed and handler is not _health:
        _authenticate(host.ladder, host.keys, request)
    handler(host, client, request)


def _authenticate(ladder: Ladder, keys: KeyRing, request: Request) -> None:
    """From here on the request is of the tenant that its key names; engines do not get the key."""
    given = request.take(b"authorization")
    request.options[TENANT_HEADER] = tenant_of(given, request.options.get(TENANT_HEADER), keys, ladder)


def _allow(method: str) -> str:
    return "GET, HEAD" if method == "GET" else method


def _reject(host: Host, client: ClientConnection, request: Request, error: ApiError) -> None:
    if host.ladder is not None and request.method == b"POST":
        host.tally.ended("", UNSCORED, "Rejected", "rejected" if error.status < 500 else "upstream_error")
    client.respond_error(error, _REJECTED + b"\r\nx-request-id: " + request.headers[b"x-request-id"])


def _ladder(host: Host) -> Ladder:
    if host.ladder is None:
        raise ApiError(503, "router: no valid configuration yet", code="not_ready", retry_after_seconds=1)
    return host.ladder


def _health(_host: Host, client: ClientConnection, _request: Request) -> None:
    client.respond(200, b"ok\n", content_type=b"text/plain")


def _models(host: Host, client: ClientConnection, _request: Request) -> None:
    data = [_model_entry(name) for name in known_models(_ladder(host))]
    client.respond(200, orjson.dumps({"object": "list", "data": data}))


def _model(host: Host, client: ClientConnection, request: Request) -> None:
    name, ladder = request.path()[len(MODEL_PATH) :].decode("latin-1"), _ladder(host)
    if name not in known_models(ladder):
        raise unknown_model(name, ladder)
    client.respond(200, orjson.dumps(_model_entry(name)))


def _model_entry(name: str) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "trimtab"}


def _feedback(host: Host, client: ClientConnection, request: Request) -> None:
    told = read_feedback(_body(request))
    if host.log is None:
        message = "path: this router keeps no decision log; start it with --decision-log (router.decisionLog)"
        raise ApiError(404, message, code="no_decision_log")
    if not host.log.put(feedback(told, host.log.clock())):
        message = "path: the decision log is full for the moment; send it again"
        raise ApiError(503, message, code="log_full", retry_after_seconds=1)
    client.respond(202, orjson.dumps({"request_id": told.request_id, "score": told.score}))


def _body(request: Request) -> dict[str, Any]:
    encoding = request.headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        shown = encoding[:40].decode("latin-1")
        raise ApiError(415, f"content-encoding: {shown} is not supported; send the body as it is", code="unsupported")
    return parse_body(request.body())


def _ask(host: Host, request: Request, route: Route | None) -> Ask:
    body = _body(request)
    route = route or ("completions" if "prompt" in body and "messages" not in body else "chat")
    return understand(body, request.options, _ladder(host), route=route)


def _decide(host: Host, client: ClientConnection, request: Request, ask: Ask, then: Callable[[Plan], None]) -> None:
    """Scores the query where that matters, plans, and goes on with `then` unless the client is gone."""
    ladder, started = _ladder(host), host.clock()

    def scored(scores: Scores | None) -> None:
        if client.transport is None or client.current is not request:
            return
        _guarded(host, client, request, lambda: planned(scores))

    def planned(scores: Scores | None) -> None:
        full = host.directory.full(ladder.planning, host.options.workers)
        plan = plan_on(ask.facts, scores, ladder, classifier_off=host.batch is None, full=full)
        host.tally.decisions.observe(host.clock() - started)
        then(plan)

    if host.batch is None or not needs_scores(ask.facts, ladder):
        scored(None)
    else:
        host.batch.submit(ask.reading.query, request.size, scored)


def _explain(host: Host, client: ClientConnection, request: Request) -> None:
    def answer(plan: Plan) -> None:
        client.respond(200, orjson.dumps(plan_as_dict(plan, packaged_curves()), option=orjson.OPT_INDENT_2))

    _decide(host, client, request, _ask(host, request, None), answer)


def _generate(host: Host, client: ClientConnection, request: Request, route: Route) -> None:
    request.drop_nominated()
    ask = _ask(host, request, route)

    def start(plan: Plan) -> None:
        alone = plan.spending.alone
        exchange = Exchange(host, client, request, ask, plan) if alone else Conductor(host, client, request, ask, plan)
        client.exchange = exchange
        request.parts.clear()
        exchange.start()

    _decide(host, client, request, ask, start)


def _chat(host: Host, client: ClientConnection, request: Request) -> None:
    _generate(host, client, request, "chat")


def _completions(host: Host, client: ClientConnection, request: Request) -> None:
    _generate(host, client, request, "completions")


_Handler = Callable[[Host, ClientConnection, Request], None]
_ROUTES: Final[dict[bytes, tuple[str, _Handler]]] = {
    b"/v1/chat/completions": ("POST", _chat),
    b"/v1/completions": ("POST", _completions),
    b"/v1/models": ("GET", _models),
    b"/v1/explain": ("POST", _explain),
    b"/v1/feedback": ("POST", _feedback),
    b"/healthz": ("GET", _health),
}
