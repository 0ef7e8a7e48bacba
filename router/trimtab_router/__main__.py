"""`python -m trimtab_router`: the command line of the router."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from trimtab_router.shell.options import MIB, Options
from trimtab_router.shell.supervisor import StartError, Supervisor


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT`; port 0 takes a free one."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 0.0.0.0:8080")
    return host.strip("[]"), int(port)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1024")
    return int(text)


def _mib(text: str) -> int:
    if not text.isdecimal() or not 8 <= int(text) <= 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of MiB from 8 to {1 << 20}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="trimtab router", description="Serve a policy: plan each query, stream its answer."
    )
    standard = Options(config="")
    out.add_argument(
        "--config", required=True, metavar="FILE", help="the compiled policy (trimtab compile); reloaded on change"
    )
    out.add_argument(
        "--keys",
        default=standard.keys,
        metavar="DIR",
        help="API keys of tenants that have apiKeys: every file of DIR/TENANT holds one; read again on change",
    )
    out.add_argument("--listen", type=address, default=(standard.host, standard.port), metavar="HOST:PORT")
    out.add_argument("--admin", type=address, default=(standard.admin_host, standard.admin_port), metavar="HOST:PORT")
    out.add_argument("--workers", type=_whole, default=standard.workers, metavar="N", help="processes, one a core")
    out.add_argument("--classifier", choices=("packaged", "off"), default="packaged")
    for name, text in (
        ("drain", "how long open answers may take after SIGTERM"),
        ("connect", "bound on connecting to a replica"),
        ("first-byte", "bound on an engine's first byte; not streamed answers have it at their end"),
        ("idle", "bound on a pause inside a stream"),
    ):
        default = getattr(standard, f"{name.replace('-', '_')}_seconds")
        out.add_argument(f"--{name}-seconds", type=_seconds, default=default, metavar="S", help=f"{text} ({default:g})")
    out.add_argument("--max-body-mib", type=_whole, default=standard.max_body_bytes // MIB, metavar="N")
    out.add_argument(
        "--decision-log",
        default=standard.decision_log,
        metavar="DIR",
        help="write one JSON line for every ended request and every feedback, without prompts: into files of this "
        "folder, or - for standard output (default: none)",
    )
    most = standard.decision_log_bytes // MIB
    out.add_argument(
        "--decision-log-mib",
        type=_mib,
        default=most,
        metavar="N",
        help=f"bound on that folder; its oldest files go first ({most})",
    )
    return out


def options(argv: Sequence[str] | None) -> Options:
    """Options of a command line; exits with status 2 on a wrong one."""
    given = parser().parse_args(argv)
    return Options(
        config=given.config,
        keys=given.keys,
        host=given.listen[0],
        port=given.listen[1],
        admin_host=given.admin[0],
        admin_port=given.admin[1],
        workers=given.workers,
        classifier=given.classifier == "packaged",
        drain_seconds=given.drain_seconds,
        connect_seconds=given.connect_seconds,
        first_byte_seconds=given.first_byte_seconds,
        idle_seconds=given.idle_seconds,
        max_body_bytes=given.max_body_mib * MIB,
        decision_log=given.decision_log,
        decision_log_bytes=given.decision_log_mib * MIB,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the router; returns the exit status."""
    chosen = options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return asyncio.run(_run(chosen))
    except StartError as error:
        sys.stderr.write(f"trimtab router: {error}\n")
        return 1


async def _run(chosen: Options) -> int:
    return await Supervisor(chosen).run()


if __name__ == "__main__":
    raise SystemExit(main())
