"""The command line of `trimtab up`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Never

from trimtab_cli.errors import UsageError

_ABOUT = """\
Runs the whole loop on this machine, without Kubernetes and without a GPU: the engines, router and rebalancer that the
manifests describe, under the same GPU budget. A built-in load shifts from easy to hard queries, so that replicas move.
Ctrl-C ends it and leaves nothing behind."""
_EXAMPLE = "example: trimtab up -f examples/quickstart --for 90 --report report.json"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `for_seconds` None runs until Ctrl-C; `prometheus` None is auto."""

    files: tuple[str, ...]
    for_seconds: float | None = None
    report: Path | None = None
    svg: Path | None = None
    logs: Path | None = None
    listen: Address = Address("127.0.0.1", 8080)
    keys: Path | None = None
    load: bool = True
    requests_per_second: float = 5.0
    seed: int = 1
    engine: str = "sim"
    time_scale: float = 4.0
    startup_seconds: float = 3.0
    prometheus: str = "auto"
    plain: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise UsageError(f"up: {message}; `trimtab up --help` explains the options")


def parse(argv: Sequence[str]) -> Options:
    """The options; UsageError names the option, the value and the fix. `--help` exits."""
    args = _parser().parse_args(argv)
    return Options(
        files=tuple(args.file),
        for_seconds=args.for_seconds,
        report=args.report,
        svg=args.svg,
        logs=args.logs,
        listen=args.listen,
        keys=args.keys,
        load=args.load,
        requests_per_second=args.rate,
        seed=args.seed,
        engine=args.engine,
        time_scale=args.time_scale,
        startup_seconds=args.startup_seconds,
        prometheus=args.prometheus,
        plain=args.plain,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="trimtab up", description=_ABOUT, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Options(files=())
    add("-f", "--file", action="append", required=True, metavar="PATH", help="file or folder with pools and one policy")
    add("--for", dest="for_seconds", type=_above_zero, metavar="SECONDS", help="end after this time (until Ctrl-C)")
    add("--report", type=Path, metavar="FILE", help="write what happened as JSON")
    add("--svg", type=Path, metavar="FILE", help="write the last picture of the live view as SVG")
    add("--logs", type=Path, metavar="DIR", help="keep the output of engines and router in this folder")
    add("--listen", type=_address, default=default.listen, metavar="HOST:PORT", help="the router (%(default)s)")
    add(
        "--keys",
        type=Path,
        metavar="DIR",
        help="API keys of tenants that have apiKeys: every file of DIR/TENANT is one",
    )
    add("--load", action=argparse.BooleanOptionalAction, default=True, help="send the built-in load (yes)")
    add(
        "--rate",
        type=_above_zero,
        default=default.requests_per_second,
        metavar="N",
        help="its requests/s (%(default)s)",
    )
    add("--seed", type=int, default=default.seed, metavar="N", help="its seed (%(default)s)")
    add("--engine", choices=("sim", "vllm"), default="sim", help="simulated engines or real `vllm serve` (%(default)s)")
    add("--time-scale", type=_above_zero, default=default.time_scale, metavar="X",
        help="simulated engines run X times faster than their GPU would (%(default)s)")  # fmt: skip
    add("--startup-seconds", type=_at_least_zero, default=default.startup_seconds, metavar="S",
        help="simulated engines take this long to start (%(default)s)")  # fmt: skip
    add("--prometheus", default="auto", metavar="auto|embedded|PATH",
        help="demand source; auto: the one on PATH or in $TRIMTAB_PROMETHEUS, else embedded (auto)")  # fmt: skip
    add("--plain", action="store_true", help="a line every few seconds instead of the live view")
    return parser


def _above_zero(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _at_least_zero(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return Address(host, int(port))
