"""Two operators on a real API server: one leads, the other follows it after a clean end and after a kill."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.manifests import pool_manifest
from support.operatorprocess import OperatorProcess, grant, revoke
from testcluster.cluster import Cluster, is_true
from testcluster.processes import wait_until
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

NAMESPACE = "operator-leadership"
LEASE = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_LEASE_NAME": "leadership"}


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    api_server.install_crds(definitions().values())
    yield grant(api_server, NAMESPACE)
    revoke(api_server, NAMESPACE)


def holder(cluster: Cluster) -> str:
    lease = cluster.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/leadership")
    return str(lease["spec"].get("holderIdentity", ""))


def test_one_leads_and_the_other_takes_over(api_server: Cluster, kubeconfig: Path, tmp_path: Path):
    first = OperatorProcess(kubeconfig, tmp_path / "first.log", "first", LEASE)
    second = OperatorProcess(kubeconfig, tmp_path / "second.log", "second", LEASE)
    third = OperatorProcess(kubeconfig, tmp_path / "third.log", "third", LEASE)
    with first, second:
        wait_until("a leader", first.leads, 30)
        assert not second.leads()
        assert second.get("/readyz")[0] == 200, "a standby is ready: a roll-out must not wait for it to lead"
        assert first.stop() == 0
        ended = time.monotonic()
        wait_until("the successor of a clean end", second.leads, 30)
        assert time.monotonic() - ended < 10, "it need not wait for the lease to run out"
        with third:
            assert not third.leads()
            second.kill()
            wait_until("the successor of a killed one", third.leads, 30)
            assert holder(api_server) == "third"
            manifest = pool_manifest(metadata__namespace=NAMESPACE, spec__replicas=0)
            api_server.apply([manifest])
            wait_until(
                "the successor works",
                lambda: is_true(api_server.get("tpool", "low", "-n", NAMESPACE), "Ready"),
                30,
            )
            api_server.kubectl("delete", "tpool", "low", "-n", NAMESPACE, "--timeout=30s")


def test_a_leader_that_cannot_reach_the_server_any_more_ends(api_server: Cluster, kubeconfig: Path, tmp_path: Path):
    """It must not act on a lease that somebody else may have taken."""
    lease = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_LEASE_NAME": "stolen"}
    with OperatorProcess(kubeconfig, tmp_path / "log", "robbed", lease) as robbed:
        wait_until("a leader", robbed.leads, 30)
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/stolen"
        live = api_server.api.get(path)
        live["spec"]["holderIdentity"] = "thief"
        api_server.api.request("PUT", path, live)
        wait_until("the end", lambda: robbed.process.poll() is not None, 30)
        assert robbed.process.returncode == 1
        assert "the lease stolen is lost" in robbed.log.read_text()


def test_without_the_crds_it_says_how_to_install_them(tmp_path: Path):
    """A server that knows nothing of us is played by a path that does not exist."""
    environment = {"KUBECONFIG": str(tmp_path / "none")}
    candidate = OperatorProcess(tmp_path / "none", tmp_path / "log", "lost", environment)
    with pytest.raises(AssertionError, match="no Kubernetes API server is configured"):
        candidate.__enter__()
    assert candidate.process.returncode == 2
