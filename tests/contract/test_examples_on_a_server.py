"""The examples are admitted by a real API server as they are."""

from pathlib import Path

import pytest

from testcluster.cluster import Cluster
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_an_example_is_admitted(api_server: Cluster, file: Path):
    api_server.install_crds(definitions().values())
    said = api_server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", file, "-n", "default")
    assert said.count("(server dry run)") == file.read_text().count("\nkind: ")
