"""`trimtab` itself: help, version, unknown commands, missing extras; and the two commands that only print."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml

from support.commands import Trimtab
from trimtab_cli.__main__ import COMMANDS, Command, entry, help_text
from trimtab_cli.errors import UsageError
from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.manifests import definitions


@pytest.fixture
def trimtab(capsys: pytest.CaptureFixture[str]) -> Trimtab:
    return Trimtab(capsys)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_shows_every_command_with_an_example(trimtab: Trimtab, words: list[str]):
    ran = trimtab(*words)
    assert ran.status == 0
    assert ran.out == help_text()
    for name in ("up", "render", "explain", "compile", "router", "engine-sim", "classifier", "crds", "accelerators"):
        assert f"\n  {name} " in ran.out
        assert f"$ trimtab {name} " in ran.out


def test_no_command_is_an_error_with_the_help(trimtab: Trimtab):
    ran = trimtab()
    assert (ran.status, ran.out) == (2, help_text())


def test_help_fits_a_terminal():
    assert max(len(line) for line in help_text().splitlines()) <= 110


def test_version(trimtab: Trimtab):
    assert trimtab("--version").out == f"trimtab {version('trimtab')}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_command_is_there_and_has_help_of_its_own(trimtab: Trimtab, command: Command):
    ran = trimtab(command.name, "--help")
    assert ran.status == 0
    assert f"trimtab {command.name}" in ran.out or command.name == "classifier"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("rendr", "no such command: rendr; did you mean render?"),
        ("engine_sim", "no such command: engine_sim; did you mean engine-sim?"),
        ("xyzzy", "no such command: xyzzy; `trimtab --help` lists them"),
    ],
)
def test_an_unknown_command_gets_a_hint(trimtab: Trimtab, word: str, hint: str):
    assert trimtab.refused(word) == hint


def test_a_missing_module_names_the_extra():
    command = Command("router", "", "", "no_such_module_of_an_extra", "router")
    with pytest.raises(UsageError) as refused:
        entry(command)
    assert str(refused.value) == ("router needs the module no_such_module_of_an_extra: pip install 'trimtab[router]'")


def test_a_missing_module_of_our_own_is_a_fault_and_not_the_users():
    with pytest.raises(ModuleNotFoundError):
        entry(Command("broken", "", "", "trimtab_cli.no_such_module"))


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from trimtab_cli.__main__ import main; main(['--help']); "
        "print(sorted({'pydantic', 'yaml', 'rich', 'httpx', 'numpy', 'kopf', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from trimtab_cli.__main__ import main; sys.exit(main(['crds']))"
    command = f'"{sys.executable}" -c "{code}" | head -1; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_crds_prints_both_definitions(trimtab: Trimtab):
    ran = trimtab("crds")
    assert ran.status == 0
    assert list(yaml.safe_load_all(ran.out)) == list(definitions().values())


def test_accelerators_as_json(trimtab: Trimtab):
    listed = json.loads(trimtab("accelerators", "-o", "json").out)
    assert [a["name"] for a in listed] == list(CATALOGUE)
    h100 = next(a for a in listed if a["name"] == "nvidia-h100-80gb")
    assert h100["compute_capability"] == "9.0"
    assert h100["memory_gib"] == CATALOGUE["nvidia-h100-80gb"].memory_gib
    assert h100["bandwidth"] == 3350
    assert h100["labels"]["cloud.google.com/gke-accelerator"] == "nvidia-h100-80gb"


def test_accelerators_as_a_table(trimtab: Trimtab):
    out = trimtab("accelerators").out
    assert all(name in out for name in CATALOGUE)
    assert "cloud.google.com/gke-accelerator=nvidia-h100-80gb" in out


def test_a_wrong_option_is_said_by_argparse(trimtab: Trimtab):
    ran = trimtab("accelerators", "-o", "xml")
    assert ran.status == 2
    assert "invalid choice: 'xml'" in ran.err
