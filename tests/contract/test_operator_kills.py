"""SIGKILL at any write, again and again: between what the operator asked for and what it learned of it.

Every life of the operator ends at a write chosen by a seed, half of them before the API server has it and half of them
after it was done; a life that writes nothing for a while ends then. Meanwhile a user creates, moves, rolls out, drains
and deletes.
"""

import random
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import pytest

from story.gpuwatch import GpuWatch
from support.fakeprometheus import FakePrometheus, serving
from support.faultproxy import FaultProxy
from support.manifests import H100, kwok_pool, policy_manifest
from support.operatorprocess import OperatorProcess, account
from testcluster.cluster import Cluster, is_true
from testcluster.processes import PATIENCE_SECONDS, wait_until

pytestmark = [pytest.mark.contract, pytest.mark.timeout(1800, func_only=True)]

NAMESPACE = "operator-kills"
ENVIRONMENT = {"POD_NAMESPACE": NAMESPACE, "TRIMTAB_WATCH_NAMESPACES": NAMESPACE}
KILLS, BUDGET = 50, 4
#: Nobody is killed more often than the job can bear: from start to death at most so many writes, or so long.
MOST_WRITES, LONGEST_LIFE_SECONDS = 6, 8.0
MUCH, LITTLE = (30.0, 30_000.0, 20_000.0), (0.1, 100.0, 60.0)
CHILDREN = "deployments,replicasets,pods,services,configmaps,poddisruptionbudgets,networkpolicies"


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[Path]:
    with account(api_server, NAMESPACE, nodes=2) as granted:
        yield granted


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    with serving() as fake:
        yield fake


class Lives:
    """One operator after the other, each killed at a write or by the clock, until the block is left."""

    def __init__(self, proxy: FaultProxy, log: Path, seed: int) -> None:
        self._proxy, self._log, self._random = proxy, log, random.Random(seed)
        self._writes_left, self._after = 0, False
        self._sides = cycle([False, True])
        self._end = threading.Event()
        self._died = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lives")
        self._operator: OperatorProcess | None = None
        self.kills = self.kills_at_writes = 0
        proxy.around_write = self._around_write

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._died.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """A life that could not begin ends all of them."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._end.is_set():
            self._died.clear()
            self._writes_left, self._after = self._random.randint(1, MOST_WRITES), next(self._sides)
            self._operator = OperatorProcess(self._proxy.through, self._log, "mortal", ENVIRONMENT)
            self._operator.start()
            self._operator.await_ready_or_dead()
            killed = self._died.wait(LONGEST_LIFE_SECONDS)
            assert killed or self._operator.process.poll() is None, self._log.read_text()[-4000:]
            self._operator.kill()
            self.kills += 1

    def _around_write(self) -> Callable[[], None]:
        self._writes_left -= 1
        if self._writes_left != 0:
            return lambda: None
        if self._after:
            return self._kill
        self._kill()
        return lambda: None

    def _kill(self) -> None:
        if self._operator is not None and self._operator.process.poll() is None:
            self._operator.process.kill()
            self.kills_at_writes += 1
            self._died.set()


class Job:
    """What a user does, over and over."""

    def __init__(self, cluster: Cluster, prometheus: FakePrometheus, lives: Lives) -> None:
        self.cluster, self.prometheus, self.lives = cluster, prometheus, lives

    def round(self) -> None:
        """Create, move, roll out, drain and delete."""
        self.prometheus.demand = {"low": MUCH, "high": LITTLE}
        self.cluster.apply([self._policy(), _pool("low", 3), _pool("high", 1), _pool("alone", 1, spec__scaling=None)])
        self._until("the start", lambda: self._ready("low", "high", "alone") == [3, 1, 1])
        self.prometheus.demand = {"low": LITTLE, "high": MUCH}
        self._until("a move", lambda: self._ready("low", "high") == [1, 3])
        self._merge("high", {"recipe": {"preset": "throughput"}})
        self._until("a roll-out", lambda: self._settled("high") and self._ready("high") == [3])
        self._merge("alone", {"replicas": 0})
        self._until("a drain", lambda: self._pods("alone") == 0)
        self.cluster.kubectl("delete", "tpolicy,tpool", "--all", "-n", NAMESPACE, "--wait=false")
        self._until("nothing left", lambda: not self.left())

    def left(self) -> list[str]:
        found = self.cluster.get(f"tpool,tpolicy,{CHILDREN}", "-n", NAMESPACE)["items"]
        names = [f"{m['kind']}/{m['metadata']['name']}" for m in found]
        return [name for name in names if name != "ConfigMap/kube-root-ca.crt"]

    def _until(self, what: str, check: Callable[[], bool]) -> None:
        def checked() -> bool:
            assert self.lives.is_alive
            return check()

        wait_until(what, checked, PATIENCE_SECONDS, every_seconds=0.3)

    def _policy(self) -> dict[str, Any]:
        rebalance = {
            "mode": "Apply",
            "gpuBudget": [{"accelerator": H100, "gpus": BUDGET}],
            "prometheus": {"url": self.prometheus.url},
            "intervalSeconds": 1,
            "windowSeconds": 5,
            "cooldownSeconds": 1,
        }
        return policy_manifest(metadata__namespace=NAMESPACE, spec__rebalance=rebalance)

    def _live(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("tpool", name, "-n", NAMESPACE)
        return found

    def _ready(self, *names: str) -> list[int]:
        return [self._live(name).get("status", {}).get("readyReplicas", 0) for name in names]

    def _settled(self, name: str) -> bool:
        live = self._live(name)
        observed = live.get("status", {}).get("observedGeneration") == live["metadata"]["generation"]
        return observed and is_true(live, "Ready") and is_true(live, "RolledOut")

    def _merge(self, name: str, spec: dict[str, Any]) -> None:
        self.cluster.api.merge(
            f"/apis/trimtab.dev/v1alpha1/namespaces/{NAMESPACE}/inferencepools/{name}", {"spec": spec}
        )

    def _pods(self, name: str) -> int:
        return len(self.cluster.get("pods", "-n", NAMESPACE, "-l", f"trimtab.dev/pool={name}")["items"])


def _pool(name: str, replicas: int, **changes: Any) -> dict[str, Any]:
    plain = {"spec__replicas": replicas, "spec__scaling": {"minReplicas": 1, "maxReplicas": 4}}
    return kwok_pool(name, namespace=NAMESPACE, **plain | changes)


def test_kills_at_any_write_change_nothing_but_time(
    api_server: Cluster, kubeconfig: Path, prometheus: FakePrometheus, tmp_path: Path
):
    rounds = 0
    with FaultProxy(kubeconfig, seed=7, folder=tmp_path) as proxy, GpuWatch(api_server, NAMESPACE) as watch:
        proxy.calm()
        with Lives(proxy, tmp_path / "operator.log", seed=11) as lives:
            job = Job(api_server, prometheus, lives)
            while lives.kills < KILLS:
                job.round()
                rounds += 1
        assert watch.is_alive
    print(f"{lives.kills} kills, {lives.kills_at_writes} of them at a write, in {rounds} rounds")
    assert lives.kills_at_writes >= KILLS // 2
    # `alone` has no policy and so no part in the budget.
    assert watch.peak <= BUDGET + 1
    assert job.left() == []
