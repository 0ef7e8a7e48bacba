"""Where the checkout and the caches lie. Caches are outside the clone, so that a fresh clone finds them."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
BUILD = ROOT / "e2e" / "build"
"""The Go modules that pin what is built."""


def cache_home() -> Path:
    """The project's cache folder: `${XDG_CACHE_HOME:-~/.cache}/trimtab`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "trimtab"
