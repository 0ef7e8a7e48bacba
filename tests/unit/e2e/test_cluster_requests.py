"""The clients that set tests up: refusals are errors with the server's words, proxies are not asked."""

import http.server
import json
import ssl
import threading

import pytest

from testcluster.api import Api, ApiError
from testcluster.fetching import RefusedError, answers, fetch
from testcluster.prometheus import Prometheus


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what the path asks for and echoes what it was sent."""

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        echoed = {
            "method": self.command,
            "type": self.headers.get("Content-Type"),
            "token": self.headers.get("Authorization"),
            "body": self.rfile.read(length).decode(),
        }
        status = int(self.path.rpartition("/")[2].partition("?")[0])
        refusal = {"message": "pods is forbidden"} if "status" in self.path else None
        content = json.dumps(refusal or echoed).encode() if "text" not in self.path else b"ok"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class calls them so

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def api(url: str) -> Api:
    return Api(url, ssl.create_default_context(), token="t")


def test_a_refusal_carries_status_and_words(url: str, api: Api):
    with pytest.raises(ApiError, match="403: pods is forbidden") as refused:
        api.get("/status/403")
    assert refused.value.status == 403
    with pytest.raises(RefusedError, match="503: ok"):
        fetch(f"{url}/text/503")


def test_nobody_there_is_an_os_error():
    with pytest.raises(OSError, match="refused"):
        answers("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("call", "method", "content_type"),
    [
        ("create", "POST", "application/json"),
        ("merge", "PATCH", "application/merge-patch+json"),
        ("apply", "PATCH", "application/apply-patch+yaml"),
    ],
)
def test_writes_name_their_content_type(api: Api, call: str, method: str, content_type: str):
    sent = getattr(api, call)("/x/200", {"kind": "Pod"})
    assert (sent["method"], sent["type"], sent["token"]) == (method, content_type, "Bearer t")
    assert json.loads(sent["body"]) == {"kind": "Pod"}


def test_what_is_not_json_is_text(api: Api):
    assert api.get("/text/200") == "ok"


@pytest.mark.parametrize(("path", "there"), [("/x/200", True), ("/status/404", False)])
def test_whether_a_thing_is_there(api: Api, path: str, there: bool):
    assert api.exists(path) is there


def test_a_refused_look_is_not_taken_for_absence(api: Api):
    with pytest.raises(ApiError, match="403"):
        api.exists("/status/403")


@pytest.mark.parametrize(
    ("result", "value"),
    [
        pytest.param([{"metric": {}, "value": [1.0, "2.5"]}], 2.5, id="sample"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_a_query_gives_its_first_sample(result: list[object], value: float | None):
    asked: list[str] = []

    def answer(path: str) -> object:
        asked.append(path)
        return {"status": "success", "data": {"result": result}}

    assert Prometheus("http://x", answer).value('up{job="a"}') == value
    assert asked == ["/api/v1/query?query=up%7Bjob%3D%22a%22%7D"]
