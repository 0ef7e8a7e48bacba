"""The process of the simulated engine: start, serve, drain on SIGTERM, exit."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

import uvicorn

from trimtab_cli.engine_sim.app import Api, build_app
from trimtab_cli.engine_sim.arguments import ArgumentError
from trimtab_cli.engine_sim.engine import Engine
from trimtab_cli.engine_sim.metrics import Metrics
from trimtab_cli.engine_sim.runner import Runner
from trimtab_cli.engine_sim.settings import Settings, settings_from
from trimtab_cli.engine_sim.transfers import Transfers

#: After the answers are cut off, how long their last bytes may take to leave.
FLUSH_SECONDS = 2.0


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. A wrong command line is one line on standard error and 2."""
    try:
        settings = settings_from(argv, os.environ)
    except ArgumentError as error:
        print(f"trimtab engine-sim: {error}", file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        return _run_loop(settings)
    return 130


def _run_loop(settings: Settings) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: a drain is ours to time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


async def serve(settings: Settings) -> int:
    """Open the port after the simulated start-up, serve, and drain when told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.without_effect:
        _say(settings, f"accepted without effect: {' '.join(settings.without_effect)}")
    _say(settings, f"loading {settings.model}, {settings.startup_seconds:g} s")
    with contextlib.suppress(TimeoutError):
        # As a real engine: nothing listens while the model loads.
        await asyncio.wait_for(stop.wait(), settings.startup_seconds or 1e-9)
    if stop.is_set():
        return 0
    return await _serve(settings, stop)


async def _serve(settings: Settings, stop: asyncio.Event) -> int:
    engine = Engine(settings.engine)
    metrics = Metrics(
        engine,
        settings.engine,
        model_name=settings.served_names[0],
        max_model_len=settings.max_model_len,
        transfers=settings.transfer is not None,
    )
    runner = Runner(engine, metrics)
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        return _cannot_listen(f"{settings.host}:{settings.port}", error, "choose another --port")
    transfers = None
    if (transfer := settings.transfer) is not None:
        transfers = Transfers(transfer, block_tokens=settings.engine.block_tokens, room=runner.keep)
        try:
            await transfers.listen()
        except OSError as error:
            listener.close()
            fix = "choose another VLLM_NIXL_SIDE_CHANNEL_PORT"
            return _cannot_listen(f"{transfer.host}:{transfer.port}", error, fix)
    await _answer(settings, stop, listener, Api(settings, runner, metrics, transfers))
    if transfers is not None:
        transfers.close()
    return 0


def _cannot_listen(address: str, error: OSError, fix: str) -> int:
    print(f"trimtab engine-sim: cannot listen on {address} ({error.strerror}); {fix}", file=sys.stderr)
    return 1


async def _answer(settings: Settings, stop: asyncio.Event, listener: socket.socket, api: Api) -> None:
    """Serves until it is told to stop and has drained."""
    config = uvicorn.Config(
        build_app(api),
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(FLUSH_SECONDS),
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    host, port = listener.getsockname()[:2]
    _say(settings, f"serving {settings.served_names[0]} on {host}:{port}")
    await asyncio.wait({serving, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await _drain(api, api.runner, settings.shutdown_timeout_seconds)
    server.should_exit = True
    await serving


def _say(settings: Settings, what: str) -> None:
    print(f"simulated vLLM {settings.version}: {what}", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


async def _drain(api: Api, runner: Runner, seconds: float) -> None:
    """vLLM's `--shutdown-timeout`: finish what runs for so long while refusing new work, then cut the rest off."""
    api.draining = True
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.idle(), seconds)
    runner.abort_all()
