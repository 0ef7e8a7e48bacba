"""`python -m trimtab_crds` writes crds/generated, the chart's copy and docs/crds.md; `--check` only compares."""

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from trimtab_crds.manifests import definitions
from trimtab_crds.reference import reference

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("crds/generated", "charts/trimtab/crds")
REFERENCE = "docs/crds.md"


def generated() -> dict[str, str]:
    """Path below the root of the repository to text."""
    head = "# Generated from crds/trimtab_crds by `python -m trimtab_crds`; do not edit.\n"
    texts = {name: head + yaml.safe_dump(m, sort_keys=False, width=110) for name, m in definitions().items()}
    return {f"{folder}/{name}": text for folder in FOLDERS for name, text in texts.items()} | {REFERENCE: reference()}


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """Exit status 1 when `--check` finds a stale file, 2 where there is no checkout to write into."""
    if not (root / "pyproject.toml").exists():
        sys.stderr.write(f"{root}: not a checkout of Trimtab; `trimtab crds` prints the definitions\n")
        return 2
    check = "--check" in argv
    stale = [path for path, text in generated().items() if not _is(root / path, text)]
    for path in stale:
        if not check:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(generated()[path])
        sys.stdout.write(f"{'stale' if check else 'wrote'}: {path}\n")
    if stale and check:
        sys.stdout.write("run `python -m trimtab_crds` and commit what it writes\n")
    return 1 if stale and check else 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
