"""One line at a time for whoever waits: a build of minutes must not look like a hang."""

import sys
from collections.abc import Callable

Progress = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The progress of a command: standard output stays for its result."""
    print(f"trimtab: {line}", file=sys.stderr, flush=True)
