"""Runs `trimtab` as its users do, in this process."""

from dataclasses import dataclass

import pytest

from trimtab_cli.__main__ import main


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str


class Trimtab:
    """`trimtab WORDS...`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> Ran:
        self._capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as left:  # argparse's way
            status = left.code if isinstance(left.code, int) else 1
        printed = self._capsys.readouterr()
        return Ran(status, printed.out, printed.err)

    def refused(self, *words: object) -> str:
        """The one line that says what the user got wrong; its exit status is 2."""
        ran = self(*words)
        assert ran.status == 2, ran
        assert ran.out == ""
        assert ran.err.startswith("trimtab: ")
        assert ran.err.count("\n") == 1
        return ran.err.removeprefix("trimtab: ").rstrip("\n")
