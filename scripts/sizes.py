"""Holds the size rules of CONTRIBUTING.md: no function over 60 lines, no file over 600, median at most 10."""

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("crds", "operator", "router", "cli")


def main() -> int:
    """Print every breach and the figures; the exit status is 1 on a breach."""
    breaches: list[str] = []
    lengths: list[int] = []
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        text = path.read_text()
        name = path.relative_to(ROOT)
        if text.count("\n") > 600:
            breaches.append(f"{name}: {text.count(chr(10))} lines, the limit is 600")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                lengths.append(length)
                if length > 60:
                    breaches.append(f"{name}:{node.lineno} {node.name}: {length} lines, the limit is 60")
    median = statistics.median(lengths) if lengths else 0
    if median > 10:
        breaches.append(f"the median function has {median} lines, the limit is 10")
    sys.stdout.write("".join(f"{b}\n" for b in breaches))
    sys.stdout.write(f"sizes: {len(lengths)} functions, median {median:g}, longest {max(lengths, default=0)} lines\n")
    return 1 if breaches else 0


if __name__ == "__main__":
    raise SystemExit(main())
