"""The router reads other people's prompts: what it imports may not carry a telemetry client."""

import os
import subprocess
import sys
from pathlib import Path


def test_importing_onnxruntime_leaves_no_trace(tmp_path: Path) -> None:
    """Its telemetry client, where a wheel has one, writes a session file into TMPDIR at import."""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import onnxruntime"], env=env, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
