"""A page of router metrics whose counters the test drives, on a real port."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from trimtab_operator.shell.metrics import OUTPUT_TOKENS, PROMPT_TOKENS, REQUESTS

POLICY = "default/chat"


class Exporter:
    """Counters by tier; a request has 100 prompt tokens and 50 output tokens. `down` answers 503."""

    def __init__(self) -> None:
        self.requests: dict[str, float] = {}
        self.down = False
        self.port = 0

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def page(self) -> str:
        """What a scrape gets."""
        return metrics_page(self.requests)


def metrics_page(requests: Mapping[str, float], policy: str = POLICY) -> str:
    """The demand counters of a router."""
    lines = []
    for name, factor in ((REQUESTS, 1), (PROMPT_TOKENS, 100), (OUTPUT_TOKENS, 50)):
        lines.append(f"# TYPE {name} counter")
        lines += [f'{name}{{policy="{policy}",tier="{tier}"}} {count * factor}' for tier, count in requests.items()]
    return "\n".join(lines) + "\n"


@contextmanager
def exporter() -> Iterator[Exporter]:
    """A running exporter."""
    served = Exporter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = served.page().encode()
            self.send_response(503 if served.down else 200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
