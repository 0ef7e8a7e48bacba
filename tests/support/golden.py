"""Golden files: what a part printed when somebody last read and accepted it."""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "golden"
#: Set to 1 to accept what the tests print now; then read the difference before you commit it.
WRITE = "TRIMTAB_WRITE_GOLDEN"


def check(name: str, text: str) -> None:
    """Compare with tests/golden/NAME, or write it where the environment asks for that."""
    path = FOLDER / name
    if os.environ.get(WRITE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"tests/golden/{name} is missing; run with {WRITE}=1 and read what it writes"
    assert text == path.read_text(), f"tests/golden/{name} differs; run with {WRITE}=1 if that is wanted"
