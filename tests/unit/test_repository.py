"""What holds of the repository as a whole: layout, import contracts, and files that fit any machine."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_FOLDERS = ("crds", "operator", "router", "cli")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def files_of_the_repository() -> list[Path]:
    """What a clone has: tracked files and those about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.splitlines()
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


# -- the standard library's `operator` --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-c", "import operator; print(operator.__file__)"], id="python -c"),
        pytest.param(["-m", "trimtab_crds", "--check"], id="python -m"),
        pytest.param(["-m", "pytest", "--version"], id="python -m pytest"),
    ],
)
def test_a_program_started_in_the_root_gets_the_standard_librarys_operator(arguments: list[str]):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if arguments[0] == "-c":
        assert ROOT not in Path(done.stdout.strip()).parents


def test_pytest_has_not_replaced_operator():
    import operator

    assert ROOT not in Path(operator.__file__).parents
    assert operator.itemgetter(1)((0, 7)) == 7


@pytest.mark.parametrize("folder", PACKAGE_FOLDERS)
def test_no_module_lies_directly_in_a_package_folder(folder: str):
    assert [p.name for p in (ROOT / folder).glob("*.py")] == []


@pytest.mark.parametrize("folder", ["benchmarks", "scripts"])
def test_no_script_hides_a_module_of_the_standard_library_from_its_neighbours(folder: str):
    """The folder of a script that is run comes first in `sys.path`."""
    assert {p.stem for p in (ROOT / folder).glob("*.py")} & sys.stdlib_module_names == set()


@pytest.mark.parametrize("folder", PACKAGE_FOLDERS)
def test_no_test_lies_beside_the_code(folder: str):
    names = [p.name for p in (ROOT / folder).rglob("*.py")]
    assert [n for n in names if n == "conftest.py" or n.startswith("test_") or n.endswith("_test.py")] == []


@pytest.mark.parametrize("folder", ["tests", "e2e"])
def test_tests_are_namespace_packages_with_names_of_their_own(folder: str):
    assert list((ROOT / folder).rglob("__init__.py")) == []
    names = Counter(p.name for where in ("tests", "e2e") for p in (ROOT / where).rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


# -- contracts --------------------------------------------------------------------------------------------


def test_the_import_contracts_are_kept():
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_typed_and_under_the_contracts():
    packages = {Path(p).name for p in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages == set(PYPROJECT["tool"]["importlinter"]["root_packages"])
    assert packages <= set(PYPROJECT["tool"]["mypy"]["packages"])
    for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").exists()


# -- the lock ---------------------------------------------------------------------------------------------


def locked(path: Path) -> dict[str, set[str]]:
    """Package to its locked versions: with markers there may be two of one."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name.lower().replace("_", "-"), set()).add(version)
    return found


def wanted(*extras: str) -> list[Requirement]:
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("dev.txt", ("operator", "router", "train", "dev")),
        ("operator.txt", ("operator",)),
        ("router.txt", ("router",)),
        ("router-gpu.txt", ("router-gpu",)),
    ],
)
def test_the_lock_fits_pyproject(lock: str, extras: tuple[str, ...]):
    versions = locked(ROOT / "requirements" / lock)
    for requirement in wanted(*extras):
        found = versions.get(requirement.name.lower().replace("_", "-"), set())
        assert any(requirement.specifier.contains(v) for v in found), f"{requirement} in {lock}: {found}; scripts/lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.name)
def test_every_locked_package_has_a_hash(lock: Path):
    entries = re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE))
    assert entries
    assert [e.split()[0] for e in entries if e.strip() and "--hash=sha256:" not in e] == []


CONFIGURATION = ("pyproject.toml", "Makefile", ".gitignore")
CONFIGURATION_FOLDERS = ("requirements/", "scripts/", ".ci/", "e2e/", "charts/", "examples/")
REGISTRY = re.compile(
    r"https?://[^\s\"']*(pypi|simple|artifactory|nexus|registry|proxy\.golang|goproxy)|--(extra-)?index-url|--find-links"
    r"|GOPROXY=(?!off|direct)|PIP_INDEX_URL=|UV_(DEFAULT_)?INDEX=",
    re.IGNORECASE,
)


def test_no_lock_or_configuration_names_the_address_of_a_registry():
    for path in files_of_the_repository():
        name = path.relative_to(ROOT).as_posix()
        if name in CONFIGURATION or name.startswith(CONFIGURATION_FOLDERS):
            found = REGISTRY.search(text_of(path))
            assert not found, f"{name}: {found and found.group()}"


MACHINES = re.compile(r"/work/(main|shared|\.lib)|/root/|/Users/[a-z]|/tmp/(brief|cpref)")


def test_no_file_names_a_path_of_one_machine():
    for path in set(files_of_the_repository()) - {Path(__file__).resolve()}:
        found = MACHINES.search(text_of(path))
        assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"


# -- what the distribution says of itself -----------------------------------------------------------------


def test_the_installed_distribution_is_this_one():
    assert importlib.metadata.version("trimtab") == PYPROJECT["project"]["version"]


def test_the_version_is_the_newest_of_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert len(versions) == 1 or versions[1] == PYPROJECT["project"]["version"]


def test_every_make_target_is_in_its_help():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in set(phony.group(1).split()):
        assert f"make {target} " in helped, target


@pytest.mark.parametrize("target", ["setup", "check", "unit", "test", "e2e", "demo", "bench"])
def test_the_scripts_that_targets_call_exist(target: str):
    recipe = subprocess.run(["make", "-n", "-B", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    called = set(re.findall(r"\bscripts/[a-z0-9_.-]+", recipe))
    assert [s for s in called if not (ROOT / s).exists()] == []
