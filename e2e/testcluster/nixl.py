"""NIXL beside the locked vLLM: with it two real engines on this machine's CPU hand their caches over (UCX over TCP)."""

import shutil
from pathlib import Path

from testcluster import vllm
from testcluster.commands import run_logged
from testcluster.locking import exclusive
from testcluster.paths import cache_home
from testcluster.progress import Progress

VARIABLE = "TRIMTAB_NIXL"
#: NIXL and its library for the CUDA that vLLM's torch was made for; it runs without one, too.
PACKAGES = ("nixl==1.5.1", "nixl-cu13==1.5.1")


def install(progress: Progress) -> Path:
    """The folder of the packages, for PYTHONPATH: 200 MB, once."""
    target = cache_home() / f"{PACKAGES[0].replace('==', '-')}"
    venv = vllm.install(progress)
    with exclusive(cache_home() / ".nixl-lock", "NIXL's installation", progress):
        if not target.exists():
            new = target.with_name(target.name + ".new")
            shutil.rmtree(new, ignore_errors=True)
            argv = [vllm.uv(), "pip", "install", "-q", "--no-deps", "--python", str(venv / "bin" / "python")]
            run_logged(
                [*argv, "--target", str(new), *PACKAGES],
                log=cache_home() / "nixl-install.log",
                what="NIXL from the package index",
                progress=progress,
                timeout_seconds=900,
            )
            new.replace(target)
    return target


def environment(packages: Path, side_channel: int) -> dict[str, str]:
    """What an engine with the connector needs beside its flags."""
    return {
        "PYTHONPATH": str(packages),
        "UCX_TLS": "tcp,sm,self",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(side_channel),
    }
