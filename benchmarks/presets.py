"""What the policies of `examples/policies` cost and keep: `python -m benchmarks.presets --data DIR [-f FILE...]`.

Every labelled prompt is planned by every policy, with the packaged classifier and the prices and capacities of the
policy's own pools. Cost is that of the plan's likely length, every answer of its strategy and its verifier counted,
escalation not; its share is that of the policy's dearest plan (a tier or a class line) for all prompts. Quality is the
part of the strong answers' gain over the weak ones that falls on queries which the policy sends to its strongest tier.

Two sets of prompts: those that the packaged classifier learned from, and BIG-bench Hard, which it has never seen.
"""

import argparse
import os
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from trimtab_classifier import sources
from trimtab_classifier.features import Query
from trimtab_cli.compile import compile_files
from trimtab_router.core.ladder import Ladder, compile_ladder
from trimtab_router.core.parse import parse_body, understand
from trimtab_router.core.plan import Choice, Plan, budget_on, spent
from trimtab_router.core.planner import needs_scores, plan_on
from trimtab_router.core.spending import spending_on
from trimtab_router.shell.classifier import OnnxClassifier

FOLDER = Path(__file__).parent.parent / "examples" / "policies"
BBH = "bbh/direct_vs_cot.jsonl"
DRAWS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt, and what the strong answer adds to the weak one."""

    text: str
    gain: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy on a set of rows."""

    cost_share: float
    kept: tuple[float, float, float] | None
    """Part of the gain, with its 95 % interval; None where there is one tier only."""
    up: float
    """Share of the queries that go to the strongest tier."""


def read(data: Path) -> dict[str, list[Row]]:
    """Rows with both answers, by set; a text once."""
    learned = {e.query.text: e.gain for e in sources.load(data) if e.gain is not None and e.query.turns == 1}
    found = {"learned": [Row(text, gain) for text, gain in learned.items()]}
    if (data / BBH).is_file():
        unseen = {row["question"]: row["cot_ok"] - row["direct_ok"] for row in sources.rows(data / BBH)}
        found["unseen"] = [Row(text, gain) for text, gain in unseen.items()]
    return found


def plans(rows: Sequence[Row], scores: Sequence[Any], ladder: Ladder) -> list[Plan]:
    """The plan of every row."""
    found = []
    for row, score in zip(rows, scores, strict=True):
        body = {"model": ladder.config.models[0], "messages": [{"role": "user", "content": row.text}]}
        facts = understand(parse_body(orjson.dumps(body)), {}, ladder, route="chat").facts
        found.append(plan_on(facts, score if needs_scores(facts, ladder) else None, ladder))
    return found


def cost(plan: Plan) -> float:
    """Likely price of a plan, every answer of its strategy counted."""
    return spent(
        plan.rung, plan.spending.strategy, plan.facts.prompt_tokens, plan.expected_output_tokens(), plan.ladder
    )


def dearest(found: Sequence[Plan]) -> float:
    """Price of all rows by the one tier or class line that costs most."""
    ladder = found[0].ladder
    totals = [sum(_on(plan, Choice(rung, "Gain"), "") for plan in found) for rung in ladder.graded]
    for name, rule in ladder.classes.items():
        rung = ladder.by_name[rule.tier]
        thinking = rung.thinking_tokens if rule.thinking_tokens is None else rule.thinking_tokens
        output = rung.output_tokens if rule.output_tokens is None else rule.output_tokens
        choice = Choice(rung, "ClassRule", class_budget=(thinking, output))
        totals.append(sum(_on(plan, choice, name) for plan in found))
    return max(totals)


def _on(plan: Plan, choice: Choice, class_name: str) -> float:
    budget = budget_on(choice.rung, plan.facts, choice)
    spending = spending_on(choice, class_name, plan.facts, plan.ladder)
    return cost(
        Plan(
            choice.rung,
            budget,
            choice.reason,
            class_name,
            choice,
            plan.facts,
            plan.scores,
            plan.ladder,
            spending=spending,
        )
    )


def kept(rows: Sequence[Row], up: Sequence[bool]) -> tuple[float, float, float]:
    """Part of the whole gain that falls on the queries that go up, with a bootstrap's 95 % interval."""
    pairs = [(row.gain, row.gain * went) for row, went in zip(rows, up, strict=True)]
    draw, draws = random.Random(1), []
    for _ in range(DRAWS):
        again = draw.choices(pairs, k=len(pairs))
        draws.append(_ratio(again))
    draws.sort()
    return _ratio(pairs), draws[int(0.025 * DRAWS)], draws[int(0.975 * DRAWS)]


def _ratio(pairs: Iterable[tuple[float, float]]) -> float:
    whole, part = (sum(values) for values in zip(*pairs, strict=True))
    return part / whole if whole else 0.0


def judge(file: Path, rows: Sequence[Row], scores: Sequence[Any]) -> Outcome:
    """One policy on one set."""
    ladder = compile_ladder(compile_files([str(file)]))
    found = plans(rows, scores, ladder)
    up = [plan.rung is ladder.graded[-1] for plan in found]
    share = sum(cost(plan) for plan in found) / dearest(found)
    return Outcome(share, kept(rows, up) if len(ladder.graded) > 1 else None, sum(up) / len(up))


def table(found: dict[str, dict[str, Outcome]], counts: dict[str, int]) -> str:
    """One line a policy and set."""
    lines = [f"{'policy':16} {'prompts':8} {'rows':>6} {'cost share':>11} {'sent up':>8}  gain kept"]
    for policy, sets in found.items():
        for name, outcome in sets.items():
            part = "one tier"
            if outcome.kept:
                mean, low, high = outcome.kept
                part = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
            lines.append(
                f"{policy:16} {name:8} {counts[name]:>6} {outcome.cost_share:>11.3f} {outcome.up:>8.2f}  {part}"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 2 where the data are no good. Without data there is nothing to measure, and it says so."""
    parser = argparse.ArgumentParser(prog="benchmarks.presets", description="Cost and quality of ready policies.")
    parser.add_argument("--data", type=Path, help="folder of labelled queries; default: the variable TRIMTAB_DATA")
    parser.add_argument("-f", "--filename", type=Path, action="append", help="a policy with its pools; default: all")
    arguments = parser.parse_args(argv)
    data = arguments.data or Path(os.environ.get("TRIMTAB_DATA", ""))
    if data == Path():
        sys.stdout.write("presets: no labelled queries; give --data DIR or set TRIMTAB_DATA to their folder\n")
        return 0
    try:
        sets = read(data)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"presets: {error}\n")
        return 2
    classifier = OnnxClassifier()
    scores = {name: [classifier.score([Query(row.text)])[0] for row in rows] for name, rows in sets.items()}
    files = arguments.filename or sorted(FOLDER.glob("*.yaml"))
    found = {file.stem: {name: judge(file, rows, scores[name]) for name, rows in sets.items()} for file in files}
    sys.stdout.write(table(found, {name: len(rows) for name, rows in sets.items()}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
