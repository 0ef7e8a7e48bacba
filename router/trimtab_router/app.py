"""A worker process: `python -m trimtab_router.app OPTIONS-AS-JSON`, with the report socket as its standard input."""

import asyncio
import gc
import json
import logging
import signal
import socket
import sys
from typing import Any

import orjson
import uvloop

from trimtab_router.shell.batch import Scorer
from trimtab_router.shell.decisionlog import open_log
from trimtab_router.shell.options import Options
from trimtab_router.shell.worker import TICK_SECONDS, Worker

BACKLOG = 4096
_log = logging.getLogger(__name__)


def listener(host: str, port: int) -> socket.socket:
    """A socket that shares its port with those of the other workers; the kernel spreads connections over them."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    return sock


def load_scorer() -> Scorer:
    """The packaged classifier, warm."""
    from trimtab_classifier.features import Query
    from trimtab_router.shell.classifier import OnnxClassifier

    scorer = OnnxClassifier()
    scorer.score([Query("warm up")])
    return scorer


async def serve(options: Options, scorer: Scorer | None, report: socket.socket) -> None:
    """Serves until SIGTERM, then drains; ends at once when the supervisor is gone."""
    log = open_log(options.decision_log, options.decision_log_bytes) if options.decision_log else None
    worker, loop = Worker(options, scorer, log=log), asyncio.get_running_loop()
    stop, stop_now = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, worker.config.load)
    worker.config.poll()
    server = await loop.create_server(worker.connection, sock=listener(options.host, options.port), backlog=BACKLOG)
    beat = asyncio.create_task(_beat(worker, report, stop, stop_now))
    await stop.wait()
    await worker.drain(server, stop_now)
    beat.cancel()
    await asyncio.gather(beat, return_exceptions=True)
    if log is not None:
        await asyncio.to_thread(log.close)
    await _send(report, worker.report())


async def _beat(worker: Worker, report: socket.socket, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
    """Once a second: time limits and a report. The supervisor's end of the socket closes when it dies."""
    while True:
        try:
            worker.tick()
        except Exception:  # noqa: BLE001 - one bad tick must not end the limits of all others
            _log.exception("tick failed")
        if not await _send(report, worker.report()):
            stop_now.set()
            stop.set()
        await asyncio.sleep(TICK_SECONDS)


async def _send(report: socket.socket, document: dict[str, Any]) -> bool:
    try:
        async with asyncio.timeout(TICK_SECONDS):
            await asyncio.get_running_loop().sock_sendall(report, orjson.dumps(document) + b"\n")
    except TimeoutError:
        return True
    except OSError:
        return False
    return True


def run_worker(options: Options, report: socket.socket) -> None:
    """Runs one worker in this process."""
    scorer = load_scorer() if options.classifier else None
    # What is loaded stays: the collector need not look at it again with every thousandth request.
    gc.collect()
    gc.freeze()
    uvloop.run(serve(options, scorer, report))


def main() -> int:
    """The worker's entry point; only the supervisor calls it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker %(process)d %(message)s")
    report = socket.socket(fileno=0)
    report.setblocking(False)
    run_worker(Options(**json.loads(sys.argv[1])), report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
