"""Test folders in which labels are dealt out anew, so that nothing a router learned can help."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from support import labelled


def deal(rows: Sequence[dict[str, Any]], names: Sequence[str], seed: int = 1) -> list[dict[str, Any]]:
    """The rows, the named columns of each taken together from another row."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [row | {name: rows[other][name] for name in names} for row, other in zip(rows, order, strict=True)]


def deal_answers(path: Path, seed: int = 1) -> None:
    """Rewrites recorded answers so that every question has the right answer of another one."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    golds = {row["idx"]: row["gold"] for row in rows}
    dealt = np.random.default_rng(seed).permutation(np.arange(len(golds)))
    others = list(golds.values())
    moved = {index: others[place] for index, place in zip(golds, dealt, strict=True)}
    labelled.write_jsonl(path, [row | {"gold": moved[row["idx"]]} for row in rows])
