"""The two sets with several options: fourteen tasks on nine models, and direct answer or chain of thought."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import ladder
from trimtab_classifier.evaluation.learners import encode
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, Table, load

LLMROUTER: Final = ("llmrouter/scores_1.jsonl", "llmrouter/scores_2.jsonl")
PRICES: Final = "llmrouter/model_meta.json"
BBH: Final = ("bbh/direct_vs_cot.jsonl",)
Doubles = NDArray[np.float64]
_NOT_MODELS: Final = frozenset({"task", "orig_split", "query"})


@dataclass(frozen=True, slots=True)
class Study:
    """One set: its rows as a problem, and what every method expects of them."""

    name: str
    problem: ladder.Problem
    planned: list[ladder.Plans]


def _study(name: str, table: Table, quality: Doubles, cost: Doubles) -> Study:
    _, label = np.unique(table.column(lambda row: row["task"]), return_inverse=True)
    problem = ladder.Problem(table.texts, encode(table.texts), label, quality, cost)
    return Study(name, problem, [ladder.plans(problem, split) for split in table.splits])


def _prices(folder: Path) -> dict[str, float]:
    found: dict[str, Any] = json.loads((folder / PRICES).read_text("utf-8"))
    return {name: float(entry["output_price"]) for name, entry in found.items()}


@lru_cache(maxsize=1)
def llmrouter_study(folders: Folders) -> Study | None:
    """Nine models, price per token at equal tokens; kept, as two figures ask for it."""
    table = load(folders, LLMROUTER, "query")
    if table is None or not (folders.train / PRICES).is_file():
        return None
    prices = _prices(folders.train)
    models = sorted(set(table.rows[0]) - _NOT_MODELS)
    quality = np.array([[float(row[model]) for model in models] for row in table.rows])
    cost = np.tile([prices[model] for model in models], (len(table.rows), 1))
    return _study("llmrouter", table, quality, cost)


@lru_cache(maxsize=1)
def bbh_study(folders: Folders) -> Study | None:
    """Direct answer and chain of thought, cost in characters of output; kept, as two figures ask for it."""
    table = load(folders, BBH, "question")
    if table is None:
        return None
    quality = np.array([[float(row["direct_ok"]), float(row["cot_ok"])] for row in table.rows])
    cost = np.array([[float(row["direct_chars"]), float(row["cot_chars"])] for row in table.rows])
    return _study("bbh", table, quality, cost)


def llmrouter(folders: Folders) -> list[Result]:
    """Price per token at equal tokens, at the best single model's accuracy minus one point."""
    study = llmrouter_study(folders)
    return [ladder.judge("llmrouter.cost_share", 0.20, study.problem, study.planned, allowance=0.01)] if study else []


def bbh(folders: Folders) -> list[Result]:
    """Output length (characters) of direct answers and chains of thought, at the accuracy of the chain."""
    study = bbh_study(folders)
    return [ladder.judge("bbh.token_share", 0.55, study.problem, study.planned, allowance=0.0)] if study else []
