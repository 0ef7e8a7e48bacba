"""`trimtab`: finds the command and runs its module; everything heavy is imported there.

Every command is a function `main(argv) -> int`. What the user got wrong is one line on standard error and exit
status 2; a traceback is a fault of Trimtab.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from trimtab_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """One line of `trimtab --help`; `extra` is the extra of the distribution that the command needs."""

    name: str
    about: str
    example: str
    module: str
    extra: str = ""


COMMANDS = (
    Command(
        "up",
        "run the whole loop on this machine: engines, router, rebalancer; no Kubernetes, no GPU",
        "trimtab up -f examples/quickstart --for 90",
        "trimtab_cli.local",
        "router",
    ),
    Command(
        "render",
        "show the vLLM flags and Kubernetes objects that manifests lead to, or why they are refused",
        "trimtab render -f examples/quickstart",
        "trimtab_cli.render",
    ),
    Command(
        "explain",
        "show the plan for one query and every rejected candidate, without running it",
        "trimtab explain -f examples/quickstart 'Prove that 17 is prime.'",
        "trimtab_cli.explain",
        "router",
    ),
    Command(
        "compile",
        "write the document that a router outside Kubernetes reads",
        "trimtab compile -f examples/quickstart --endpoint low=http://127.0.0.1:8001 -o router.json",
        "trimtab_cli.compile",
    ),
    Command(
        "router",
        "run the router alone",
        "trimtab router --config router.json --listen 127.0.0.1:8080 --admin 127.0.0.1:9090",
        "trimtab_router.__main__",
        "router",
    ),
    Command(
        "engine-sim",
        "run a simulated vLLM: its API, errors, metrics and timing, without a GPU",
        "trimtab engine-sim --help",
        "trimtab_cli.engine_sim",
        "router",
    ),
    Command(
        "classifier",
        "train or evaluate the query classifier; fit a policy's class table to its decision log",
        "trimtab classifier fit --help",
        "trimtab_cli.classifier",
        "router,train",
    ),
    Command(
        "crds",
        "print both CustomResourceDefinitions",
        "trimtab crds | kubectl apply --server-side -f -",
        "trimtab_cli.crds",
    ),
    Command(
        "accelerators",
        "list the accelerators that pools can name",
        "trimtab accelerators -o json",
        "trimtab_cli.accelerators",
    ),
)


def help_text() -> str:
    """What `trimtab --help` prints."""
    lines = ["usage: trimtab COMMAND [OPTIONS]    trimtab COMMAND --help    trimtab --version", ""]
    lines.append("Predicts what each LLM query needs, picks the cheapest plan that answers it well, and moves GPU")
    lines.append("replicas to where that demand is.")
    for command in COMMANDS:
        lines += ["", f"  {command.name:<14}{command.about}", f"{'':16}$ {command.example}"]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status, 2 for what the user must mend, 130 after Ctrl-C."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        sys.stderr.write(f"trimtab: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this Python complains again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"trimtab {version('trimtab')}\n")
        return 0
    command = next((c for c in COMMANDS if c.name == argv[0]), None)
    if command is None:
        raise UsageError(_unknown(argv[0]))
    return entry(command)(argv[1:])


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, [c.name for c in COMMANDS], n=1)
    hint = f"did you mean {near[0]}?" if near else "`trimtab --help` lists them"
    return f"no such command: {word}; {hint}"


def entry(command: Command) -> Callable[[Sequence[str]], int]:
    """The function behind a command; UsageError that names the extra where a module of one is missing."""
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("trimtab_"):
            raise
        raise UsageError(
            f"{command.name} needs the module {error.name}: pip install 'trimtab[{command.extra}]'"
        ) from error
    return cast("Callable[[Sequence[str]], int]", module.main)


if __name__ == "__main__":
    raise SystemExit(main())
