"""`trimtab compile`: a RoutingPolicy and its pools to the document that a router reads."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from trimtab_cli.errors import UsageError
from trimtab_cli.files import only_policy, read_valid_resources
from trimtab_crds.load import SpecInvalid
from trimtab_crds.wire import RouterConfig
from trimtab_operator.core.routerconfig import compile_config

Addresses = dict[str, list[str]]


def main(argv: Sequence[str]) -> int:
    """Write the document; exit status 0."""
    args = _arguments(argv)
    config = compile_files(args.files, endpoints=args.endpoints)
    if args.output == "-":
        sys.stdout.write(config.document())
    else:
        _write(Path(args.output), config.document())
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="trimtab compile",
        description="Write the document that a router outside Kubernetes reads: one RoutingPolicy and its pools.",
        epilog="example: trimtab compile -f examples/quickstart --endpoint low=http://127.0.0.1:8001 -o router.json",
    )
    add_files(parser, required=True)
    parser.add_argument(
        "--endpoint",
        dest="endpoints",
        metavar="POOL=URL",
        action="append",
        default=[],
        help="where a replica of the pool answers; may be given again. Without any, pools are found by the names of "
        "their Services in the cluster",
    )
    parser.add_argument("-o", "--output", metavar="FILE", default="-", help="default: standard output")
    return parser.parse_args(argv)


def add_files(parser: argparse._ActionsContainer, *, required: bool = False) -> None:
    """The option `-f`, the same for every command that reads one policy and its pools."""
    parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        metavar="DIR",
        required=required,
        action="append",
        help="folder or file with one RoutingPolicy and its InferencePools, - for standard input; may be given again",
    )


def compile_files(paths: Sequence[str], *, endpoints: Sequence[str] = ()) -> RouterConfig:
    """The document of the one policy in the files; UsageError for what is wrong with them."""
    resources = read_valid_resources(paths)
    policy = only_policy(resources, paths)
    addresses = _addresses(endpoints, policy.pool_names)
    try:
        return compile_config(policy, resources.pools_of(policy.metadata.namespace), addresses)
    except SpecInvalid as error:
        raise UsageError(f"RoutingPolicy {policy.metadata.name}: {'; '.join(error.problems)}") from None


def _addresses(endpoints: Sequence[str], pools: Sequence[str]) -> Addresses | None:
    """Replicas by pool; None where no endpoint is given. Every pool needs one, else its tier could never answer."""
    if not endpoints:
        return None
    found: Addresses = {pool: [] for pool in pools}
    for endpoint in endpoints:
        pool, _, url = endpoint.partition("=")
        if pool not in found:
            raise UsageError(f"--endpoint {endpoint}: the policy has no pool {pool!r}; use one of {', '.join(pools)}")
        found[pool].append(_address(endpoint, url))
    missing = [pool for pool in pools if not found[pool]]
    if missing:
        raise UsageError(f"--endpoint: none for {', '.join(missing)}; add --endpoint {missing[0]}=http://HOST:PORT")
    return found


def _address(endpoint: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http" or parts.path not in ("", "/", "/v1", "/v1/") or parts.query:
        raise UsageError(f"--endpoint {endpoint}: not a plain HTTP address; write POOL=http://HOST:PORT")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
