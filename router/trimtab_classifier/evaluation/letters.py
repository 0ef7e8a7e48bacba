"""Voting over sampled answers (last letters, GPT-3.5, 40 samples): how many samples an early stop needs."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, replay
from trimtab_classifier.evaluation.replay import ORDERS, Pattern
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, Rows, Split, load
from trimtab_router.core.voting import AllSamples, Posterior, Rule, Voting, Window

Doubles = NDArray[np.float64]
Question = list[tuple[Pattern, str]]
"""The answers in seeded orders, each with the key that the right answer has in it."""

FILES: Final = ("esc_last_letters/gpt35_t07.jsonl",)
ALLOWANCE: Final = 0.003
TOLERANCE: Final = 0.012
"""How often a stop may answer otherwise than all samples do. At most every fourth such answer costs a right one: the
allowance without the noise of the few questions that it hangs on."""
CAPS: Final = (10, 15, 20, 25, 30, 40)
RULES: Final[tuple[Rule, ...]] = (
    *(Posterior(threshold) for threshold in (0.85, 0.89, 0.9, 0.93, 0.95)),
    *(Window(size) for size in (3, 4, 5)),
)
FAMILY: Final = tuple(Voting(rule, cap) for rule in RULES for cap in CAPS)
FIXED: Final = tuple(Voting(AllSamples(), count) for count in (1, 3, 5, 7, 10, 15, 20, 30, 40))
ALL: Final = FIXED[-1]
PAPERS: Final = {
    "Adaptive-Consistency": Voting(Posterior(0.95), ALL.max_samples),
    "ESC": Voting(Window(5), ALL.max_samples),
}


@dataclass(frozen=True, slots=True)
class Replayed:
    """Mean over orders for every question."""

    right: Doubles
    differs: Doubles
    """Whether the answer is another than that of all samples."""
    samples: Doubles

    def at(self, rows: Rows) -> "Replayed":
        """Some of the questions."""
        return Replayed(self.right[rows], self.differs[rows], self.samples[rows])


def _orders(answers: list[str], gold: str, rng: np.random.Generator) -> Question:
    found = []
    for _ in range(ORDERS):
        order = [answers[place] for place in rng.permutation(len(answers))]
        seen = replay.pattern(order)
        found.append((seen, seen[order.index(gold)] if gold in order else "never"))
    return found


def _outcome(question: Question, voting: Voting) -> tuple[float, float, float]:
    right, differs, drawn = 0, 0, 0
    for seen, gold in question:
        count, winner = replay.vote(seen, voting)
        right += winner == gold
        differs += winner != replay.vote(seen, ALL)[1]
        drawn += count
    return right / len(question), differs / len(question), drawn / len(question)


def replayed(questions: list[Question], voting: Voting) -> Replayed:
    """All questions under one voting."""
    columns = np.array([_outcome(question, voting) for question in questions], float).reshape(-1, 3).T
    return Replayed(*columns)


def choose(options: list[Replayed], learn: Rows) -> int:
    """The option with the fewest samples that answers as all samples do often enough; else that which does so most."""
    differs = [float(option.differs[learn].mean()) for option in options]
    samples = [float(option.samples[learn].mean()) for option in options]
    enough = [place for place, value in enumerate(differs) if value <= TOLERANCE]
    return min(enough, key=samples.__getitem__) if enough else int(np.argmin(differs))


def _picked(options: list[Replayed], splits: list[Split]) -> tuple[Replayed, list[int]]:
    """The chosen option of each split on its judged rows."""
    chosen = [choose(options, split.learn) for split in splits]
    parts = [options[place].at(split.judge) for place, split in zip(chosen, splits, strict=True)]
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("right", "differs", "samples"))
    return Replayed(*columns), chosen


def _picture(found: dict[str, list[Replayed]], judged: Rows, ours: Replayed, target: float) -> curves.Picture:
    lines = {
        name: curves.undominated([(float(o.samples[judged].mean()), float(o.right[judged].mean())) for o in options])
        for name, options in found.items()
    }
    point = (float(ours.samples.mean()), float(ours.right.mean()))
    return curves.Picture("samples", "accuracy", lines, point, target - ALLOWANCE)


def _described(voting: Voting) -> dict[str, Any]:
    rule = voting.rule
    size = {"posterior": rule.threshold} if isinstance(rule, Posterior) else {"window": getattr(rule, "size", None)}
    return size | {"most": voting.max_samples}


def run(folders: Folders) -> list[Result]:
    """Samples drawn by the stop that was chosen on the rows to learn from."""
    table = load(folders, FILES, "question")
    if table is None:
        return []
    rng = np.random.default_rng(17)
    questions = [_orders([replay.key(a) for a in row["answers"]], replay.key(row["gold"]), rng) for row in table.rows]
    target = replayed(questions, ALL).right
    family = [replayed(questions, voting) for voting in FAMILY]
    votes = [replayed(questions, voting) for voting in FIXED]
    ours, chosen = _picked(family, table.splits)
    plain, _ = _picked(votes, table.splits)
    judged = np.concatenate([split.judge for split in table.splits])
    found = {"trimtab": ours, "fixed number of samples": plain}
    found |= {name: replayed(questions, voting).at(judged) for name, voting in PAPERS.items()}
    kept = ours.right - target[judged]
    low, high = curves.interval(lambda rows: float(ours.samples[rows].mean()), len(judged))
    baselines = {"all samples": float(ALL.max_samples)}
    baselines |= {name: float(option.samples.mean()) for name, option in found.items() if name != "trimtab"}
    details = {
        "allowance": ALLOWANCE,
        "accuracy_kept": bool(kept.mean() >= -ALLOWANCE),
        "accuracy_difference": {name: float((o.right - target[judged]).mean()) for name, o in found.items()},
        "accuracy_difference_interval": list(curves.interval(lambda rows: float(kept[rows].mean()), len(judged))),
        "accuracy": float(ours.right.mean()),
        "accuracy_of_all_samples": float(target[judged].mean()),
        "answer_differs": float(ours.differs.mean()),
        "stops": [_described(FAMILY[place]) for place in chosen],
    }
    shown = {"fixed number": votes}
    for kind, name in ((Posterior, "posterior rule"), (Window, "window rule")):
        shown[name] = [o for o, voting in zip(family, FAMILY, strict=True) if isinstance(voting.rule, kind)]
    picture = _picture(shown, judged, ours, float(target[judged].mean()))
    value = float(ours.samples.mean())
    return [
        Result("letters.samples", value, low, high, len(judged), baselines, 5, False, details=details, picture=picture)
    ]
