"""Resident memory of a router process with the packaged classifier: `python -m benchmarks memory [--json FILE]`.

Every prompt is planned through `/v1/explain`, so classifier, planner and data port all work; no engine is needed.
Private memory is what one more process on the same machine would add; resident memory counts shared libraries too.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

import httpx
from benchmarks import _proxies, classifier, router

GOAL_MB = 150.0
SIZES = (200, 1_000, 10_000, 100_000)


def memory_mb(pid: int) -> dict[str, float]:
    """Resident and private memory of a process and its children, MB."""
    total = {"Rss": 0.0, "Private_Clean": 0.0, "Private_Dirty": 0.0}
    for process in router.tree(pid):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in total:
                total[name] += int(rest.split()[0]) * 1024 / 1e6
    return {"resident": round(total["Rss"], 1), "private": round(total["Private_Clean"] + total["Private_Dirty"], 1)}


def run(requests: int) -> dict[str, object]:
    """Memory after the start, and after the given number of prompts of every size."""
    make, port, rng = _proxies.available()["router"], router.free_port(), random.Random(2)
    with tempfile.TemporaryDirectory() as folder:
        argv = make(Path(folder), port, router.free_port())
        with router.process(argv, router.cores()[0], port) as pid, httpx.Client(timeout=30) as client:
            found: dict[str, object] = {"id": "memory", "goal_mb": GOAL_MB, "started": memory_mb(pid)}
            for chars in SIZES:
                for _ in range(requests):
                    text = classifier.prompt(rng, chars)
                    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
                    client.post(f"http://127.0.0.1:{port}/v1/explain", json=body).raise_for_status()
            found["prompts"] = requests * len(SIZES)
            found["after"] = memory_mb(pid)
    return found


def main(argv: list[str] | None = None) -> int:
    """Prints the figures; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description="Resident memory of a router process.")
    parser.add_argument("--requests", type=int, default=1_000, help="prompts of each size")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    figures = run(arguments.requests)
    sys.stdout.write(json.dumps(figures) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["after"]["resident"] < GOAL_MB else 1


if __name__ == "__main__":
    raise SystemExit(main())
