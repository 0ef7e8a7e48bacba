"""What `trimtab up` checks before it starts anything."""

import json
import socket
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from support.manifests import policy_manifest, pool_manifest, shape
from trimtab_cli.errors import UsageError
from trimtab_cli.local.commands import engine_command
from trimtab_cli.local.inputs import Inputs, read_inputs
from trimtab_cli.local.options import Address, Options
from trimtab_cli.local.ports import claim, free_port
from trimtab_cli.local.prometheus import find_prometheus
from trimtab_crds.inferencepool import InferencePool

REBALANCE = {"mode": "Apply", "gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": 4}]}
FITTING = {"spec__model__contextTokens": 8192, "spec__model__shape": shape()}


def folder_with(tmp_path: Path, *manifests: dict[str, Any]) -> str:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(manifests))
    return str(folder)


def whole(**policy: Any) -> tuple[dict[str, Any], ...]:
    """A policy and its pools."""
    low, high = pool_manifest("low", **FITTING), pool_manifest("high", **FITTING)
    return low, high, policy_manifest(**{"spec__rebalance": REBALANCE} | policy)


def read(folder: str, **options: Any) -> Inputs:
    return read_inputs(Options(files=(folder,), listen=Address("127.0.0.1", 0), prometheus="embedded", **options))


def test_policy_pools_and_address(tmp_path: Path) -> None:
    inputs = read(folder_with(tmp_path, *whole(), pool_manifest("unused")))
    assert inputs.policy.key == "default/chat"
    assert list(inputs.pools) == ["low", "high"]
    assert inputs.budgets == {"nvidia-l4-24gb": 4}
    assert inputs.listen.port > 0
    assert inputs.prometheus is None


def test_the_pool_that_verifies_runs_too(tmp_path: Path) -> None:
    judged = {"type": "BestOfN", "verifierPoolRef": {"name": "judge"}}
    policy = {"spec__classes": [{"name": "math", "tier": "high", "strategy": judged}]}
    inputs = read(folder_with(tmp_path, *whole(**policy), pool_manifest("judge", **FITTING)))
    assert list(inputs.pools) == ["low", "high", "judge"]


@pytest.mark.parametrize(
    ("manifests", "message"),
    [
        pytest.param((pool_manifest("low", **FITTING),), "no RoutingPolicy; add one", id="no-policy"),
        pytest.param(
            (policy_manifest(),),
            "RoutingPolicy chat: tiers[0].poolRef.name low is not an InferencePool of namespace default",
            id="no-pool",
        ),
        pytest.param(
            whole(spec__rebalance={"mode": "Apply", "gpuBudget": [{"accelerator": "nvidia-t4-16gb", "gpus": 4}]}),
            "rebalance.gpuBudget has no entry for accelerator nvidia-l4-24gb",
            id="no-budget",
        ),
        pytest.param(
            whole(spec__rebalance={"mode": "Apply", "gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": 1}]}),
            "spec.rebalance.gpuBudget[nvidia-l4-24gb].gpus 1 is below the 2 GPUs that the pools need at least",
            id="budget-too-small",
        ),
        pytest.param(
            (pool_manifest("low", **FITTING), pool_manifest("high", spec__model__shape=shape()), whole()[2]),
            "InferencePool high: model.contextTokens 32768 does not fit",
            id="refused-recipe",
        ),
    ],
)
def test_bad_manifests_are_refused_before_the_start(
    tmp_path: Path, manifests: tuple[dict[str, Any], ...], message: str
) -> None:
    folder = folder_with(tmp_path, *manifests)
    with pytest.raises(UsageError) as caught:
        read(folder)
    assert message in str(caught.value)


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no/such: no such file or folder"):
        read("no/such")


@pytest.mark.parametrize("option", ["report", "svg"])
def test_a_file_that_could_not_be_written_is_named(tmp_path: Path, option: str) -> None:
    folder = folder_with(tmp_path, *whole())
    with pytest.raises(UsageError, match=f"--{option} .*there is no folder"):
        read(folder, **{option: tmp_path / "missing" / "file"})


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(UsageError) as caught:
            claim(address)
    assert str(caught.value) == (
        f"--listen {address}: something listens there already; choose another, such as --listen 127.0.0.1:0"
    )


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(UsageError, match=r"--listen 192\.0\.2\.1:8080: "):
        claim(Address("192.0.2.1", 8080))


def command(**options: Any) -> list[str]:
    pool = InferencePool.model_validate(
        pool_manifest("low", **FITTING, spec__engine__command=["vllm-of-tests", "serve"])
    )
    return engine_command(pool, Options(files=(), **options), 1234)


def test_real_engines_must_be_installed() -> None:
    with pytest.raises(UsageError) as caught:
        command(engine="vllm")
    assert str(caught.value) == (
        "--engine vllm: vllm-of-tests of pool low is not installed here; pip install vllm, or leave --engine sim"
    )


def test_real_engines_run_the_pools_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vllm-of-tests"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    argv = command(engine="vllm")
    assert argv[:3] == ["vllm-of-tests", "serve", "Qwen/Qwen3-8B"]
    assert not [word for word in argv if word.startswith("--sim")]


def test_a_replica_on_several_nodes_is_for_several_machines() -> None:
    changes = {"spec__accelerator": {"name": "nvidia-l4-24gb", "count": 4, "nodes": 2}, "spec__model__shape": shape()}
    wide = InferencePool.model_validate(pool_manifest("wide", **changes))
    assert "--nnodes" in engine_command(wide, Options(files=()), 1234)
    with pytest.raises(UsageError, match=r"accelerator\.nodes 2 of pool wide needs as many machines"):
        engine_command(wide, Options(files=(), engine="vllm"), 1234)


def test_simulated_engines_know_gpu_shape_and_time() -> None:
    defaults = {"experts": 0, "latentAttention": False, "windowTokens": 0, "float16Overflows": False}
    argv = command(time_scale=5.0, startup_seconds=2.0)
    flags = dict(zip(argv[-10::2], argv[-9::2], strict=True))
    assert flags == {
        "--sim-accelerator": "nvidia-l4-24gb",
        "--sim-gpus": "1",
        "--sim-shape": json.dumps(shape() | defaults, separators=(",", ":")),
        "--sim-time-scale": "5.0",
        "--sim-startup-seconds": "2.0",
    }


def test_prometheus_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "prometheus"
    program.touch(0o755)
    monkeypatch.delenv("TRIMTAB_PROMETHEUS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_prometheus("auto") == program
    assert find_prometheus(str(program)) == program
    assert find_prometheus("embedded") is None


def test_prometheus_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_PROMETHEUS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_prometheus("auto") is None


def test_the_environment_names_a_prometheus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "elsewhere"
    program.touch(0o755)
    monkeypatch.setenv("TRIMTAB_PROMETHEUS", str(program))
    assert find_prometheus("auto") == program


def test_a_prometheus_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="--prometheus /no/such: no such program; give its path, or `embedded`"):
        find_prometheus("/no/such")


KEYED = {"spec__tenants": [{"name": "acme", "apiKeys": {"secretRef": {"name": "acme-keys"}}}]}


def test_the_load_has_a_key_of_a_tenant(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *whole(**KEYED))
    (tmp_path / "keys" / "acme").mkdir(parents=True)
    (tmp_path / "keys" / "acme" / "ci").write_text("a-key-of-acme-0123\n")
    inputs = read(folder, keys=tmp_path / "keys")
    assert inputs.load_key == "a-key-of-acme-0123"
    assert "0123" not in repr(inputs)
    assert read(folder, keys=tmp_path / "keys", load=False).load_key == ""


def test_a_policy_that_takes_requests_without_a_key_gives_the_load_none(tmp_path: Path) -> None:
    tenants = [{"name": "default"}, *KEYED["spec__tenants"]]
    assert read(folder_with(tmp_path, *whole(spec__tenants=tenants)), keys=tmp_path).load_key == ""


def test_missing_keys_are_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *whole(**KEYED))
    message = "--keys: tenants with apiKeys need a folder of keys: give --keys DIR, where every file of DIR/acme holds"
    with pytest.raises(UsageError, match=message):
        read(folder)
    with pytest.raises(UsageError, match=f"--keys {tmp_path}/nope: tenants with apiKeys need a folder"):
        read(folder, keys=tmp_path / "nope")
    with pytest.raises(UsageError, match=f"no key in {tmp_path}/acme, and the built-in load needs one"):
        read(folder, keys=tmp_path)


def test_no_port_is_given_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([50001, 50001, 50001, 50002])

    class Probe:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def bind(self, _: object) -> None:
            self.port = next(offered)

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", self.port

    monkeypatch.setattr("socket.socket", lambda *_: Probe())
    assert [free_port(), free_port()] == [50001, 50002]
