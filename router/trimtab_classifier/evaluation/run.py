"""All figures of the evaluation."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

from trimtab_classifier.evaluation import difficulty, familiar, ladders, two_tier
from trimtab_classifier.evaluation.result import Result, table
from trimtab_classifier.evaluation.splits import Folders

PARTS: Final[dict[str, Callable[[Folders], list[Result]]]] = {
    "mmlu": two_tier.run,
    "math": difficulty.run,
    "llmrouter": ladders.llmrouter,
    "bbh": ladders.bbh,
    "class": familiar.run,
}


def evaluate(folders: Folders, parts: list[str]) -> list[Result]:
    """The figures of the named parts; raises ValueError when the folders hold rows for none of them."""
    for name, folder in (("--train", folders.train), ("--test", folders.test)):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{name} {folder}: no such folder; give a folder of labelled queries")
    results: list[Result] = []
    with threadpool_limits(1):
        for part in parts:
            found = PARTS[part](folders)
            sys.stderr.write(f"{part}: {', '.join(f'{r.id} {r.value:.3f}' for r in found) or 'no rows'}\n")
            results += found
    if not results:
        raise ValueError(
            f"--train {folders.train}: no rows for {', '.join(parts)}; see docs/classifier.md for the layout"
        )
    return results


def write(results: list[Result], folders: Folders, path: Path | None) -> str:
    """Writes the JSON when a path is given; returns the table."""
    if path is not None:
        protocol = "train folder, then test folder" if folders.test else "five folds of the train folder"
        body = {"protocol": protocol, "results": [result.as_json() for result in results]}
        path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    return table(results)
