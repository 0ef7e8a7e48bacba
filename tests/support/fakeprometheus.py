"""A Prometheus that answers the rebalancer's one query with the demand that a test sets."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Tier to requests, prompt tokens and output tokens per second.
Demand = Mapping[str, tuple[float, float, float]]


class FakePrometheus:
    """`demand` may be changed at any time; None is an answer without any series."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.demand: Demand | None = None

    def rows(self) -> list[dict[str, object]]:
        now = time.time()
        rows = []
        for tier, (requests, prompt, output) in (self.demand or {}).items():
            readings = {"requests": requests, "prompt": prompt, "output": output, "age": 1, "before": 1}
            for reading, value in readings.items():
                rows.append({"metric": {"tier": tier, "reading": reading}, "value": [now, str(value)]})
        return rows


@contextmanager
def serving() -> Iterator[FakePrometheus]:
    """Serve on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = {"resultType": "vector", "result": fake.rows()}
            body = json.dumps({"status": "success", "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Queries are not news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakePrometheus(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
