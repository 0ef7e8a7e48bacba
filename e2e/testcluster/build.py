"""Builds the programs of the test cluster from pinned Go modules, once, into a cache outside the clone.

Each part has a folder of its own, named by a hash of its go.mod, go.sum and sources, so a change of one
part's pin rebuilds that part alone. A folder appears by a rename: what is there is whole.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testcluster.commands import run_logged
from testcluster.locking import exclusive
from testcluster.paths import BUILD, cache_home
from testcluster.progress import Progress
from testcluster.toolchain import find_go

RECIPE_VERSION = "1"
"""Raise it when the way of building changes and what is cached must not be used any more."""

UNUSED_SECONDS = 14 * 24 * 3600

KWOK_STAGES = "kwok-stages.yaml"
LWS_CRD = "lws-crd.yaml"
LWS_CRD_SOURCE = "config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml"


@dataclass(frozen=True, slots=True)
class Part:
    """One Go module under e2e/build and the programs that come out of it, by package path."""

    name: str
    programs: Mapping[str, str]
    version_module: str = ""
    """The module whose version the programs report."""
    version_variables: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def _kubernetes(name: str) -> tuple[str, str]:
    return name, f"k8s.io/kubernetes/cmd/{name}"


CONTAINERD = "github.com/containerd/containerd/v2"
PROMETHEUS = "github.com/prometheus/prometheus"
PARTS = {
    part.name: part
    for part in (
        Part("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
        Part(
            "k8s",
            dict(
                map(
                    _kubernetes,
                    (
                        "kube-apiserver",
                        "kube-controller-manager",
                        "kube-scheduler",
                        "kubelet",
                        "kube-proxy",
                        "kubectl",
                    ),
                )
            ),
            "k8s.io/kubernetes",
            # Without them the server says v0.0.0-master: Helm's Capabilities and kubectl's skew check break.
            ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
        ),
        Part("tools", {"kwok": "sigs.k8s.io/kwok/cmd/kwok", "helm": "helm.sh/helm/v4/cmd/helm"}),
        Part(
            "prometheus",
            {name: f"{PROMETHEUS}/cmd/{name}" for name in ("prometheus", "promtool")},
            PROMETHEUS,
            ("github.com/prometheus/common/version.Version",),
            # Else the SDK of every cloud is compiled in.
            ("remove_all_sd", "enable_kubernetes_sd"),
        ),
        Part(
            "containerd",
            {name: f"{CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
            CONTAINERD,
            (f"{CONTAINERD}/version.Version",),
        ),
        Part("lws", {"lws": "sigs.k8s.io/lws/cmd"}),
        Part("coredns", {"coredns": "."}),
        Part("pause", {"pause": "."}),
    )
}
CONTROL_PLANE = ("etcd", "k8s", "tools")
NODE = (*CONTROL_PLANE, "containerd", "coredns", "pause")
PART_OF = {program: part.name for part in PARTS.values() for program in part.programs} | {
    KWOK_STAGES: "tools",
    LWS_CRD: "lws",
}


def part_key(part: Part, build: Path = BUILD) -> str:
    """Names one build of the part: all that goes into it, in 16 hex digits."""
    digest = hashlib.sha256(f"{RECIPE_VERSION}{part}".encode())
    for path in sorted(p for p in (build / part.name).iterdir() if p.is_file()):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def part_folder(part: Part, build: Path = BUILD) -> Path:
    """Where the part's programs lie once they are built."""
    return cache_home() / "controlplane" / f"{part.name}-{part_key(part, build)}"


def missing(names: Iterable[str], build: Path = BUILD) -> list[Part]:
    """The parts that are not in the cache."""
    return [PARTS[n] for n in names if not part_folder(PARTS[n], build).exists()]


def build_parts(names: Iterable[str], progress: Progress, build: Path = BUILD) -> None:
    """Build what is missing of the named parts; UnavailableError says why that failed."""
    names = tuple(names)
    if not missing(names, build):
        return
    with exclusive(cache_home() / "controlplane" / ".lock", "the test cluster's programs", progress):
        todo = missing(names, build)  # another process may have built them meanwhile
        if not todo:
            return
        go = find_go(progress, build)
        listed = ", ".join(p.name for p in todo)
        progress(f"building {listed} (15 minutes for all parts on 2 cores, a minute with Go's caches warm)")
        for part in todo:
            _build(part, go, progress, build)


def _build(part: Part, go: str, progress: Progress, build: Path) -> None:
    folder = part_folder(part, build)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    source, env = build / part.name, _environment()
    seconds = 0.0
    for program, package in part.programs.items():
        argv = [
            go,
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            _linker_flags(part, source),
            "-tags",
            ",".join(part.tags),
        ]
        seconds += run_logged(
            [*argv, "-o", str(new / program), package],
            log=folder.parent / "build.log",
            what=f"{part.name}: {program}",
            progress=progress,
            cwd=source,
            env=env,
        )
    if "kwok" in part.programs:
        (new / KWOK_STAGES).write_text(kwok_stages(_module_folder(go, "sigs.k8s.io/kwok", source, env)))
    if "lws" in part.programs:
        shutil.copy(_module_folder(go, "sigs.k8s.io/lws", source, env) / LWS_CRD_SOURCE, new / LWS_CRD)
    progress(f"  {part.name}: {', '.join(part.programs)} in {seconds:.0f} s")
    new.replace(folder)
    _forget_unused(part, folder)


def _forget_unused(part: Part, keep: Path) -> None:
    """Drop builds of older pins that no run has used for long: all parts of one pin take 600 MB."""
    for old in keep.parent.glob(f"{part.name}-*"):
        if old != keep and time.time() - old.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _environment() -> dict[str, str]:
    env = dict(os.environ) | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    if not env.get("HOME"):  # Go asks for one, or for these two
        env.setdefault("GOPATH", str(cache_home() / "go"))
        env.setdefault("GOCACHE", str(cache_home() / "go-build"))
    return env


def _linker_flags(part: Part, source: Path) -> str:
    flags = ["-s", "-w"]
    if part.version_module:
        version = module_version(part.version_module, source / "go.mod")
        for variable in part.version_variables:
            flags += _version_flags(part, variable, version)
    return " ".join(flags)


def _version_flags(part: Part, variable: str, version: str) -> list[str]:
    if part.name == "prometheus":
        return ["-X", f"{variable}={prometheus_version(version)}"]
    if part.name != "k8s":
        return ["-X", f"{variable}={version}"]
    major, minor = version.lstrip("v").split(".")[:2]
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "1970-01-01T00:00:00Z",
    }
    return [word for name, value in values.items() for word in ("-X", f"{variable}.{name}={value}")]


def module_version(module: str, go_mod: Path) -> str:
    """The version of `module` that `go_mod` requires."""
    found = re.search(rf"^(?:require |\t){re.escape(module)} (v\S+)", go_mod.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"{go_mod} does not require {module}")
    return found.group(1)


def prometheus_version(module: str) -> str:
    """Prometheus' module counts its releases as v0.XYY.Z: v0.313.5 is Prometheus 3.13.5."""
    _, minor, patch = module.lstrip("v").split(".")
    return f"{minor[:-2]}.{int(minor[-2:])}.{patch}"


def _module_folder(go: str, module: str, source: Path, env: Mapping[str, str]) -> Path:
    argv = [go, "list", "-m", "-f", "{{.Dir}}", module]
    answer = subprocess.run(argv, cwd=source, env=env, capture_output=True, text=True, check=True, timeout=120)
    return Path(answer.stdout.strip())


def kwok_stages(module: Path) -> str:
    """The Stage objects that kwok plays nodes and pods by, from its own module.

    The `general` pod stages honour a delay by annotation (`pod-ready.stage.kwok.x-k8s.io/delay: 90s` plays a
    cold start). Their own waits of 1 to 6 s go, as does the random part of the grace period: tests do not wait.
    """
    stages = module / "kustomize" / "stage"
    files = [
        *sorted((stages / "pod" / "general").glob("pod-*.yaml")),
        *sorted((stages / "node" / "fast").glob("node-*.yaml")),
        *sorted((stages / "node" / "heartbeat-with-lease").glob("node-*.yaml")),
    ]
    if not files:
        raise ValueError(f"kwok ships no stages in {stages}")
    return "\n---\n".join(undelayed(f.read_text()) if f.parent.name == "general" else f.read_text() for f in files)


def undelayed(stage: str) -> str:
    """A stage without its own delays; the delays that annotations ask for stay."""
    stage = re.sub(r"(?m)^( +durationMilliseconds:) \d+$", r"\1 0", stage)
    stage = re.sub(r"(?m)^ +jitterDurationMilliseconds: \d+\n", "", stage)
    return re.sub(r"(?m)^ +jitterDurationFrom:\n +expressionFrom: '\.metadata\.deletionTimestamp'\n", "", stage)
