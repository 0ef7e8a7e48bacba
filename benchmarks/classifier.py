"""Time and memory of one classifier decision: `python -m benchmarks.classifier [--json FILE]`.

Prompts are seeded random words with digits and symbols: hardly a token repeats, which is the dearest case. Features,
session and result objects are all inside the measured time. CPU time is shown beside wall time: on a machine that does
other work the tail of the wall time is that of the scheduler.
"""

import argparse
import json
import os
import random
import string
import sys
import time
from pathlib import Path
from typing import Any

GOALS_MS = {100: 1.0, 1_000: 1.0, 10_000: 2.0, 100_000: 2.0}
BATCH = 16
DISTINCT = 192


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def prompt(rng: random.Random, chars: int) -> str:
    """Words of two to nine letters with some numbers and symbols."""
    words = []
    total = 0
    while total < chars:
        word = "".join(
            rng.choices(string.ascii_letters if rng.random() < 0.9 else string.digits + "+=$\\^{}", k=rng.randint(2, 9))
        )
        words.append(word)
        total += len(word) + 1
    return " ".join(words)[:chars]


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(classifier: Any, batches: list[list[Any]], rounds: int) -> dict[str, float]:
    """Milliseconds per query over the given batches, in turn."""
    for batch in batches[:20]:
        classifier.score(batch)
    wall, cpu = [], []
    for number in range(rounds):
        batch = batches[number % len(batches)]
        start, start_cpu = time.perf_counter(), time.thread_time()
        classifier.score(batch)
        wall.append((time.perf_counter() - start) * 1e3 / len(batch))
        cpu.append((time.thread_time() - start_cpu) * 1e3 / len(batch))
    return {
        "p50_ms": round(percentile(wall, 0.5), 4),
        "p99_ms": round(percentile(wall, 0.99), 4),
        "cpu_p99_ms": round(percentile(cpu, 0.99), 4),
    }


def run(rounds: int) -> dict[str, Any]:
    """All sizes, alone and in batches of 16, and the memory that loading and scoring took."""
    before = resident_mb()
    from trimtab_classifier.features import Query
    from trimtab_router.shell.classifier import PACKAGED, OnnxClassifier

    classifier = OnnxClassifier()
    rng = random.Random(1)
    sizes: dict[str, Any] = {}
    for chars, goal in GOALS_MS.items():
        queries = [Query(prompt(rng, chars)) for _ in range(DISTINCT)]
        figures = measure(classifier, [[query] for query in queries], rounds)
        batches = [queries[at : at + BATCH] for at in range(0, DISTINCT, BATCH)]
        sizes[str(chars)] = figures | {
            "goal_p99_ms": goal,
            "met": figures["p99_ms"] < goal,
            "batch_16_per_query_p50_ms": measure(classifier, batches, max(rounds // BATCH, 10))["p50_ms"],
        }
    texts = sum(chars * DISTINCT for chars in GOALS_MS) / 1e6
    return {
        "id": "classifier",
        "model_version": classifier.version,
        "model_bytes": PACKAGED.stat().st_size,
        "decisions_per_size": rounds,
        "planning": planning(rounds),
        "resident_mb_added": round(resident_mb() - before - texts, 1),
        "chars": sizes,
    }


def planning(rounds: int) -> dict[str, float]:
    """Milliseconds of a plan on four tiers that get cheaper, with two learned budgets and two strategies for each."""
    from trimtab_crds.wire import RouterConfig
    from trimtab_router.core.facts import Facts
    from trimtab_router.core.ladder import compile_ladder
    from trimtab_router.core.planner import plan_on
    from trimtab_router.core.scores import Scores

    names = [f"t{n}" for n in range(4)]
    outcomes = [
        {"className": "math", "tier": t, "thinkingTokens": tokens, "right": 50 + i, "wrong": 50 - i} | strategy
        for i, t in enumerate(names)
        for tokens in (128, 1024)
        for strategy in ({}, {"strategy": "Single"})
    ]
    document = {
        "policy": "default/bench",
        "models": ["auto"],
        "tiers": [
            {"name": t, "pool": t, "thinkingTokens": 1024 * n, "strategy": {"type": "SelfConsistency"}}
            for n, t in enumerate(names)
        ],
        "pools": [
            {
                "name": t,
                "servedName": t,
                "reasoning": True,
                "promptTokenSeconds": 1e-4 / (n + 1),
                "outputTokenSeconds": 1e-3 / (n + 1),
            }
            for n, t in enumerate(names)
        ],
        "outcomes": outcomes,
        "classifier": {"defaultTier": "t3"},
    }
    ladder = compile_ladder(RouterConfig.model_validate(document))
    scores = Scores("math", 0.9, 0.1, 200, 600, 0.5)
    times, cpu = [], []
    for number in range(rounds):
        facts = Facts(model="auto", prompt_tokens=number)
        start, start_cpu = time.perf_counter(), time.thread_time()
        plan_on(facts, scores, ladder)
        times.append((time.perf_counter() - start) * 1e3)
        cpu.append((time.thread_time() - start_cpu) * 1e3)
    return {
        "p50_ms": round(percentile(times, 0.5), 4),
        "p99_ms": round(percentile(times, 0.99), 4),
        "cpu_p99_ms": round(percentile(cpu, 0.99), 4),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = [f"{'chars':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU p99':>8} {'goal':>6} {'batch 16, per query':>20}"]
    for chars, row in figures["chars"].items():
        mark = "" if row["met"] else "  above the goal"
        lines.append(
            f"{chars:>8} {row['p50_ms']:>8.3f} {row['p99_ms']:>8.3f} {row['cpu_p99_ms']:>8.3f} "
            f"{row['goal_p99_ms']:>6.1f} "
            f"{row['batch_16_per_query_p50_ms']:>20.3f}{mark}"
        )
    plan = figures["planning"]
    lines.append(
        f"a plan with outcomes of four tiers: p50 {plan['p50_ms']:.3f} ms, p99 {plan['p99_ms']:.3f} ms, "
        f"CPU p99 {plan['cpu_p99_ms']:.3f} ms"
    )
    lines.append(f"file {figures['model_bytes'] / 1e6:.1f} MB; resident +{figures['resident_mb_added']} MB")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.classifier", description="Time of one classifier decision.")
    parser.add_argument("--rounds", type=int, default=2_000, help="decisions per size")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = run(arguments.rounds)
    sys.stdout.write(table(figures) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(row["met"] for row in figures["chars"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
