"""What the user gave, checked before anything is started."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab_cli.errors import UsageError
from trimtab_cli.files import only_policy, read_valid_resources
from trimtab_cli.local.commands import engine_command
from trimtab_cli.local.options import Address, Options
from trimtab_cli.local.ports import claim
from trimtab_cli.local.prometheus import find_prometheus
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import SpecInvalid
from trimtab_crds.planning import DEFAULT_TENANT
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core.fleet import pool_state
from trimtab_operator.core.observation import Observation, ObservedPool, fleet_of
from trimtab_operator.core.rebalance import plan
from trimtab_operator.core.routerconfig import compile_config, unbudgeted


@dataclass(frozen=True, slots=True)
class Inputs:
    """One policy, the pools that its router asks, and where things are. `prometheus` None is the embedded source."""

    policy: RoutingPolicy
    pools: Mapping[str, InferencePool]
    listen: Address
    prometheus: Path | None
    load_key: str = field(default="", repr=False)
    """API key of the built-in load; empty where it needs none."""

    @property
    def budgets(self) -> dict[str, int]:
        """GPUs by accelerator."""
        return {budget.accelerator: budget.gpus for budget in self.policy.spec.rebalance.gpu_budget}


def read_inputs(options: Options) -> Inputs:
    """Everything that can be known to be wrong before the start; UsageError says what and how to mend it."""
    resources = read_valid_resources(options.files)
    policy = only_policy(resources, options.files)
    everything = resources.pools_of(policy.metadata.namespace)
    try:
        compile_config(policy, everything, {})
    except SpecInvalid as invalid:
        raise UsageError(f"RoutingPolicy {policy.metadata.name}: {invalid}") from None
    if problems := unbudgeted(policy, everything):
        raise UsageError(f"RoutingPolicy {policy.metadata.name}: {'; '.join(problems)}")
    pools = {name: everything[name] for name in policy.pool_names}
    _check_budget(policy, pools)
    for pool in pools.values():
        engine_command(pool, options, port=0)
    for name, path in (("--report", options.report), ("--svg", options.svg)):
        if path is not None and not path.parent.is_dir():
            raise UsageError(f"{name} {path}: there is no folder {path.parent}; create it or name another file")
    key = _load_key(policy, options)
    return Inputs(policy, pools, claim(options.listen), find_prometheus(options.prometheus), key)


def _load_key(policy: RoutingPolicy, options: Options) -> str:
    """A key that the built-in load may use: none where a tenant takes requests without."""
    keyed = [tenant.name for tenant in policy.spec.tenants if tenant.api_keys is not None]
    if not keyed:
        return ""
    if options.keys is None or not options.keys.is_dir():
        given = "--keys" if options.keys is None else f"--keys {options.keys}"
        raise UsageError(
            f"{given}: tenants with apiKeys need a folder of keys: give --keys DIR, where every file of DIR/{keyed[0]} "
            "holds a key of that tenant"
        )
    if not options.load or any(t.name == DEFAULT_TENANT and t.api_keys is None for t in policy.spec.tenants):
        return ""
    for file in sorted(path for name in keyed for path in (options.keys / name).glob("*") if path.is_file()):
        return file.read_text(encoding="utf-8", errors="replace").strip()
    raise UsageError(
        f"--keys {options.keys}: no key in {options.keys / keyed[0]}, and the built-in load needs one; write one to a "
        "file there, or give --no-load"
    )


def _check_budget(policy: RoutingPolicy, pools: Mapping[str, InferencePool]) -> None:
    """The budget must hold the pools' minimum, else some would never start."""
    nothing = {
        name: ObservedPool(pool, pool_state(pool, desired=0, ready=0, starting=0, draining=0))
        for name, pool in pools.items()
    }
    problem = plan(fleet_of(Observation(policy, nothing), {}), now=0).problem
    if problem is not None:
        raise UsageError(f"RoutingPolicy {policy.metadata.name}: {problem.message}")
