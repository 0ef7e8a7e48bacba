"""Two operators on a real API server: one leads, the other follows it after a clean end and after a kill."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.manifests import pool_manifest
from support.operatorprocess import OperatorProcess, account, grant, revoke
from testcluster.cluster import Cluster, is_true
from testcluster.processes import wait_until
from trimtab_crds.manifests import definitions

pytestmark = pytest.mark.contract

NAMESPACE = "operator-leadership"
LEASE = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_LEASE_NAME": "leadership"}


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    with account(api_server, NAMESPACE) as granted:
        yield granted


def holder(cluster: Cluster) -> str:
    lease = cluster.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/leadership")
    return str(lease["spec"].get("holderIdentity", ""))


def test_one_leads_and_the_other_takes_over(api_server: Cluster, kubeconfig: Path, tmp_path: Path):
    first = OperatorProcess(kubeconfig, tmp_path / "first.log", "first", LEASE)
    second = OperatorProcess(kubeconfig, tmp_path / "second.log", "second", LEASE)
    third = OperatorProcess(kubeconfig, tmp_path / "third.log", "third", LEASE)
    with first, second:
        wait_until("a leader", first.leads)
        assert not second.leads()
        assert second.get("/readyz")[0] == 200, "a standby is ready: a roll-out must not wait for it to lead"
        assert first.stop() == 0
        assert holder(api_server) in ("", "second"), "nobody need wait for the lease to run out"
        wait_until("the successor of a clean end", second.leads)
        with third:
            assert not third.leads()
            second.kill()
            wait_until("the successor of a killed one", third.leads)
            assert holder(api_server) == "third"
            manifest = pool_manifest(metadata__namespace=NAMESPACE, spec__replicas=0)
            api_server.apply([manifest])
            wait_until(
                "the successor works",
                lambda: is_true(api_server.get("tpool", "low", "-n", NAMESPACE), "Ready"),
            )
            api_server.kubectl("delete", "tpool", "low", "-n", NAMESPACE, "--timeout=300s")


def test_a_leader_whose_lease_was_taken_stands_by_and_may_lead_again(
    api_server: Cluster, kubeconfig: Path, tmp_path: Path
):
    lease = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_LEASE_NAME": "stolen"}
    with OperatorProcess(kubeconfig, tmp_path / "log", "robbed", lease) as robbed:
        wait_until("a leader", robbed.leads)
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/stolen"
        live = api_server.api.get(path)
        live["spec"]["holderIdentity"] = "thief"
        api_server.api.request("PUT", path, live)
        wait_until("the end of its work", lambda: not robbed.leads())
        assert "the lease stolen is lost" in robbed.log.read_text()
        wait_until("it leads again", robbed.leads)
        assert robbed.stop() == 0


def test_a_leader_that_was_stopped_for_a_while_works_again(api_server: Cluster, kubeconfig: Path, tmp_path: Path):
    """As when its machine stands still: its lease ran out, and every connection may be gone."""
    lease = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_LEASE_NAME": "stopped"}
    with OperatorProcess(kubeconfig, tmp_path / "log", "stopped", lease) as stopped:
        wait_until("a leader", stopped.leads)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        time.sleep(12)
        os.kill(stopped.process.pid, signal.SIGCONT)
        wait_until("the loss is told", lambda: "the lease stopped is lost" in stopped.log.read_text())
        api_server.apply([pool_manifest("later", metadata__namespace=NAMESPACE, spec__replicas=0)])
        wait_until("it works", lambda: is_true(api_server.get("tpool", "later", "-n", NAMESPACE), "Ready"))
        api_server.kubectl("delete", "tpool", "later", "-n", NAMESPACE, "--timeout=300s")


def test_it_can_be_kept_to_one_namespace(api_server: Cluster, tmp_path: Path):
    """With a Role alone: no right reaches beyond the namespace, and none is missed."""
    account = "operator-in-one-namespace"
    api_server.install_crds(definitions().values())
    environment = {"POD_NAMESPACE": account, "TRIMTAB_WATCH_NAMESPACES": account}
    try:
        kubeconfig = grant(api_server, account, everywhere=False)
        with OperatorProcess(kubeconfig, tmp_path / "log", "modest", environment):
            api_server.apply([pool_manifest(metadata__namespace=account, spec__replicas=0)])
            wait_until("Ready", lambda: is_true(api_server.get("tpool", "low", "-n", account), "Ready"))
            api_server.kubectl("delete", "tpool", "low", "-n", account, "--timeout=300s")
        if api_server.audit_log is not None:
            asked = api_server.audit_events(user=account)
            assert [e["requestURI"] for e in asked if e["responseStatus"]["code"] == 403] == []
    finally:
        revoke(api_server, account)


def test_without_a_cluster_it_says_what_to_set(tmp_path: Path):
    environment = {"KUBECONFIG": str(tmp_path / "none")}
    candidate = OperatorProcess(tmp_path / "none", tmp_path / "log", "lost", environment)
    with pytest.raises(AssertionError, match="no Kubernetes API server is configured"):
        candidate.__enter__()
    assert candidate.process.returncode == 2
