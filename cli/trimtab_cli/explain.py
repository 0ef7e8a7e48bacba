"""`trimtab explain`: the plan for one query and every rejected candidate, as `POST /v1/explain` gives it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab_cli.compile import add_files, compile_files
from trimtab_cli.errors import UsageError
from trimtab_cli.files import read_text
from trimtab_crds.wire import RouterConfig
from trimtab_router.core.errors import ApiError
from trimtab_router.core.facts import Route
from trimtab_router.core.ladder import compile_ladder
from trimtab_router.core.parse import parse_body, understand
from trimtab_router.core.planner import needs_scores, plan_as_dict, plan_on
from trimtab_router.shell.classifier import OnnxClassifier
from trimtab_router.shell.curves import packaged_curves

_COLUMNS = (
    "",
    "tier",
    "pool",
    "strategy",
    "thinking",
    "output",
    "seconds",
    "cost",
    "likely",
    "quality",
    "doubled",
    "reason",
    "",
)


def main(argv: Sequence[str]) -> int:
    """Print the plan; exit status 0."""
    args = _arguments(argv)
    config = _config(args.config) if args.config else compile_files(args.files)
    raw = _body(args.request) if args.request else _chat(config.models[0], args.prompt)
    plan = explain(config, raw, headers=dict(_header(text) for text in args.headers))
    if args.output == "json":
        sys.stdout.write(json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
    else:
        _print_table(plan)
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="trimtab explain",
        description="Show the plan for one query and every rejected candidate, without running it.",
        epilog="example: trimtab explain -f examples/quickstart 'Prove that 17 is prime.'",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    add_files(source)
    source.add_argument("--config", metavar="FILE", help="a router's document, as `trimtab compile` writes it")
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--request", metavar="FILE", help="JSON body of a request, - for standard input")
    query.add_argument("prompt", metavar="PROMPT", nargs="?", help="the text of one user message")
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        metavar="NAME:VALUE",
        action="append",
        default=[],
        help="a header that chooses by hand, such as x-trimtab-budget:80; may be given again",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    return parser.parse_args(argv)


def explain(config: RouterConfig, raw: bytes, *, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The plan for a request body by the router's own code; UsageError for a body that the router would refuse."""
    ladder = compile_ladder(config)
    try:
        body = parse_body(raw)
        route: Route = "completions" if "prompt" in body and "messages" not in body else "chat"
        ask = understand(body, headers or {}, ladder, route=route)
        scores = OnnxClassifier().score([ask.reading.query])[0] if needs_scores(ask.facts, ladder) else None
        return plan_as_dict(plan_on(ask.facts, scores, ladder), packaged_curves())
    except ApiError as error:
        raise UsageError(error.message) from None


def _config(path: str) -> RouterConfig:
    try:
        return RouterConfig.model_validate_json(read_text(Path(path)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {field or 'document'}: {first['msg']}; write it with `trimtab compile`") from None


def _body(path: str) -> bytes:
    return (sys.stdin.read() if path == "-" else read_text(Path(path))).encode()


def _chat(model: str, prompt: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header {text}: not a header; write NAME:VALUE")
    return name.strip().lower(), value.strip()


def _print_table(plan: dict[str, Any]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from trimtab_cli.output import console

    out, budget = console(), plan["budget"]
    out.print(f"[bold]{plan['tier']}[/] on pool {plan['pool']}: class {plan['class']}, {plan['strategy']}")
    out.print(escape(f"{plan['reason']}: {plan['message']}"))
    seconds, cost = _estimates(plan)
    thinking, output = _tokens(budget)
    out.print(f"budget: {thinking} thinking and {output} output tokens; seconds {seconds}, cost {cost}")
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for candidate in plan["candidates"]:
        table.add_row(
            "→" if candidate["accepted"] else "",
            candidate["tier"],
            candidate["pool"],
            candidate["strategy"],
            *_tokens(candidate["budget"]),
            *_estimates(candidate),
            _likely(candidate),
            _quality(candidate),
            _doubling(candidate),
            candidate["reason"],
            escape(candidate["message"]),
            style="bold" if candidate["accepted"] else "dim",
        )
    out.print(table)
    if plan["unmeasured"]:
        count = len(plan["unmeasured"])
        out.print(f"{count} other combinations are Unmeasured: no outcome says how good they are; -o json lists them")


def _likely(candidate: dict[str, Any]) -> str:
    """What the answer will cost if it gets as long as such answers do."""
    return f"{candidate['expected_cost']:.6f}" if candidate["budget"]["seconds"] else "unknown"


def _quality(candidate: dict[str, Any]) -> str:
    """A learned share of right answers with its interval; else what is predicted on top of the cheapest tier."""
    quality = candidate["quality"]
    if quality is None:
        return ""
    if quality["source"] == "gain":
        return f"{quality['mean']:+.2f}"
    return f"{quality['mean']:.2f} ({quality['low']:.2f}-{quality['high']:.2f})"


def _doubling(candidate: dict[str, Any]) -> str:
    """What twice the thinking would add to the share of right answers, where that was measured."""
    worth = candidate["doubling"]
    return "" if worth is None else f"{worth['mean']:+.2f} ({worth['low']:+.2f} to {worth['high']:+.2f})"


def _estimates(plan: dict[str, Any]) -> tuple[str, str]:
    """Seconds and cost in words; a pool without `model.shape` has none."""
    seconds, cost = plan["budget"]["seconds"], plan["budget"]["cost"]
    return (f"{seconds:.1f}", f"{cost:.6f}") if seconds else ("unknown", "unknown")


def _tokens(budget: dict[str, Any]) -> tuple[str, str]:
    """Thinking and output tokens in words; nothing bounds them on a pool that is asked for by name."""

    def words(tokens: int | None) -> str:
        return "unbounded" if tokens is None else str(tokens)

    return words(budget["thinking_tokens"]), words(budget["output_tokens"])
