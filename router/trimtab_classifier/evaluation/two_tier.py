"""Weak or strong model (RouteLLM's answers to MMLU): domains seen in training, and domains that were not.

The gain is predicted by a linear regression, by a forest over the dense features and over regressions of weak, strong
and gain (stacked: Wolpert, 1992), and in domain by the class table. Where domains are unseen, the regressions that the
forest learns from were made for domains that they had not seen either.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.evaluation import curves, rivals
from trimtab_classifier.evaluation.forest import Forest, grow
from trimtab_classifier.evaluation.learners import Fitted, class_table, encode
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders, Split, Table, load
from trimtab_classifier.examples import bucket
from trimtab_classifier.linear import Ridge
from trimtab_classifier.network import Inputs

Doubles = NDArray[np.float64]
FILES: Final = ("routellm/mmlu_responses_1.csv", "routellm/mmlu_responses_2.csv")
RIDGE: Final = Ridge(structure=30.0, tokens=20.0, features=512, rounds=2)
STACKED: Final = replace(RIDGE, features=256, rounds=1)
FOREST: Final = Forest(trees=150, leaf=12, share=0.4)
INNER_FOLDS: Final = 4
SHRINK: Final = 25.0
_BASELINE_PENALTY: Final = 10.0


def _halves(splits: list[Split], domain: NDArray[np.str_]) -> list[Split]:
    """One half of the domains teaches, the other is judged, and the other way round."""
    side = np.array([bucket(name, 2, "half") for name in domain])
    found = [
        Split(split.learn[side[split.learn] != half], split.judge[side[split.judge] == half])
        for split in splits
        for half in (0, 1)
    ]
    return [split for split in found if len(split.learn) and len(split.judge)]


def inner_folds(split: Split, keys: list[str]) -> list[Split]:
    """Folds of the rows to learn from; rows with one key stay together."""
    place = np.array([bucket(keys[row], INNER_FOLDS, "inner") for row in split.learn])
    found = [Split(split.learn[place != k], split.learn[place == k]) for k in range(INNER_FOLDS)]
    return [inner for inner in found if len(inner.learn) and len(inner.judge)]


@dataclass(frozen=True, slots=True)
class _Lessons:
    """What the forest is stacked on: targets of which the last is the gain, and the class where it is known."""

    targets: Doubles
    domain: NDArray[np.intp] | None

    def table(self, learn: NDArray[np.intp]) -> Doubles:
        """Mean of every target in every domain; one line when domains are not known."""
        domain = np.zeros(len(self.targets), np.intp) if self.domain is None else self.domain
        return class_table(domain[learn], self.targets[learn], int(domain.max()) + 1, SHRINK)

    def regressions(self, fitted: Fitted) -> Doubles:
        """Every target of the judged rows by a regression of its own."""
        return np.stack([fitted.regression(target, STACKED) for target in self.targets.T], axis=1)


def _forest(raw: Inputs, fitted: Fitted, lessons: _Lessons, inner: list[Split], posterior: Doubles) -> Doubles:
    """Gain of the judged rows by trees over dense features, stacked regressions and, in domain, class tables."""
    width = lessons.targets.shape[1]
    signals = np.zeros((len(raw), 2 * width))
    for fold in inner:
        domain = 0 if lessons.domain is None else lessons.domain[fold.judge]
        signals[fold.judge, width:] = lessons.table(fold.learn)[domain]
        signals[fold.judge, :width] = lessons.regressions(Fitted.of(raw, fold.learn, fold.judge))
    signals[fitted.judge] = np.hstack([lessons.regressions(fitted), posterior @ lessons.table(fitted.learn)])
    columns = np.hstack([fitted.inputs.dense, signals if lessons.domain is not None else signals[:, :width]])
    return grow(FOREST, columns[fitted.learn], lessons.targets[fitted.learn, -1], columns[fitted.judge])


def _blend(forest: Doubles, others: list[Doubles]) -> Doubles:
    """Places by the forest and by the others, half each."""
    return np.asarray(curves.ranks(forest) + np.mean([curves.ranks(other) for other in others], axis=0), np.float64)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the two models got right, and where the questions come from."""

    texts: list[str]
    raw: Inputs
    weak: Doubles
    strong: Doubles
    domain: NDArray[np.str_]

    @property
    def gain(self) -> Doubles:
        """Right by the strong model minus right by the weak one."""
        return self.strong - self.weak


def _scores(answers: Answers, split: Split, *, known: bool) -> dict[str, Doubles]:
    """Scores of the judged rows; the table of domains is asked only where their domains are `known`."""
    fitted, gain = Fitted.of(answers.raw, split.learn, split.judge), answers.gain
    names, domain = np.unique(answers.domain, return_inverse=True)
    posterior = fitted.posterior(domain, len(names)).astype(np.float64)
    table = class_table(domain[split.learn], gain[split.learn, None], len(names), SHRINK)
    by_class = np.asarray(posterior @ table, np.float64)[:, 0]
    linear = fitted.regression(gain, RIDGE)
    inner = inner_folds(split, answers.texts if known else answers.domain.tolist())
    lessons = _Lessons(np.stack([answers.weak, answers.strong, gain], axis=1), domain if known else None)
    forest = _forest(answers.raw, fitted, lessons, inner, posterior if known else np.ones((len(split.judge), 1)))
    return {
        "trimtab": _blend(forest, [linear, by_class] if known else [linear]),
        "class table": by_class,
        "TF-IDF gain": fitted.tokens_only(gain, _BASELINE_PENALTY),
    } | rivals.gains(fitted, answers.weak, answers.strong)


def _answers(table: Table) -> Answers:
    return Answers(
        texts=table.texts,
        raw=encode([text.removesuffix("Answer:").rstrip() for text in table.texts]),
        weak=table.column(lambda row: row["mixtral_correct"] == "True").astype(np.float64),
        strong=table.column(lambda row: row["gpt4_correct"] == "True").astype(np.float64),
        domain=table.column(lambda row: row["domain"]),
    )


def _judge(name: str, bar: float, answers: Answers, splits: list[Split], *, known: bool) -> Result:
    parts: dict[str, list[Doubles]] = {}
    for split in splits:
        scores = _scores(answers, split, known=known)
        scores["prompt length"] = np.log1p([len(answers.texts[row]) for row in split.judge])
        for method, score in scores.items():
            parts.setdefault(method, []).append(curves.ranks(score))
    judged = np.concatenate([split.judge for split in splits])
    weak, strong = answers.weak[judged], answers.strong[judged]
    all_scores = {method: np.concatenate(part) for method, part in parts.items()}
    value = {method: curves.apgr(score, weak, strong) for method, score in all_scores.items()}
    ours = all_scores["trimtab"]
    low, high = curves.interval(lambda rows: curves.apgr(ours[rows], weak[rows], strong[rows]), len(ours))
    baselines = {"random mix": 0.5} | {method: v for method, v in value.items() if method != "trimtab"}
    details = {"weak": float(weak.mean()), "strong": float(strong.mean())}
    lines = {method: curves.shared_curve(score, weak, strong) for method, score in all_scores.items()}
    lines["random mix"] = [(0.0, float(weak.mean())), (1.0, float(strong.mean()))]
    picture = curves.Picture("share of queries that go to the strong model", "accuracy", lines)
    return Result(name, value["trimtab"], low, high, len(ours), baselines, bar, details=details, picture=picture)


def run(folders: Folders) -> list[Result]:
    """APGR in domain and on unseen domains."""
    table = load(folders, FILES, "prompt")
    if table is None:
        return []
    answers = _answers(table)
    everything = np.arange(len(table.rows))
    whole = table.splits if folders.test else [Split(everything, everything)]
    return [
        _judge("mmlu.apgr.in_domain", 0.72, answers, table.splits, known=True),
        _judge("mmlu.apgr.unseen_domain", 0.65, answers, _halves(whole, answers.domain), known=False),
    ]
