"""The command line of one replica, from the same resolved flags that Kubernetes would run."""

import shutil
import sys
from collections.abc import Sequence

from trimtab_cli.errors import UsageError
from trimtab_cli.local.options import Options
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.recipe import resolve

HOST = "127.0.0.1"


def engine_command(pool: InferencePool, options: Options, port: int) -> list[str]:
    """What to start; UsageError when the recipe is refused or vLLM is not installed."""
    resolution = resolve(pool)
    if not resolution.accepted:
        raise UsageError(f"InferencePool {pool.metadata.name}: {'; '.join(resolution.reasons)}")
    nodes = pool.spec.accelerator.nodes
    if options.engine == "vllm" and nodes > 1:
        raise UsageError(
            f"--engine vllm: accelerator.nodes {nodes} of pool {pool.metadata.name} needs as many machines, and "
            "this is one; set it to 1, or leave --engine sim"
        )
    flags = _with(_with(resolution.flags, "--host", HOST), "--port", str(port))
    if options.engine == "vllm":
        return [*_vllm(pool), pool.spec.model.name, *flags]
    return [sys.executable, "-m", "trimtab_cli.engine_sim", pool.spec.model.name, *flags, *_simulation(pool, options)]


def _with(flags: Sequence[str], name: str, value: str) -> list[str]:
    """The flags with this one set to another value."""
    at = list(flags).index(name)
    return [*flags[: at + 1], value, *flags[at + 2 :]]


def _vllm(pool: InferencePool) -> list[str]:
    command = list(pool.spec.engine.command)
    if shutil.which(command[0]) is None:
        raise UsageError(
            f"--engine vllm: {command[0]} of pool {pool.metadata.name} is not installed here; "
            "pip install vllm, or leave --engine sim"
        )
    return command


def _simulation(pool: InferencePool, options: Options) -> list[str]:
    spec = pool.spec
    flags = ["--sim-accelerator", spec.accelerator.name, "--sim-gpus", str(spec.accelerator.count)]
    if spec.model.shape is not None:
        flags += ["--sim-shape", spec.model.shape.model_dump_json(by_alias=True, exclude_none=True)]
    flags += ["--sim-time-scale", str(options.time_scale), "--sim-startup-seconds", str(options.startup_seconds)]
    return flags
