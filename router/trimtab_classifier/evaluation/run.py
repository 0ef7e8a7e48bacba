"""All figures of the evaluation."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

from trimtab_classifier.evaluation import cascade, difficulty, familiar, ladders, letters, mix, two_tier
from trimtab_classifier.evaluation.result import Result, table
from trimtab_classifier.evaluation.splits import Folders

PARTS: Final[dict[str, Callable[[Folders], list[Result]]]] = {
    "mmlu": two_tier.run,
    "math": difficulty.run,
    "llmrouter": ladders.llmrouter,
    "bbh": ladders.bbh,
    "mix": mix.run,
    "cascade": cascade.run,
    "letters": letters.run,
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
            f"--train {folders.train}: no rows for {', '.join(parts)}; see docs/evaluation.md for the layout"
        )
    return results


def protocol(folders: Folders) -> str:
    """What was learned from and judged on."""
    return "train folder, then test folder" if folders.test else "five folds of the train folder"


def write(results: list[Result], folders: Folders, path: Path | None, plots: Path | None = None) -> str:
    """Writes the JSON and the pictures where a path is given; returns the table."""
    if path is not None:
        body = {"protocol": protocol(folders), "results": [result.as_json() for result in results]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    if plots is not None:
        from trimtab_classifier.evaluation.plots import draw

        draw(results, protocol(folders).capitalize(), plots)
    return table(results)
