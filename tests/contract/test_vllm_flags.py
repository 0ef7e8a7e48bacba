"""The committed list of vLLM's flags is what the locked vLLM itself says."""

import json
import subprocess
from pathlib import Path

import pytest

from testcluster import vllm
from testcluster.errors import UnavailableError
from testcluster.pytesting import unavailable, visible

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "crds" / "trimtab_crds" / "vllm_flags.json"

pytestmark = pytest.mark.contract


@pytest.mark.timeout(1800)
def test_the_simulated_engine_knows_exactly_vllms_flags(request: pytest.FixtureRequest):
    try:
        python = vllm.install(visible(request.config)) / "bin" / "python"
    except UnavailableError as error:
        unavailable(error)
    argv = [str(python), str(ROOT / "scripts" / "vllm_flags.py")]
    written = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout) == json.loads(COMMITTED.read_text()), (
        "write it again: PYTHON_OF_VLLM scripts/vllm_flags.py > crds/trimtab_crds/vllm_flags.json"
    )
