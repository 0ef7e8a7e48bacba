"""`python -m testcluster.secondtry`: the files whose tests failed and may be told once more, a line each.

Only those on real parts, and only where nothing else failed. A file is told whole: the steps of a story build on each
other.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from testcluster.paths import ROOT

REAL_PARTS = ("tests/contract/", "e2e/")
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def files(failed: Iterable[str]) -> list[str]:
    """The files of these test names; none where one of them has no real part to blame."""
    found = sorted({name.partition("::")[0] for name in failed})
    return found if all(name.startswith(REAL_PARTS) for name in found) else []


def last_failed(root: Path) -> list[str]:
    """The names of the tests that failed in pytest's last run at this root."""
    try:
        return list(json.loads((root / LAST_FAILED).read_text()))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    print("\n".join(files(last_failed(ROOT))))
