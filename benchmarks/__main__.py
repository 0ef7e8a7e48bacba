"""`python -m benchmarks [NAME...]`: run the measurements of docs/benchmarks.md, all of them or the named ones."""

import importlib
import pkgutil
import sys
from pathlib import Path


def names() -> list[str]:
    """Modules of this folder that have a `main`."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in found if not name.startswith("_") and _main(name))


def _main(name: str):
    return getattr(importlib.import_module(f"benchmarks.{name}"), "main", None)


def main(chosen: list[str]) -> int:
    """Run them in turn; the exit status is that of the worst."""
    known = names()
    if unknown := [name for name in chosen if name not in known]:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}\n")
        return 2
    worst = 0
    for name in chosen or known:
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        worst = max(worst, _main(name)([]) or 0)
    return worst


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
