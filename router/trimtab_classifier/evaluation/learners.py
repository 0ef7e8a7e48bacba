"""What is learned from the rows of a split: class posteriors and regressions over the router's own features."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier import linear, network, tfidf
from trimtab_classifier.features import Query
from trimtab_classifier.linear import Ridge
from trimtab_classifier.network import Inputs, Recipe, Targets

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

CLASS_RECIPE: Final = Recipe(hidden=32, epochs=10, rate=5e-3, batch=128)
SHRINK: Final = 8.0
"""Rows of the overall mean that are added to every class of a table."""


def encode(texts: list[str]) -> Inputs:
    """Counts and dense features of single-turn prompts."""
    return tfidf.encode_rows([Query(text) for text in texts])


@dataclass(frozen=True, slots=True)
class Fitted:
    """Features of all rows, scaled by the rows to learn from."""

    inputs: Inputs
    learn: Rows
    judge: Rows

    @classmethod
    def of(cls, raw: Inputs, learn: Rows, judge: Rows) -> "Fitted":
        """Scales on `learn` and leaves out the buckets that none of its rows fills: they teach nothing."""
        scaled = tfidf.Scaler.fit(raw, learn).apply(raw)
        filled = np.unique(scaled.tokens[learn].indices)
        return cls(Inputs(scaled.tokens[:, filled], scaled.dense), learn, judge)

    def posterior(self, label: Rows, classes: int, recipe: Recipe = CLASS_RECIPE) -> Floats:
        """Class probabilities of the judged rows."""
        taught = self.inputs.take(self.learn)
        none = np.full((len(self.learn), 1), np.nan, np.float32)
        goal = Targets(label[self.learn], none, np.ones(len(self.learn), np.float32))
        weights = network.train(taught, goal, classes, recipe)
        return network.softmax(network.outputs(weights, self.inputs.take(self.judge))[:, :classes])

    def regression(self, target: Doubles, ridge: Ridge) -> Doubles:
        """Predictions for the judged rows; `target` is over all rows, those to judge are not read."""
        taught, judged = self.inputs.take(self.learn), self.inputs.take(self.judge)
        weight = np.ones(len(self.learn), np.float32)
        model = linear.fit(taught.tokens, taught.dense, target[self.learn].astype(np.float32), weight, ridge)
        return np.asarray(model.predict(judged.tokens, judged.dense), np.float64)

    def tokens_only(self, target: Doubles, penalty: float) -> Doubles:
        """The plain TF-IDF ridge that serves as a baseline."""
        goal = target[self.learn].astype(np.float64)
        middle = float(goal.mean())
        tokens = self.inputs.tokens
        table = linear.token_ridge(tokens[self.learn], goal - middle, np.ones(len(goal)), penalty)
        return np.asarray(tokens[self.judge] @ table + middle, np.float64)


def class_table(label: Rows, target: Doubles, classes: int, shrink: float = SHRINK) -> Doubles:
    """Mean of each column of `target` in each class, shrunk to the overall mean."""
    one_hot = np.eye(classes)[label]
    overall = target.mean(axis=0)
    sums = one_hot.T @ target + shrink * overall
    return np.asarray(sums / (one_hot.sum(axis=0)[:, None] + shrink), np.float64)


def by_length(texts: list[str], target: Doubles, learn: Rows, judge: Rows) -> Doubles:
    """Cubic in the logarithm of the prompt's length: the length baseline, several targets at once."""
    logs = np.log1p([len(text) for text in texts])
    basis = np.stack([logs**power for power in range(4)], axis=1)
    solution, *_ = np.linalg.lstsq(basis[learn], target[learn], rcond=None)
    return np.asarray(basis[judge] @ solution, np.float64)
