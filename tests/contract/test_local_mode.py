"""The whole loop on this machine: real router, engines as processes, the rebalancer; and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from story import fleet
from testcluster import vllm
from testcluster.processes import PATIENCE_SECONDS
from testcluster.pytesting import visible
from trimtab_cli.local.ports import free_port

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
BOUND_SECONDS = 200
#: Fast enough for a test: demand over five seconds, a decision every second.
HURRY = {"windowSeconds": 5, "intervalSeconds": 1, "cooldownSeconds": 2, "releaseAfterSeconds": 5}


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The quickstart, in a hurry."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "pools.yaml").write_text((QUICKSTART / "pools.yaml").read_text())
    policy = yaml.safe_load((QUICKSTART / "policy.yaml").read_text())
    policy["spec"]["rebalance"] |= HURRY
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    return folder


class Up:
    """`trimtab up` as a process of its own, whose descendants are known by a mark in their environment."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.mark = f"TRIMTAB_TEST={uuid.uuid4()}"
        self.scratch = Path(tempfile.mkdtemp(prefix="up-"))  # short: vLLM binds sockets in it
        self._output = folder.parent / "output"
        name, _, value = self.mark.partition("=")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trimtab_cli", "up", "-f", str(folder), "--startup-seconds", "0.5", *options],
                env={**os.environ, name: value, "TMPDIR": str(self.scratch)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text()

    def finished(self) -> str:
        """Its output, once it ended well."""
        status = self.process.wait(BOUND_SECONDS)
        assert status == 0, self.output()
        return self.output()

    def relatives(self) -> list[int]:
        """Processes with the mark, this one not counted."""
        marked = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in entry.read_bytes().split(b"\0"):
                    marked.append(int(entry.parent.name))
            except OSError:
                continue
        return [pid for pid in marked if pid != self.process.pid]

    def wait_until_nothing_is_left(self) -> None:
        """No process, no file."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (self.relatives() or list(self.scratch.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.relatives() == []
        assert list(self.scratch.iterdir()) == []


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Up]:
    """`trimtab up`, ended with the block whatever happens."""
    running = Up(folder, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        for pid in running.relatives():
            os.kill(pid, signal.SIGKILL)
        running.process.wait()
        shutil.rmtree(running.scratch, ignore_errors=True)


def wait_until_served(port: int, seconds: float = PATIENCE_SECONDS, by: Up | None = None) -> None:
    deadline = time.monotonic() + seconds
    while True:
        body = {"model": "auto", "messages": [{"role": "user", "content": "Which season comes after winter?"}]}
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=body, trust_env=False, timeout=PATIENCE_SECONDS
            )
            if answer.status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert by is None or by.process.poll() is None, by.output()
        assert time.monotonic() < deadline, "nothing answers"
        time.sleep(0.2)


@pytest.mark.contract
@pytest.mark.timeout(BOUND_SECONDS + 120)
@pytest.mark.parametrize("source", ["embedded", "prometheus"])
def test_replicas_follow_the_load_within_the_budget(
    source: str, manifests: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wish = str(request.getfixturevalue("prometheus_binary")) if source == "prometheus" else "embedded"
    file, picture = tmp_path / "report.json", tmp_path / "view.svg"
    options = ["--for", "25", "--rate", "4", "--report", str(file), "--svg", str(picture), "--listen", "127.0.0.1:0"]
    with up(manifests, *options, "--prometheus", wish) as running:
        output = running.finished()
        running.wait_until_nothing_is_left()

    report: dict[str, Any] = json.loads(file.read_text())
    assert report["failed"] == report["unfinished"] == 0, report["errors"]
    assert report["requests"] == report["answered"] > 20
    assert report["moves"] >= 1
    assert 0 < report["gpus_peak"] <= report["gpu_budget"] == 8
    assert set(report["by_tier"]) == {"low", "medium", "high"}
    assert sum(report["by_tier"].values()) == sum(report["by_class"].values()) == report["answered"]
    assert report["tokens"]["output"] > report["tokens"]["thinking"] > 0
    assert report["demand_source"] == ("Prometheus" if source == "prometheus" else "the router's metrics")
    assert "quickstart" in picture.read_text()
    assert "replica moves" in output


@pytest.mark.contract
@pytest.mark.timeout(BOUND_SECONDS + 120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing_behind(number: signal.Signals, manifests: Path) -> None:
    port = free_port()
    with up(manifests, "--no-load", "--listen", f"127.0.0.1:{port}") as running:
        wait_until_served(port)
        assert len(running.relatives()) >= 8
        running.process.send_signal(number)
        running.finished()
        running.wait_until_nothing_is_left()


@pytest.mark.contract
@pytest.mark.timeout(BOUND_SECONDS + 120)
def test_a_killed_parent_leaves_nothing_behind(manifests: Path) -> None:
    port = free_port()
    with up(manifests, "--listen", f"127.0.0.1:{port}") as running:
        wait_until_served(port)
        running.process.kill()
        running.process.wait()
        running.wait_until_nothing_is_left()


@pytest.fixture
def one_real_pool(tmp_path: Path, real_vllm: vllm.VllmServer, request: pytest.FixtureRequest) -> Path:
    """A pool and a policy for the vLLM and the tiny model that the server of other tests came from."""
    mount = vllm.pod_mount(visible(request.config))
    pool = fleet.pool("low", image="none", vllm=mount, scaling=None, replicas=1)
    pool["spec"]["model"]["name"] = str(mount.model)
    pool["spec"]["engine"] |= {"command": [str(mount.venv / "bin" / "vllm"), "serve"], "pod": {}}
    pool["spec"]["engine"]["env"] = [{"name": name, "value": value} for name, value in vllm.ENVIRONMENT.items()]
    policy = {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "chat", "namespace": fleet.NAMESPACE},
        "spec": {"tiers": [{"name": "low", "poolRef": {"name": "low"}}]},
    }
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "fleet.yaml").write_text(yaml.safe_dump_all([pool, policy]))
    return folder


@pytest.mark.contract
@pytest.mark.timeout(BOUND_SECONDS + 120)
def test_a_pool_that_verifies_runs_beside_the_tiers(manifests: Path, tmp_path: Path) -> None:
    pools = list(yaml.safe_load_all((manifests / "pools.yaml").read_text()))
    judge = {**pools[0], "metadata": {"name": "judge"}}
    judge["spec"] = {k: v for k, v in judge["spec"].items() if k != "scaling"} | {"replicas": 1}
    (manifests / "pools.yaml").write_text(yaml.safe_dump_all([*pools, judge]))
    policy = yaml.safe_load((manifests / "policy.yaml").read_text())
    policy["spec"]["rebalance"]["gpuBudget"][0]["gpus"] = 10
    best = {"type": "BestOfN", "samples": 2, "verifierPoolRef": {"name": "judge"}}
    policy["spec"]["classes"] = [{"name": "math", "tier": "low", "strategy": best}]
    (manifests / "policy.yaml").write_text(yaml.safe_dump(policy))
    report = tmp_path / "report.json"
    with up(manifests, "--for", "10", "--report", str(report), "--listen", "127.0.0.1:0") as running:
        running.finished()
    found = json.loads(report.read_text())
    assert found["failed"] == 0, found["errors"]
    assert found["by_class"]["math"] > 0


@pytest.mark.contract
@pytest.mark.timeout(BOUND_SECONDS + 120)
def test_prompts_are_read_by_a_pool_of_their_own(manifests: Path) -> None:
    small, *others = yaml.safe_load_all((manifests / "pools.yaml").read_text())
    small["spec"] |= {"replicas": 1, "scaling": {"minReplicas": 1, "maxReplicas": 2}}
    roles = {"small": "Decode", "reader": "Prefill"}
    pair = [
        {**small, "metadata": {"name": name}}
        | {"spec": small["spec"] | {"recipe": {"preset": "interactive", "disaggregation": {"role": role}}}}
        for name, role in roles.items()
    ]
    (manifests / "pools.yaml").write_text(yaml.safe_dump_all([*pair, *others]))
    policy = yaml.safe_load((manifests / "policy.yaml").read_text())
    policy["spec"]["tiers"][0]["prefillPoolRef"] = {"name": "reader"}
    (manifests / "policy.yaml").write_text(yaml.safe_dump(policy))
    port = free_port()
    with up(manifests, "--no-load", "--listen", f"127.0.0.1:{port}") as running:
        wait_until_served(port, by=running)
        body = {"model": "auto", "messages": [{"role": "user", "content": "Which season comes after winter?"}]}
        deadline = time.monotonic() + PATIENCE_SECONDS
        said = ""
        while said != "reader":  # the pool that reads may start after the one that answers
            assert time.monotonic() < deadline, said
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions",
                json=body,
                headers={"x-trimtab-tier": "low"},
                trust_env=False,
                timeout=PATIENCE_SECONDS,
            )
            said = answer.headers.get("x-trimtab-prefill", f"HTTP {answer.status_code}")
            time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        assert "low/prefill" in running.finished()
        running.wait_until_nothing_is_left()


@pytest.mark.contract
@pytest.mark.timeout(BOUND_SECONDS + 120)
def test_an_engine_that_cannot_start_ends_everything_with_its_last_words(manifests: Path) -> None:
    pools = list(yaml.safe_load_all((manifests / "pools.yaml").read_text()))
    for pool in pools:
        pool["spec"]["engine"] = {"command": ["sh", "-c", "echo no such device; exit 3"]}
    (manifests / "pools.yaml").write_text(yaml.safe_dump_all(pools))
    with up(manifests, "--engine", "vllm", "--listen", "127.0.0.1:0") as running:
        assert running.process.wait(BOUND_SECONDS) == 1
        assert "ended with 3: no such device" in running.output()
        running.wait_until_nothing_is_left()


@pytest.mark.contract
@pytest.mark.timeout(1800)
def test_the_real_vllm_serves_in_local_mode(one_real_pool: Path) -> None:
    port = free_port()
    with up(one_real_pool, "--engine", "vllm", "--no-load", "--listen", f"127.0.0.1:{port}") as running:
        wait_until_served(port, 600, running)
        running.process.send_signal(signal.SIGINT)
        assert "GPUs: at most 1" in running.finished()
        running.wait_until_nothing_is_left()
