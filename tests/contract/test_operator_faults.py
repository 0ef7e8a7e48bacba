"""An API server on a bad day changes nothing but time: the same objects, no request too many, waits as asked.

Every kind of fault of faultproxy.py comes between the operator and a real API server.
"""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.faultproxy import RETRY_AFTER_SECONDS, FaultProxy, Seen
from support.manifests import H100, kwok_pool, policy_manifest
from support.operatorprocess import OperatorProcess, forget, grant, revoke
from testcluster.cluster import Cluster, is_true
from testcluster.processes import wait_until
from trimtab_crds.manifests import definitions

pytestmark = [pytest.mark.contract, pytest.mark.timeout(1800, func_only=True)]

FAIR, FOUL = "operator-fair", "operator-foul"
#: What differs between two namespaces without meaning anything.
VOLATILE = {
    *("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "observedGeneration"),
    *(
        "lastTransitionTime",
        "lastUpdateTime",
        "namespace",
        "clusterIP",
        "clusterIPs",
        "deployment.kubernetes.io/revision",
        "time",
    ),
    *(
        "kubectl.kubernetes.io/last-applied-configuration",
        "trimtab.dev/desired",
        "trimtab.dev/ready-since",
        "configHash",
        "lastMove",
        "router.json",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def nodes(api_server: Cluster) -> Iterator[None]:
    api_server.install_crds(definitions().values())
    nodes = api_server.fake_nodes(2, prefix="faults", gpus=8)
    yield
    for node in nodes:
        api_server.remove_node(node)


class Story:
    """What a user does in one namespace, each step after the last one has come to its end."""

    def __init__(self, cluster: Cluster, namespace: str, operator: OperatorProcess) -> None:
        self.cluster, self.namespace, self.operator = cluster, namespace, operator

    def tell(self) -> None:
        rebalance = {"gpuBudget": [{"accelerator": H100, "gpus": 4}], "prometheus": {"url": "http://127.0.0.1:1"}}
        self.cluster.apply(
            [
                kwok_pool("low", namespace=self.namespace, spec__replicas=2),
                kwok_pool("high", namespace=self.namespace),
                kwok_pool("alone", namespace=self.namespace),
                policy_manifest(metadata__namespace=self.namespace, spec__rebalance=rebalance),
            ]
        )
        self._settled("the start", {"low": 2, "high": 1, "alone": 1})
        self._patch("alone", '{"spec": {"recipe": {"preset": "throughput"}, "replicas": 2}}')
        self._settled("another recipe", {"low": 2, "high": 1, "alone": 2})
        self._patch("low", '{"spec": {"replicas": 1}}')
        self._settled("a smaller pool", {"low": 1, "high": 1, "alone": 2})
        self.cluster.kubectl("delete", "tpool", "alone", "-n", self.namespace, "--timeout=300s")
        wait_until("the end of its pods", lambda: self._pods("alone") == [])

    def outcome(self) -> dict[str, Any]:
        """Everything that is there, but for what two namespaces never share."""
        kinds = "tpool,tpolicy,deploy,svc,cm,pdb"
        found = self.cluster.get(kinds, "-n", self.namespace)["items"]
        for manifest in found:
            if manifest["kind"] == "Deployment":  # the history of its controller
                manifest["status"].pop("conditions", None)
        return {
            f"{m['kind']}/{m['metadata']['name']}": _lasting(m)
            for m in found
            if m["metadata"]["name"] != "kube-root-ca.crt"
        }

    def rested(self) -> dict[str, Any]:
        """The outcome, once it has not changed for a while: status follows what it tells of."""
        seen: list[Any] = [self.outcome()]

        def rests() -> bool:
            time.sleep(4)
            seen.append(self.outcome())
            return bool(seen[-1] == seen[-2])

        wait_until("rest", rests)
        found: dict[str, Any] = seen[-1]
        return found

    def _settled(self, what: str, ready: dict[str, int]) -> None:
        def check() -> bool:
            assert self.operator.process.poll() is None, self.operator.log.read_text()[-4000:]
            pools = {m["metadata"]["name"]: m for m in self.cluster.get("tpool", "-n", self.namespace)["items"]}
            # A replica that drains is out of the status before its pod is gone.
            return all(self._is(pools[n], count) and len(self._pods(n)) == count for n, count in ready.items())

        wait_until(what, check, every_seconds=0.5)

    def _is(self, live: dict[str, Any], count: int) -> bool:
        status = live.get("status", {})
        observed = status.get("observedGeneration") == live["metadata"]["generation"]
        return observed and is_true(live, "Ready") and status["replicas"] == status["readyReplicas"] == count

    def _patch(self, name: str, patch: str) -> None:
        self.cluster.kubectl("patch", "tpool", name, "-n", self.namespace, "--type=merge", "-p", patch)

    def _pods(self, name: str) -> list[Any]:
        found: list[Any] = self.cluster.get("pods", "-n", self.namespace, "-l", f"trimtab.dev/pool={name}")["items"]
        return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return value.replace(FAIR, "NS").replace(FOUL, "NS") if isinstance(value, str) else value


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Path to value, so that a difference is one line."""
    if not isinstance(value, dict | list) or not value:
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for key, child in items for name, leaf in flat(child, f"{path}/{key}").items()}


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    left, right = flat(one), flat(other)
    return {path: (left.get(path), right.get(path)) for path in left | right if left.get(path) != right.get(path)}


def environment(namespace: str) -> dict[str, str]:
    return {"POD_NAMESPACE": namespace, "TRIMTAB_WATCH_NAMESPACES": namespace}


def granted(cluster: Cluster, name: str) -> Iterator[Path]:
    yield grant(cluster, name)
    forget(cluster, name)
    revoke(cluster, name)


@pytest.fixture(scope="module")
def fair(api_server: Cluster) -> Iterator[Path]:
    yield from granted(api_server, FAIR)


@pytest.fixture(scope="module")
def foul(api_server: Cluster) -> Iterator[Path]:
    yield from granted(api_server, FOUL)


def too_soon(seen: list[Seen]) -> list[Seen]:
    """Writes that were sent again before the time that a 429 asked for."""
    asked: dict[tuple[str, str], float] = {}
    found = []
    for request in seen:
        key = (request.method, request.path)
        if key in asked and request.at < asked.pop(key) + RETRY_AFTER_SECONDS * 0.9:
            found.append(request)
        if request.fault == "write:429" and request.method == "PATCH":  # a POST makes another Event each time
            asked[key] = request.at
    return found


def test_faults_change_nothing_but_time(api_server: Cluster, fair: Path, foul: Path, tmp_path: Path):
    with OperatorProcess(fair, tmp_path / "fair.log", "fair", environment(FAIR)) as operator:
        story = Story(api_server, FAIR, operator)
        story.tell()
        expected = story.rested()
    with (
        FaultProxy(foul, seed=4, folder=tmp_path) as proxy,
        OperatorProcess(proxy.through, tmp_path / "foul.log", "foul", environment(FOUL)) as operator,
    ):
        story = Story(api_server, FOUL, operator)
        story.tell()
        proxy.calm()
        with contextlib.suppress(TimeoutError):
            wait_until("the same objects", lambda: story.outcome() == expected, 120, every_seconds=1)
        assert differences(story.outcome(), expected) == {}
    done = proxy.faults()
    kinds = {name.partition(":")[2] for name in done}
    print(dict(done), len(proxy.seen))
    assert sum(done.values()) > 50
    assert kinds >= {"409", "409-stale", "429", "500", "503", "slow", "reset", "cut", "lost", "410", "error"}
    assert too_soon(proxy.seen) == []


def test_an_outage_costs_few_requests(api_server: Cluster, foul: Path, tmp_path: Path):
    """Three loops and seven watches wait longer and longer for a server that answers nothing but 503."""
    with FaultProxy(foul, seed=5, folder=tmp_path) as proxy:
        proxy.calm()
        with OperatorProcess(proxy.through, tmp_path / "log", "patient", environment(FOUL)) as operator:
            api_server.apply([kwok_pool("patient", namespace=FOUL, spec__replicas=0)])
            wait_until("Ready", lambda: is_true(api_server.get("tpool", "patient", "-n", FOUL), "Ready"))
            proxy.outage = True
            before = len(proxy.seen)
            api_server.apply(
                [kwok_pool("patient", namespace=FOUL, spec__replicas=0, spec__drain={"deadlineSeconds": 60})]
            )
            time.sleep(6)
            during = proxy.seen[before:]
            proxy.outage = False
            assert operator.process.poll() is None, "an outage shorter than the lease ends nobody"

            def observed() -> bool:
                live = api_server.get("tpool", "patient", "-n", FOUL)
                return bool(live["status"]["observedGeneration"] == live["metadata"]["generation"] == 2)

            wait_until("the edit is done after the outage", observed)
    by_path: dict[str, Counter[str]] = defaultdict(Counter)
    for seen in during:
        by_path[seen.path.partition("?")[0]][seen.method] += 1
    assert {path: dict(counts) for path, counts in by_path.items() if counts.total() > 12} == {}
