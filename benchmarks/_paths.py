"""Makes what tests share importable: the test cluster and the operator as a process."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "e2e")]
