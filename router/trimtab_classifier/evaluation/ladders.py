"""The two sets with several options: fourteen tasks on nine models, and direct answer or chain of thought."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from trimtab_classifier.evaluation import ladder
from trimtab_classifier.evaluation.learners import encode
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, load

LLMROUTER: Final = ("llmrouter/scores_1.jsonl", "llmrouter/scores_2.jsonl")
PRICES: Final = "llmrouter/model_meta.json"
BBH: Final = ("bbh/direct_vs_cot.jsonl",)
_NOT_MODELS: Final = frozenset({"task", "orig_split", "query"})


def _prices(folder: Path) -> dict[str, float]:
    found: dict[str, Any] = json.loads((folder / PRICES).read_text("utf-8"))
    return {name: float(entry["output_price"]) for name, entry in found.items()}


def llmrouter(folders: Folders) -> list[Result]:
    """Price per token at equal tokens, at the best single model's accuracy minus one point."""
    table = load(folders, LLMROUTER, "query")
    if table is None or not (folders.train / PRICES).is_file():
        return []
    prices = _prices(folders.train)
    models = sorted(set(table.rows[0]) - _NOT_MODELS)
    quality = np.array([[float(row[model]) for model in models] for row in table.rows])
    cost = np.tile([prices[model] for model in models], (len(table.rows), 1))
    _, label = np.unique(table.column(lambda row: row["task"]), return_inverse=True)
    problem = ladder.Problem(table.texts, encode(table.texts), label, quality, cost)
    return [ladder.judge("llmrouter.cost_share", 0.20, problem, table.splits, allowance=0.01)]


def bbh(folders: Folders) -> list[Result]:
    """Output length (characters) of direct answers and chains of thought, at the accuracy of the chain."""
    table = load(folders, BBH, "question")
    if table is None:
        return []
    quality = np.array([[float(row["direct_ok"]), float(row["cot_ok"])] for row in table.rows])
    cost = np.array([[float(row["direct_chars"]), float(row["cot_chars"])] for row in table.rows])
    _, label = np.unique(table.column(lambda row: row["task"]), return_inverse=True)
    problem = ladder.Problem(table.texts, encode(table.texts), label, quality, cost)
    return [ladder.judge("bbh.token_share", 0.55, problem, table.splits, allowance=0.0)]
