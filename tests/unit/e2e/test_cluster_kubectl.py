"""kubectl and Helm ask again where their request did not get through, and only there."""

import json
import subprocess
from pathlib import Path

import pytest

from testcluster import cluster as clusters
from testcluster.binaries import Binaries
from testcluster.cluster import Cluster


class Scripted(Cluster):
    """A cluster whose kubectl says these things, one after another, before it succeeds."""

    def __init__(self, *said: str) -> None:
        self.said = list(said)

    def run(self, *argv: object, **_: object) -> subprocess.CompletedProcess[str]:
        if self.said:
            raise AssertionError(self.said.pop(0))
        return subprocess.CompletedProcess(argv, 0, "done", "")


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clusters.time, "sleep", lambda _: None)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("get", "Unable to connect to the server: net/http: TLS handshake timeout"),
        ("delete", "Unable to connect to the server: net/http: TLS handshake timeout"),
        ("create", "The connection to the server 127.0.0.1:6443 was refused: connection refused"),
        ("get", "Unable to connect to the server: http2: client connection lost"),
        ("apply", "error: Get https://127.0.0.1:6443/api: read tcp: i/o timeout"),
    ],
)
@pytest.mark.usefixtures("no_pause")
def test_kubectl_asks_again_where_it_did_not_reach_the_server(verb: str, said: str):
    assert Scripted(*[said] * 20).kubectl(verb, "tpool") == "done"


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("delete", "Unable to connect to the server: http2: client connection lost"),
        ("get", 'Error from server (NotFound): inferencepools.trimtab.dev "low" not found'),
        ("apply", "error: timed out waiting for the condition"),
    ],
)
@pytest.mark.usefixtures("no_pause")
def test_kubectl_never_repeats_an_answer_or_what_may_have_been_done(verb: str, said: str):
    with pytest.raises(AssertionError) as told:
        Scripted(said).kubectl(verb, "tpool")
    assert str(told.value) == said


@pytest.mark.usefixtures("no_pause")
def test_helm_asks_again_before_it_has_begun():
    assert Scripted("Error: Kubernetes cluster unreachable: TLS handshake timeout").helm("install") == "done"
    with pytest.raises(AssertionError, match="TLS handshake timeout"):
        Scripted("Error: failed post-install: TLS handshake timeout").helm("install")


def test_who_never_reaches_the_server_ends_some_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(clusters, "PATIENCE_SECONDS", 0)
    nobody = tmp_path / "kubeconfig"
    entry = {"cluster": {"server": "https://127.0.0.1:1"}, "name": "x"}
    user = {"name": "x", "user": {}}
    context = {"context": {"cluster": "x", "user": "x"}, "name": "x"}
    document = {"clusters": [entry], "users": [user], "contexts": [context], "current-context": "x"}
    nobody.write_text(json.dumps(document))
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho connection refused >&2; exit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    with pytest.raises(AssertionError, match=r"kubectl get pods: exit status 1\nconnection refused"):
        Cluster(nobody, folder=tmp_path, binaries=Binaries((tmp_path,))).kubectl("get", "pods")
