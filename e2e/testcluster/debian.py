"""Debian packages that a part needs on the machine itself."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from testcluster.commands import run_logged
from testcluster.errors import UnavailableError
from testcluster.paths import cache_home
from testcluster.progress import Progress

PROGRAM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def ensure_programs(packages: Mapping[str, str], progress: Progress) -> None:
    """Install the packages (program or file -> package) whose program is missing; needs root and apt-get."""
    absent = sorted({package for program, package in packages.items() if not _present(program)})
    if not absent:
        return
    command = f"apt-get install --no-install-recommends {' '.join(absent)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise UnavailableError(f"missing on this machine: {', '.join(absent)}; install them with `{command}`")
    progress(f"installing {', '.join(absent)} with apt-get")
    install(absent, progress)


def install(packages: list[str], progress: Progress) -> None:
    """apt-get install, after an update where the lists are empty or too old to resolve the names."""
    argv = ["apt-get", "-qq", "-y", "-oDPkg::Lock::Timeout=300", "--no-install-recommends", "install", *packages]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    quick = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=600)
    if quick.returncode == 0:
        return
    cache_home().mkdir(parents=True, exist_ok=True)
    log = cache_home() / "apt.log"
    run_logged(["apt-get", "-qq", "update"], log=log, what="apt-get update", progress=progress, env=env)
    run_logged(argv, log=log, what=f"apt-get install {' '.join(packages)}", progress=progress, env=env)


def _present(program: str) -> bool:
    return Path(program).exists() if "/" in program else bool(shutil.which(program, path=PROGRAM_PATH))
