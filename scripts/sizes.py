"""Holds the size rules of CONTRIBUTING.md: no function over 60 lines, no file over 600, median at most 10."""

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("crds", "operator", "router", "cli")
TESTS = ("tests", "e2e", "benchmarks")


def main() -> int:
    """Print every breach and the figures; the exit status is 1 on a breach."""
    breaches = [
        f"{path.relative_to(ROOT)}: {lines} lines, the limit is 600"
        for path in _files(*PACKAGES, *TESTS)
        if (lines := path.read_text().count("\n")) > 600
    ]
    lengths: list[int] = []
    for path in _files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                lengths.append(length)
                if length > 60:
                    name = path.relative_to(ROOT)
                    breaches.append(f"{name}:{node.lineno} {node.name}: {length} lines, the limit is 60")
    median = statistics.median(lengths) if lengths else 0
    if median > 10:
        breaches.append(f"the median function has {median} lines, the limit is 10")
    sys.stdout.write("".join(f"{b}\n" for b in breaches))
    sys.stdout.write(f"sizes: {len(lengths)} functions, median {median:g}, longest {max(lengths, default=0)} lines\n")
    return 1 if breaches else 0


def _files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


if __name__ == "__main__":
    raise SystemExit(main())
