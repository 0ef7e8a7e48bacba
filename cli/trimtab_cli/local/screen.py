"""Where the picture goes: a live terminal view, or a plain line every few seconds when nobody watches."""

import io
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from trimtab_cli.local.snapshot import Snapshot
from trimtab_cli.local.view import HEIGHT, WIDTH, plain_line, render

PLAIN_SECONDS = 5.0


class Screen:
    """Shows snapshots until the context ends."""

    def __init__(self, *, plain: bool) -> None:
        console = Console()
        self._live = None
        if not plain and console.is_terminal:
            self._live = Live(console=console, screen=True, auto_refresh=False)
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        """Take over the terminal, if there is one."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back as it was."""
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw it, or print a line when one is due."""
        if self._live is not None:
            self._live.update(render(snapshot), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + PLAIN_SECONDS
            sys.stdout.write(plain_line(snapshot) + "\n")
            sys.stdout.flush()


def write_svg(snapshot: Snapshot, path: Path) -> None:
    """The live view as a picture."""
    console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(render(snapshot))
    drawn = console.export_svg(title="trimtab up -f examples/quickstart")
    # rich names a web font; a picture in a README should fetch nothing.
    path.write_text(re.sub(r"@font-face\s*\{.*?\}", "", drawn, flags=re.DOTALL))
