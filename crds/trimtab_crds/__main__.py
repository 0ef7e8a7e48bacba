"""`python -m trimtab_crds` writes crds/generated and the chart's copy; `--check` only compares."""

import sys
from pathlib import Path

import yaml

from trimtab_crds.manifests import definitions

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "crds" / "generated", ROOT / "charts" / "trimtab" / "crds")


def render() -> dict[str, str]:
    """File name to YAML text."""
    head = "# Generated from crds/trimtab_crds by `python -m trimtab_crds`; do not edit.\n"
    return {name: head + yaml.safe_dump(m, sort_keys=False, width=110) for name, m in definitions().items()}


def main(argv: list[str]) -> int:
    """Exit status 1 when `--check` finds a stale file."""
    stale: list[Path] = []
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in render().items():
            path = folder / name
            if path.exists() and path.read_text() == text:
                continue
            stale.append(path.relative_to(ROOT))
            if "--check" not in argv:
                path.write_text(text)
    for path in stale:
        sys.stdout.write(f"{'stale' if '--check' in argv else 'wrote'}: {path}\n")
    if stale and "--check" in argv:
        sys.stdout.write("run `python -m trimtab_crds` and commit what it writes\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
