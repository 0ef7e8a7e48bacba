"""Real servers for the contract suites, each started once a session by the first test that asks for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testcluster import provide
from testcluster.binaries import Binaries
from testcluster.cluster import Cluster
from testcluster.errors import UnavailableError
from testcluster.pytesting import limit_test_alone, provided, unavailable, visible
from testcluster.vllm import VllmServer

SERVERS = frozenset({"api_server", "prometheus_binary", "real_vllm"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_test_alone(items, SERVERS, seconds=1800)


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A real API server with its controllers, scheduler and kwok: `.kubeconfig`, `.api`, `.audit_log`, `.user()`.

    TRIMTAB_TEST_KUBECONFIG chooses another cluster; tests own the namespaces that they make, and the CRDs.
    """
    with provided(provide.control_plane(visible(request.config))) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def prometheus_binary(request: pytest.FixtureRequest) -> Path:
    """The path of a real prometheus; promtool lies beside it."""
    try:
        return provide.prometheus(visible(request.config))
    except UnavailableError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def lws(api_server: Cluster, request: pytest.FixtureRequest) -> Binaries:
    """The programs of LeaderWorkerSets; its controller answers on loopback, where another cluster would not ask."""
    if api_server.audit_log is None:
        unavailable("the controller of LeaderWorkerSets needs the project's own control plane")
    try:
        return provide.leaderworkersets(visible(request.config))
    except UnavailableError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def real_vllm(request: pytest.FixtureRequest) -> Iterator[VllmServer]:
    """A real `vllm serve` of a tiny random model with thinking: `.base_url` (no path), `.model`, `.log`, `.pid`."""
    with provided(provide.real_vllm(visible(request.config))) as server:
        yield server
