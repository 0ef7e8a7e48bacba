"""Probes that can tell a working operator from one that merely runs.

Answered by a thread, so that a stuck event loop cannot answer for itself: every loop beats, and the probe compares the
age of each beat with what that loop promised. A watch that misses changes is reported by the resync (resync.py).
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class _Beat:
    at: float
    promised_seconds: float


class Health:
    """Beats of loops, and faults that only a restart cures. `clock` is monotonic; safe to use from threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, _Beat] = {}
        self._faults: dict[str, str] = {}
        self._ready = False
        self._lock = threading.Lock()

    def beat(self, loop: str, *, promised_seconds: float) -> None:
        """The loop is alive and will beat again within that time."""
        with self._lock:
            self._beats[loop] = _Beat(self._clock(), promised_seconds)

    def forget(self, loop: str) -> None:
        """The loop ended on purpose."""
        with self._lock:
            self._beats.pop(loop, None)

    def fault(self, what: str, why: str | None) -> None:
        """Report a fault, or with None that it is gone."""
        with self._lock:
            if why is None:
                self._faults.pop(what, None)
            else:
                self._faults[what] = why

    def set_ready(self, ready: bool) -> None:
        """Whether the process does its part: it leads, or stands by to lead."""
        self._ready = ready

    def dead(self) -> list[str]:
        """Why the process should be restarted; empty when it should not."""
        now = self._clock()
        with self._lock:
            late = [
                f"{loop} is silent for {now - beat.at:.0f} s, it promised {beat.promised_seconds:.0f} s"
                for loop, beat in sorted(self._beats.items())
                if now - beat.at > beat.promised_seconds
            ]
            return late + [f"{what}: {why}" for what, why in sorted(self._faults.items())]

    def is_ready(self) -> bool:
        """Whether the readiness probe should pass."""
        return self._ready and not self.dead()


def serve(health: Health, port: int, address: str = "0.0.0.0") -> ThreadingHTTPServer:  # noqa: S104
    """Serve /healthz and /readyz from a daemon thread; raises OSError when the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dead = health.dead()
            good = {"/healthz": not dead, "/readyz": health.is_ready()}.get(self.path)
            status = 404 if good is None else 200 if good else 503
            body = json.dumps({"ok": status == 200, "why": dead}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Probes are not news."""

    server = ThreadingHTTPServer((address, port), Handler)
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server
