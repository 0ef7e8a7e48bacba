"""What the documentation names is there, and what it should explain it does."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from trimtab_cli.__main__ import COMMANDS
from trimtab_crds.manifests import definitions
from trimtab_operator.core.rebalance import Limit

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = "crds|operator|router|cli|charts|tests|e2e|docs|examples|scripts|benchmarks|requirements"
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


@pages
def test_links_lead_to_files(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pages
def test_links_within_a_page_lead_to_headings(page: Path):
    text = page.read_text()
    headings = [
        re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    ]
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(headings)


@pages
def test_paths_of_the_repository_exist(page: Path):
    for path in re.findall(rf"`((?:{FOLDERS})/[A-Za-z0-9_./-]+)`", page.read_text()):
        assert (ROOT / path).exists() or list((ROOT / path).parent.glob(f"{Path(path).name}*")), path


@pages
def test_commands_exist(page: Path):
    text = page.read_text()
    known = {c.name for c in COMMANDS}
    assert set(re.findall(r"(?:^    |`|\| )trimtab ([a-z][a-z-]*)", text, re.MULTILINE)) <= known
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets


@pages
def test_notes_that_are_named_exist(page: Path):
    for number in re.findall(r"docs/decisions/(\d{4})", page.read_text()):
        assert list((ROOT / "docs" / "decisions").glob(f"{number}-*.md")), number


def test_the_architecture_names_every_package_in_its_table():
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("## Where to find what") :]
    named = re.findall(r"`([^`]+/[^`]+)`", table)
    assert len(named) >= 40
    assert [path for path in named if not (ROOT / path).exists()] == []
    for package in ("crds/trimtab_crds", "operator/trimtab_operator", "router/trimtab_router", "cli/trimtab_cli"):
        assert any(path.startswith(package) for path in named)


def reasons_in_code() -> set[str]:
    """Reasons of conditions, as the operator's source has them."""
    text = "".join(p.read_text() for p in (ROOT / "operator").rglob("*.py"))
    patterns = (r'Fact\([^)]*reason="([A-Z]\w+)"', r'Problem\(\s*"([A-Z]\w+)"', r'return "([A-Z]\w+)", f?"')
    return {reason for pattern in patterns for reason in re.findall(pattern, text)}


def test_every_reason_of_a_condition_is_explained():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    reasons = reasons_in_code()
    assert {"SpecInvalid", "RecipeRefused", "BudgetTooSmall", "DemandUnknown"} <= reasons
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()


def test_every_limit_of_a_tier_is_explained():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    schema = definitions()["routingpolicies.trimtab.dev.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    tiers = schema["properties"]["status"]["properties"]["tiers"]["items"]["properties"]
    for limit in (str(limit) for limit in Limit if limit):
        assert f"`{limit}`" in text
        assert limit in tiers["limitedBy"]["description"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_examples_in_the_help_name_files_that_exist_or_are_made(command):
    for word in shlex.split(command.example.replace("|", " ")):
        if word.startswith("examples/"):
            assert (ROOT / word).exists()


def test_decisions_are_short_and_have_their_four_parts():
    for note in (ROOT / "docs" / "decisions").glob("*.md"):
        text = note.read_text()
        assert note.name[:4] in text.splitlines()[0], note.name
        assert len(text.splitlines()) <= 60, note.name
        for part in ("Problem", "Choice", "Alternatives", "Consequence"):
            assert re.search(part, text, re.IGNORECASE), f"{note.name}: {part}"


def test_every_doc_is_reachable_from_the_readme():
    text = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name


def test_no_page_names_what_git_does_not_keep():
    done = subprocess.run(["git", "check-ignore", "--", *map(str, PAGES)], cwd=ROOT, capture_output=True, check=False)
    assert done.stdout == b""
