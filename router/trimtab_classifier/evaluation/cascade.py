"""Weak model first, strong model when the samples disagree (answers of the MoT cascade, arXiv 2310.03094).

What counts is date understanding, GPT-3.5 to GPT-4: the only set with sampled answers of both forms (reasoning and
program) by the weak model, and greedy ones by the strong model. The sets whose weak model is Llama-2-13B are judged too
and shown in the details: their lists repeat a few samples, so only the distinct ones are replayed. Sets without a weak
model (ASDiv, navigate, TabMWP) have nothing to escalate from. Cost is characters of output, those of the strong model
20 times as dear.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, ladder, replay
from trimtab_classifier.evaluation.learners import encode
from trimtab_classifier.evaluation.operating import Points, budget
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, Rows, Split, divide
from trimtab_classifier.sources import Row, rows

Doubles = NDArray[np.float64]

STRONG: Final = "gpt-4"
SETS: Final = (("date", "gpt-3.5-turbo"), ("date", "llama2-13b"), ("gsm", "llama2-13b"), ("crepe", "llama2-13b"))
"""Task and weak model; the first decides."""
PRICE: Final = 20.0
BAR: Final = 0.45
ALLOWANCE: Final = 0.005
THRESHOLDS: Final = (0.65, 0.8, 0.87, 0.93)
"""Posterior at which an answer is accepted: two votes to one, three to one, two to none, three to none."""
LONGEST: Final = 4
ANCHOR: Final = "one reasoning and one program"
PROMPT: Final = "gain from the prompt"
_FORM: Final = re.compile(r"_(cot|pot)(\d)(?:_V2)?$")
_GREEDY: Final = re.compile(r"_greedy_(cot|pot)(\d)$")


@dataclass(frozen=True, slots=True)
class Samples:
    """Answers of one form to one question, as keys, and the characters of each."""

    keys: tuple[str, ...]
    chars: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One question: weak samples by form, the strong model's greedy answer by form."""

    text: str
    gold: str
    weak: dict[str, Samples]
    strong: dict[str, Samples]


@dataclass(frozen=True, slots=True)
class Policy:
    """Forms that are sampled in turn, and the posterior at which an answer is accepted."""

    forms: tuple[str, ...]
    threshold: float


def _distinct(row: Row) -> Samples | None:
    """The samples of a row up to where its list begins to repeat itself."""
    answers, chars = row["answers"] or [None] * len(row["chars"]), row["chars"]
    if not chars:
        return None
    count = min(len(answers), len(chars))
    head = list(zip(answers, chars, strict=False))[:count]
    for start in range(3, count - 2):
        if head[start : start + 3] == head[:3] and len(set(map(str, head[:3]))) > 1:
            count = start
            break
    return Samples(tuple(replay.key(a) for a, _ in head[:count]), tuple(float(c) for _, c in head[:count]))


def _runs(path: Path, pattern: re.Pattern[str]) -> dict[Any, dict[str, tuple[Row, Samples]]]:
    found: dict[Any, dict[str, tuple[Row, Samples]]] = {}
    for row in rows(path):
        form, samples = pattern.search(row["run"]), _distinct(row)
        if form and samples and not (pattern is _FORM and "_greedy_" in row["run"]):
            found.setdefault(row["idx"], {})["".join(form.groups())] = (row, samples)
    return found


def read(folder: Path, task: str, weak: str) -> list[Question]:
    """Questions with every form of both models; nothing when a file is absent."""
    paths = [folder / f"mot_cascade/{task}_{model}.jsonl" for model in (weak, STRONG)]
    if not all(path.is_file() for path in paths):
        return []
    cheap, dear = _runs(paths[0], _FORM), _runs(paths[1], _GREEDY)
    wanted = [{form for runs in side.values() for form in runs} for side in (cheap, dear)]
    found = []
    for index in sorted(cheap.keys() & dear.keys()):
        if set(cheap[index]) == wanted[0] and set(dear[index]) == wanted[1]:
            row = next(iter(cheap[index].values()))[0]
            sides = ({form: samples for form, (_, samples) in side[index].items()} for side in (cheap, dear))
            found.append(Question(row["question"], replay.key(row["gold"]), *sides))
    return found


def family(forms: Sequence[str]) -> list[Policy]:
    """The strong model alone; two to four different forms in every order, or one again and again; every threshold."""
    orders = [order for length in range(2, LONGEST + 1) for order in permutations(sorted(forms), length)]
    orders += [(form,) * length for form in sorted(forms) for length in range(2, LONGEST + 1)]
    return [Policy((), 1.0), *(Policy(order, threshold) for order in orders for threshold in THRESHOLDS)]


def _drawn(question: Question, policy: Policy, order: int) -> tuple[bool, bool, float]:
    """Escalated, right without it, characters of the weak model; `order` says which samples come."""
    keys, chars = [], []
    for place, form in enumerate(policy.forms):
        samples = question.weak[form]
        at = (order + 7 * place) % len(samples.keys)
        keys.append(samples.keys[at])
        chars.append(samples.chars[at])
    seen = replay.pattern(keys)
    count, winner = replay.accept(seen, policy.threshold)
    return not winner, bool(winner) and keys[seen.index(winner)] == question.gold, sum(chars[:count])


@dataclass(frozen=True, slots=True)
class Tables:
    """Means over orders: [policies, questions] for the weak part, [strong forms, questions] for the strong one."""

    policies: list[Policy]
    escalated: Doubles
    right: Doubles
    chars: Doubles
    strong_right: Doubles
    strong_cost: Doubles

    def accuracy(self, policy: int, strong: int) -> Doubles:
        """Of every question."""
        return np.asarray(self.right[policy] + self.escalated[policy] * self.strong_right[strong], np.float64)

    def cost(self, policy: int, strong: int) -> Doubles:
        """Of every question, in characters of the weak model."""
        return np.asarray(self.chars[policy] + self.escalated[policy] * self.strong_cost[strong], np.float64)


def tables(questions: list[Question], policies: list[Policy]) -> Tables:
    """Every policy replayed on every question."""
    escalated, sure, chars = np.zeros((3, len(policies), len(questions)))
    for place, policy in enumerate(policies):
        for number, question in enumerate(questions):
            drawn = [_drawn(question, policy, order) for order in range(replay.ORDERS)]
            escalated[place, number], sure[place, number], chars[place, number] = np.mean(drawn, axis=0)
    forms = sorted(questions[0].strong)
    right = [[float(q.strong[form].keys[0] == q.gold) for q in questions] for form in forms]
    cost = [[PRICE * q.strong[form].chars[0] for q in questions] for form in forms]
    return Tables(policies, escalated, sure, chars, np.array(right), np.array(cost))


def best_strong(table: Tables, learn: Rows) -> int:
    """The strong model's most accurate form on the rows to learn from."""
    return int(table.strong_right[:, learn].mean(axis=1).argmax())


def choose(table: Tables, learn: Rows, allowed: Callable[[Policy], bool]) -> int:
    """The most accurate allowed policy within the budget; if it is not the strong model's equal, see `Points.best`."""
    strong = best_strong(table, learn)
    places = [place for place, policy in enumerate(table.policies) if allowed(policy)]
    kept = np.stack([table.accuracy(place, strong)[learn] for place in places]) - table.strong_right[strong, learn]
    cost = np.array([table.cost(place, strong)[learn].mean() for place in places])
    points = Points.of(cost / table.strong_cost[strong, learn].mean(), kept)
    return places[points.best(budget(BAR), aim=0.0)]


def _outcome(table: Tables, split: Split, policy: int) -> ladder.Routed:
    strong, judge = best_strong(table, split.learn), split.judge
    alone = (table.strong_right[strong, judge], table.strong_cost[strong, judge])
    own = (table.accuracy(policy, strong)[judge], table.cost(policy, strong)[judge])
    return ladder.Routed(*own, *alone, np.ones(len(judge)))


def _by_prompt(
    questions: list[Question], table: Tables, splits: list[Split]
) -> tuple[ladder.Problem, list[ladder.Plans]]:
    """One weak sample or the strong answer, as the routers that read only the prompt see it."""
    learn = np.concatenate([split.learn for split in splits])
    forms = sorted(questions[0].weak)
    right = np.array([[np.mean([key == q.gold for key in q.weak[form].keys]) for q in questions] for form in forms])
    form, strong = int(right[:, learn].mean(axis=1).argmax()), best_strong(table, learn)
    chars = np.array([np.mean(q.weak[forms[form]].chars) for q in questions])
    quality = np.stack([right[form], table.strong_right[strong]], axis=1)
    cost = np.stack([chars, table.strong_cost[strong]], axis=1)
    texts = [q.text for q in questions]
    problem = ladder.Problem(texts, encode(texts), np.zeros(len(texts), np.intp), quality, cost)
    return problem, [ladder.plans(problem, split) for split in splits]


def _is(name: str) -> Callable[[Policy], bool]:
    kinds = {
        "trimtab": lambda policy: len(set(policy.forms)) == len(policy.forms),
        "one form": lambda policy: len(set(policy.forms)) <= 1,
        "reasoning alone": lambda policy: all(form.startswith("cot") for form in policy.forms),
        ANCHOR: lambda policy: policy == Policy(("cot1", "pot1"), 0.87),
    }
    return kinds[name]


def _study(folders: Folders, task: str, weak: str) -> tuple[list[Question], Tables, list[Split]] | None:
    learn = read(folders.train, task, weak)
    judge = read(folders.test, task, weak) if folders.test else []
    if not learn or (folders.test and not judge):
        return None
    questions = learn + judge
    splits = divide([q.text for q in questions], len(learn) if folders.test else None)
    splits = [split for split in splits if len(split.learn) and len(split.judge)]
    return (questions, tables(questions, family(list(questions[0].weak))), splits) if splits else None


def _routed(table: Tables, splits: list[Split], name: str) -> tuple[ladder.Routed, list[Policy]] | None:
    if not any(_is(name)(policy) for policy in table.policies):
        return None
    chosen = [choose(table, split.learn, _is(name)) for split in splits]
    parts = [_outcome(table, split, place) for split, place in zip(splits, chosen, strict=True)]
    return ladder.joined(parts), [table.policies[place] for place in chosen]


def _frontier(table: Tables, splits: list[Split], name: str) -> curves.Curve:
    """Cost and accuracy of all policies of a kind on the judged rows, without those that another one dominates."""
    places = [place for place, policy in enumerate(table.policies) if _is(name)(policy)]
    wholes = [ladder.joined([_outcome(table, split, place) for split in splits]) for place in places]
    return curves.undominated([(whole.share(), whole.accuracy()) for whole in wholes])


def _other_sets(folders: Folders) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task, weak in SETS[1:]:
        study = _study(folders, task, weak)
        routed = _routed(study[1], study[2], "trimtab") if study else None
        if routed:
            outcome, policies = routed
            found[f"{task}, {weak}"] = {
                "cost_share": outcome.share(),
                "accuracy_difference": outcome.difference(),
                "n": len(outcome.cost),
                "policies": [_described(policy) for policy in policies],
            }
    return found


def _described(policy: Policy) -> str:
    return f"{', '.join(policy.forms)} at {policy.threshold:g}" if policy.forms else "the strong model alone"


def run(folders: Folders) -> list[Result]:
    """Cost share at the strong model's accuracy minus half a point."""
    study = _study(folders, *SETS[0])
    if study is None:
        return []
    questions, table, splits = study
    names = ("trimtab", "one form", "reasoning alone", ANCHOR)
    routed = {name: found for name in names if (found := _routed(table, splits, name))}
    (ours, policies), judged = routed.pop("trimtab"), np.concatenate([split.judge for split in splits])
    problem, planned = _by_prompt(questions, table, splits)
    prompt = ladder.routed(problem, planned, ladder.Aim(budget(BAR), ALLOWANCE))
    prompt[PROMPT] = prompt.pop(ladder.OURS)
    target = float(ours.single_quality.mean()) - ALLOWANCE
    everything = {name: outcome for name, (outcome, _) in routed.items()} | prompt
    low, high = curves.interval(ours.share, len(judged))
    baselines = {"best single": 1.0, "random mix": ladder.random_mix(problem, judged, target, 1)}
    baselines |= {name: outcome.share() for name, outcome in everything.items()}
    details = {
        "allowance": ALLOWANCE,
        "accuracy_kept": ours.difference() >= -ALLOWANCE,
        "accuracy_difference": {name: o.difference() for name, o in ({"trimtab": ours} | everything).items()},
        "accuracy_difference_interval": list(curves.interval(ours.difference, len(judged))),
        "over_random_mix": ours.accuracy() - ladder.best_mix(problem, judged, float(ours.cost.mean())),
        "policies": [_described(policy) for policy in policies],
        "other_sets": _other_sets(folders),
    }
    lines = {name: _frontier(table, splits, name) for name in names}
    lines["random mix"] = ladder.blind(problem, judged, float(ours.single_cost.mean()))
    prompt_lines = ladder.frontier(problem, planned)
    prompt_lines[PROMPT] = prompt_lines.pop(ladder.OURS)
    picture = curves.Picture(
        "cost over that of the strong model", "accuracy", lines | prompt_lines, (ours.share(), ours.accuracy()), target
    )
    return [
        Result(
            "cascade.cost_share", ours.share(), low, high, len(judged), baselines, BAR, False, details, picture=picture
        )
    ]
