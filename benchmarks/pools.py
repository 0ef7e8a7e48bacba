"""What a thousand pools cost: `python -m benchmarks pools`, or `python -m benchmarks.pools --pools 200`.

The operator runs as a user with its role alone against the project's own control plane (etcd, kube-apiserver,
controllers, scheduler, kwok), all on this machine. Requests are counted in the API server's audit log.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _paths  # noqa: F401

from support.manifests import policy_manifest, pool_manifest, shape, tier
from support.operatorprocess import OperatorProcess, grant
from testcluster import provide
from testcluster.cluster import Cluster, is_true
from testcluster.progress import to_stderr
from trimtab_crds.manifests import definitions

USER, NAMESPACE = "operator-benchmark", "fleet"
H100 = "nvidia-h100-80gb"
PATIENCE_SECONDS = 900
REST_SECONDS = 60
CHILDREN = (
    "/apis/apps/v1/namespaces/fleet/deployments",
    "/api/v1/namespaces/fleet/services",
    "/apis/policy/v1/namespaces/fleet/poddisruptionbudgets",
)
POOLS, POLICIES = (
    f"/apis/trimtab.dev/v1alpha1/namespaces/{NAMESPACE}/{p}" for p in ("inferencepools", "routingpolicies")
)
WRITES = ("create", "update", "patch", "delete")


@dataclass
class Audit:
    """The operator's requests, read piece by piece: the log is long."""

    cluster: Cluster
    offset: int = 0
    rest: bytes = b""
    seen: list[tuple[str, str]] = field(default_factory=list)

    def take(self) -> Counter[tuple[str, str]]:
        """Verb and resource of what the operator asked since the last call; its lease and long watches left out."""
        assert self.cluster.audit_log is not None
        with self.cluster.audit_log.open("rb") as log:
            log.seek(self.offset)
            data = self.rest + log.read()
            self.offset = log.tell()
        *lines, self.rest = data.split(b"\n")
        mine = (json.loads(line) for line in lines if f'"username":"{USER}"'.encode() in line)
        return Counter(found for event in mine if (found := _what(event)))


def _what(event: dict[str, Any]) -> tuple[str, str] | None:
    ref = event.get("objectRef", {})
    resource = "/".join(filter(None, (ref.get("resource", event["requestURI"]), ref.get("subresource"))))
    return None if resource == "leases" or event["verb"] == "watch" else (event["verb"], resource)


@dataclass(frozen=True)
class Usage:
    """What a process used so far."""

    cpu_seconds: float
    peak_mib: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        status = Path(f"/proc/{pid}/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return cls(ticks / os.sysconf("SC_CLK_TCK"), int(peak) / 1024)


class Fleet:
    """The pools and policies of the benchmark."""

    def __init__(self, cluster: Cluster, pools: int, policies: int) -> None:
        self.cluster, self.pools, self.policies = cluster, pools, policies

    def create(self) -> None:
        """All at once, policies last."""
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda i: self.cluster.api.create(POOLS, self._pool(i)), range(self.pools)))
            list(threads.map(lambda i: self.cluster.api.create(POLICIES, self._policy(i)), range(self.policies)))

    def edit(self) -> None:
        """One field of every pool's spec."""
        body = {"spec": {"slo": {"timeToFirstTokenMilliseconds": 900}}}
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda i: self.cluster.api.merge(f"{POOLS}/pool-{i}", body), range(self.pools)))

    def delete(self) -> None:
        for path in (POLICIES, POOLS):
            self.cluster.api.request("DELETE", path, timeout_seconds=60)

    def reconciled(self) -> bool:
        """Every status speaks of the present spec, and every pool has its children."""
        live = self.items(POOLS) + self.items(POLICIES)
        if any(m.get("status", {}).get("observedGeneration") != m["metadata"]["generation"] for m in live):
            return False
        return all(len(self.items(path)) >= self.pools for path in CHILDREN)

    def ready(self) -> bool:
        return all(is_true(manifest, "Ready") for manifest in self.items(POOLS))

    def gone(self) -> bool:
        return not any(self.items(path) for path in (POOLS, POLICIES, *CHILDREN))

    def items(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.api.request("GET", path, timeout_seconds=60)["items"]
        return found

    def _pool(self, i: int) -> dict[str, Any]:
        return pool_manifest(
            f"pool-{i}",
            metadata__namespace=NAMESPACE,
            spec__accelerator__name=H100,
            spec__model__shape=shape(),
            spec__nodes={"selector": {"type": "kwok"}},
        )

    def _policy(self, i: int) -> dict[str, Any]:
        tiers = [tier(name, pool=f"pool-{2 * i + j}") for j, name in enumerate(("low", "high"))]
        nowhere = {"prometheus": {"url": "http://127.0.0.1:1"}}
        return policy_manifest(f"policy-{i}", metadata__namespace=NAMESPACE, spec__tiers=tiers, spec__rebalance=nowhere)


def seconds_until(what: str, check: Callable[[], bool], since: float) -> float:
    while not check():
        if time.monotonic() - since > PATIENCE_SECONDS:
            sys.exit(f"not within {PATIENCE_SECONDS} s: {what}")
        time.sleep(1)
    return time.monotonic() - since


def line(what: str, value: float, unit: str) -> None:
    print(f"  {what:<46} {value:>9.1f} {unit}", flush=True)


def requests(counts: Counter[tuple[str, str]], per: int) -> None:
    """By verb, per object; rare ones are left out."""
    by_verb: Counter[str] = Counter()
    for (verb, _), count in counts.items():
        by_verb[verb] += count
    print(f"  requests per pool: {sum(counts.values()) / per:.2f}", flush=True)
    for verb, count in by_verb.most_common():
        parts = [f"{r} {n / per:.2f}" for (v, r), n in counts.most_common() if v == verb and n >= per / 20]
        print(f"    {verb:<7} {count / per:6.2f}  ({', '.join(parts) or 'rare'})", flush=True)


def writes(counts: Counter[tuple[str, str]]) -> int:
    return sum(count for (verb, _), count in counts.items() if verb in WRITES)


def measure(fleet: Fleet, operator: OperatorProcess, audit: Audit) -> None:
    before, started = Usage.of(operator.process.pid), time.monotonic()
    fleet.create()
    print(f"\n{fleet.pools} pools and {fleet.policies} policies are created, the operator runs")
    line("all created after", time.monotonic() - started, "s")
    line("all reconciled after", seconds_until("reconciled", fleet.reconciled, started), "s")
    line("all Ready after", seconds_until("Ready", fleet.ready, started), "s")
    time.sleep(5)
    after = Usage.of(operator.process.pid)
    line("CPU of the operator", after.cpu_seconds - before.cpu_seconds, "s")
    line("peak memory of the operator", after.peak_mib, "MiB")
    requests(audit.take(), fleet.pools)

    print(f"\nat rest for {REST_SECONDS} s")
    time.sleep(REST_SECONDS)
    counts = audit.take()
    line("writes", writes(counts), "")
    line("reads", sum(counts.values()) - writes(counts), "")
    line("CPU of the operator", Usage.of(operator.process.pid).cpu_seconds - after.cpu_seconds, "s")

    print("\none field of every pool is edited")
    started = time.monotonic()
    fleet.edit()
    line("all observed after", seconds_until("observed", fleet.reconciled, started), "s")
    time.sleep(5)
    counts = audit.take()
    line("status writes per edit", counts["patch", "inferencepools/status"] / fleet.pools, "")
    requests(counts, fleet.pools)


def restart(fleet: Fleet, start: Callable[[], OperatorProcess], audit: Audit) -> None:
    """Another operator over what is there."""
    with start() as operator:
        started = time.monotonic()
        print("\nanother operator starts over what is there")

        def looked_at_all() -> bool:
            text = operator.get("/metrics")[1]
            done = 'trimtab_operator_reconciles_total{kind="InferencePool",result="done"} '
            return any(float(x.removeprefix(done)) >= fleet.pools for x in text.splitlines() if x.startswith(done))

        line("all looked at after", seconds_until("looked at", looked_at_all, started), "s")
        time.sleep(5)
        counts = audit.take()
        line("writes", writes(counts), "")
        line("CPU of the operator", Usage.of(operator.process.pid).cpu_seconds, "s")
        requests(counts, fleet.pools)
        print("\nall are deleted")
        started = time.monotonic()
        fleet.delete()
        line("all gone after", seconds_until("gone", fleet.gone, started), "s")
        requests(audit.take(), fleet.pools)
        line("peak memory of the operator", Usage.of(operator.process.pid).peak_mib, "MiB")


@contextlib.contextmanager
def prepared(pools: int) -> Iterator[tuple[Cluster, Path]]:
    with provide.control_plane(to_stderr) as cluster:
        cluster.install_crds(definitions().values())
        cluster.namespace(NAMESPACE)
        cluster.fake_nodes(pools // 100 + 1, prefix="benchmark", gpus=128, cpu="10000", memory="100Ti")
        yield cluster, grant(cluster, USER)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pools", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pools", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--policies", type=int, default=10, help="of two tiers each (default: %(default)s)")
    args = parser.parse_args(argv)
    with prepared(args.pools) as (cluster, kubeconfig), tempfile.TemporaryDirectory() as folder:
        fleet, audit = Fleet(cluster, args.pools, args.policies), Audit(cluster)
        log = Path(os.environ.get("TRIMTAB_BENCHMARK_LOG") or Path(folder, "operator.log"))

        def start() -> OperatorProcess:
            return OperatorProcess(
                kubeconfig, log, "benchmark", {"POD_NAMESPACE": USER, "TRIMTAB_LOG_LEVEL": "WARNING"}
            )

        with start() as operator:
            audit.take()
            measure(fleet, operator, audit)
        audit.take()
        restart(fleet, start, audit)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
