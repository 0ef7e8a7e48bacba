"""An image of this checkout, without Docker: Debian's Python, the locked dependencies, the project's wheel.

One image serves operator, router and simulated engine. The layers below the project's own are cached outside
the clone by what goes into them; between two runs only the top one is made anew.
"""

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from testcluster.commands import run_logged
from testcluster.errors import UnavailableError
from testcluster.images import Image, Layer, as_layer, pack
from testcluster.locking import exclusive
from testcluster.paths import ROOT, cache_home
from testcluster.progress import Progress

# vLLM asks lscpu of util-linux; the libraries are what it and onnxruntime load; the rest is for who looks inside.
PACKAGES = ("python3", "ca-certificates", "dash", "coreutils", "util-linux", "libgomp1", "libnuma1", "libstdc++6")
LOCKS = tuple(ROOT / "requirements" / name for name in ("operator.txt", "router.txt"))
COMMAND = """\
#!/usr/bin/python3
import sys

from {module} import {function}

if __name__ == "__main__":
    sys.exit({function}())
"""
USER = "1000:1000"
RECIPE_VERSION = "1"
DROPPED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")


def checkout_image(name: str, progress: Progress) -> Image:
    """The image of the checkout as it is now. Runs as uid 1000; needs no writable root file system."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise UnavailableError("images are made from Debian packages, and apt-get or dpkg-deb is missing here")
    folder = cache_home() / "images"
    with exclusive(folder / ".lock", "the image's layers", progress):
        base, version = debian_layer(folder, progress)
        dependencies = dependency_layer(folder, version, progress)
        project = project_layer(folder, version, progress)
    environment = ["PYTHONUNBUFFERED=1", "HOME=/tmp"]
    paths = "PATH=/usr/local/bin:/usr/bin:/bin"
    config = {"User": USER, "WorkingDir": "/tmp", "Env": [paths, *environment], "Cmd": ["trimtab", "--help"]}
    return Image(name, (base, dependencies, project), config)


def debian_layer(folder: Path, progress: Progress) -> tuple[Layer, str]:
    """The root file system of Debian packages, and its Python's version such as 3.11."""
    listed = package_files(progress)
    key = hashlib.sha256("\n".join((RECIPE_VERSION, *listed)).encode()).hexdigest()[:16]
    tar_path = folder / f"debian-{key}.tar"
    if not tar_path.exists():
        progress(f"making the image's base of {len(listed)} Debian packages")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            root = Path(scratch, "root")
            unpack_packages(root, Path(scratch, "debs"), folder / "debian.log", progress)
            compile_python(root / "usr/lib", python_version(listed), "/usr/lib")
            pack(root, tar_path)
        _forget_older(folder, "debian-*.tar", tar_path)
    return as_layer(tar_path), python_version(listed)


def package_files(progress: Progress) -> list[str]:
    """The package files that apt would take, as if nothing were installed: names carry the versions."""
    argv = [*_apt(Path("/nonexistent")), "--print-uris", "install", *PACKAGES]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    found = sorted(re.findall(r"\S+_\S+\.deb", re.sub(r"'[^']*'", "", answer.stdout)))
    if found:
        return found
    log = cache_home() / "images" / "apt-update.log"
    run_logged(["apt-get", "-qq", "update"], log=log, what="apt-get update", progress=progress)
    answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    found = sorted(re.findall(r"\S+_\S+\.deb", re.sub(r"'[^']*'", "", answer.stdout)))
    if not found:
        raise UnavailableError(f"apt-get names no packages for the image: {answer.stderr.strip()}")
    return found


def _apt(archives: Path) -> list[str]:
    return [
        "apt-get",
        "-qq",
        "-y",
        "--no-install-recommends",
        "-oDir::State::Status=/dev/null",
        f"-oDir::Cache::archives={archives}",
        "-oAPT::Sandbox::User=root",
    ]


def python_version(listed: Sequence[str]) -> str:
    """The minor version of the Python among the packages' files."""
    for name in listed:
        if found := re.match(r"python(3\.\d+)-minimal_", name):
            return found.group(1)
    raise UnavailableError("Debian's python3 brings no python3.N-minimal: the image's Python is unknown")


def unpack_packages(root: Path, archives: Path, log: Path, progress: Progress) -> None:
    """Unpack the packages into `root` without running their scripts."""
    for name in ("bin", "sbin", "lib", "lib64"):  # merged /usr, before any package
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("etc", "proc", "sys", "dev", "run", "root", "var/tmp", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (archives / "partial").mkdir(parents=True)
    argv = [*_apt(archives), "--download-only", "install", *PACKAGES]
    run_logged(argv, log=log, what="download of Debian packages", progress=progress)
    for package in sorted(archives.glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as source:
            extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
            subprocess.run(extract, stdin=source.stdout, check=True, timeout=120)
    _finish_root(root)


def _finish_root(root: Path) -> None:
    """What the packages' scripts would have done."""
    if not (root / "bin" / "sh").exists():
        (root / "bin" / "sh").symlink_to("dash")
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\ntrimtab:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\ntrimtab:x:1000:\n")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(c.read_text() for c in certificates))
    for name in DROPPED:
        shutil.rmtree(root / name, ignore_errors=True)


def dependency_layer(folder: Path, version: str, progress: Progress) -> Layer:
    """The locked dependencies of operator and router for the image's Python."""
    content = "".join((RECIPE_VERSION, version, *(lock.read_text() for lock in LOCKS)))
    tar_path = folder / f"dependencies-{hashlib.sha256(content.encode()).hexdigest()[:16]}.tar"
    if not tar_path.exists():
        progress("installing the locked dependencies for the image")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            root = Path(scratch)
            target = root / packages_folder(version)
            _pip_install(target, version, folder / "dependencies.log", progress)
            shutil.rmtree(target / "bin", ignore_errors=True)  # their commands name this machine's Python
            compile_python(target, version, f"/{packages_folder(version)}")
            pack(root, tar_path)
        _forget_older(folder, "dependencies-*.tar", tar_path)
    return as_layer(tar_path)


def _pip_install(target: Path, version: str, log: Path, progress: Progress) -> None:
    uv = [str(Path(sys.prefix, "bin", "uv")), "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    place = ["--target", str(target), "--python-version", version, "--only-binary", ":all:"]
    locks = [word for lock in LOCKS for word in ("-r", str(lock))]
    run_logged([*uv, *place, *locks], log=log, what="uv pip install for the image", progress=progress)


def project_layer(folder: Path, version: str, progress: Progress) -> Layer:
    """The project's wheel, unpacked, with its commands."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheels, root = Path(scratch, "wheel"), Path(scratch, "root")
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        run_logged(build, log=folder / "wheel.log", what="the project's wheel", progress=progress, cwd=ROOT)
        target = root / packages_folder(version)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(target)
        write_commands(target, root / "usr/local/bin")
        compile_python(target, version, f"/{packages_folder(version)}")
        return pack(root, folder / "project.tar")


def packages_folder(version: str) -> str:
    """Where Debian's Python looks for packages that are not Debian's."""
    return f"usr/local/lib/python{version}/dist-packages"


def write_commands(packages: Path, folder: Path) -> None:
    """The console scripts of a wheel, for the image's Python."""
    folder.mkdir(parents=True, exist_ok=True)
    parsed = configparser.ConfigParser()
    parsed.read(next(packages.glob("trimtab-*.dist-info/entry_points.txt")))
    for name, target in parsed["console_scripts"].items():
        module, function = target.split(":")
        script = folder / name
        script.write_text(COMMAND.format(module=module, function=function))
        script.chmod(0o755)


def compile_python(folder: Path, version: str, place: str) -> None:
    """Compile to byte code for `place` inside the image, where a Python of the image's version is at hand.

    The root file system is read-only there: without it every start compiles everything anew.
    """
    python = next((p for p in (sys.executable, f"/usr/bin/python{version}") if _is_python(p, version)), None)
    if python:
        flags = ["-q", "-j2", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", place]
        # Its status also tells of files that are not meant to be compiled: templates, tests of syntax errors.
        subprocess.run(
            [python, "-m", "compileall", *flags, str(folder)], check=False, stdout=subprocess.DEVNULL, timeout=600
        )


def _is_python(program: str, version: str) -> bool:
    if program == sys.executable:
        return version == f"{sys.version_info.major}.{sys.version_info.minor}"
    return os.access(program, os.X_OK)


def _forget_older(folder: Path, pattern: str, keep: Path) -> None:
    for path in folder.glob(pattern):
        if path != keep:
            path.unlink()
