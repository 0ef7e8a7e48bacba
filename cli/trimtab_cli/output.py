"""How commands print: rich tables for people that stay whole when piped."""

import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED_COLUMNS = 200


def console() -> "Console":
    """Standard output; wide enough for whole tables where it is no terminal."""
    from rich.console import Console

    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=shutil.get_terminal_size().columns if terminal else PIPED_COLUMNS, highlight=False)
