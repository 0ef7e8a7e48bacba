"""What is told a second time, how long a client asks again, and what a run says of its machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testcluster import cluster as clusters
from testcluster import secondtry
from testcluster.binaries import Binaries
from testcluster.cluster import Cluster
from testcluster.paths import ROOT
from testcluster.processes import URGENT, Processes, wait_until
from testcluster.stalls import Stalls, stolen_share, ticks

CONTRACT = "tests/contract/test_chart.py::test_a"
STORY = "e2e/test_story.py::test_b"


def test_files_on_real_parts_are_told_again_once_each_and_whole():
    assert secondtry.files([STORY, CONTRACT, f"{STORY}[1]"]) == ["e2e/test_story.py", "tests/contract/test_chart.py"]


@pytest.mark.parametrize("other", ["tests/unit/crds/test_units.py::test_c", "tests/charts/test_chart.py::test_d"])
def test_a_failure_without_real_parts_is_final(other: str):
    assert secondtry.files([CONTRACT, other]) == []


def test_what_failed_is_what_pytest_noted(tmp_path: Path):
    assert secondtry.last_failed(tmp_path) == []
    (tmp_path / "test_it.py").write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    argv = [sys.executable, "-m", "pytest", "-q", f"--rootdir={tmp_path}", str(tmp_path)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 1, ran.stdout
    assert secondtry.last_failed(tmp_path) == ["test_it.py::test_bad"]


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


def test_an_urgent_server_comes_first_in_groups_by_session_too(tmp_path: Path):
    processes = Processes(tmp_path)
    child = processes.start("urgent", ["sleep", "60"], urgent=True)
    try:
        privileged = os.geteuid() == 0
        wait_until("its niceness", lambda: os.getpriority(os.PRIO_PROCESS, child.pid) == (URGENT if privileged else 0))
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():
            assert group.read_text().endswith(f" nice {URGENT if privileged else 0}\n")
    finally:
        processes.stop_all()


def test_a_machine_that_ran_all_the_time_says_never():
    seen = Stalls()
    for _ in range(5):
        seen.saw("10:00:00", 1.1, 0.02)
    said = "the machine stood still for over 3 s: never; its host kept a third of it for 0 of 6 s"
    assert str(seen) == said


def test_a_machine_that_stood_still_names_the_worst_times():
    seen = Stalls()
    for seconds in (1.0, 5.0, 41.0):
        seen.saw(f"10:00:{seconds:02.0f}", seconds, 0.5 if seconds > 4 else 0.0)
    said = (
        "stood still for over 3 s: 41 s until 10:00:41, 5 s until 10:00:05; its host kept a third of it for 46 of 47 s"
    )
    assert said in str(seen)


def test_stolen_time_is_a_share_of_what_passed():
    before = [100, 0, 100, 800, 0, 0, 0, 0, 0, 0]
    after = [150, 0, 100, 825, 0, 0, 0, 25, 0, 0]
    assert stolen_share(before, after) == 0.25
    assert stolen_share(before, before) == 0.0
    assert 0.0 <= stolen_share([0] * len(ticks()), ticks()) <= 1.0


def test_the_watch_of_a_run_ends_with_one_line():
    environment = os.environ | {"PYTHONPATH": str(ROOT / "e2e")}
    argv = [sys.executable, "-u", "-c", "from testcluster import stalls; print('up'); stalls.main()"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as watch:
        assert watch.stdout
        assert watch.stdout.readline() == "up\n"
        wait_until("its handler", lambda: _catches(watch.pid, signal.SIGTERM))
        watch.terminate()
        assert watch.stdout.read().startswith("the machine stood still for over 3 s: ")


def _catches(pid: int, signum: signal.Signals) -> bool:
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
