"""A one-hidden-layer network over hashed TF-IDF tokens and dense features, trained with Adam; numpy and scipy only.

hidden = relu(tfidf @ table + dense @ dense_weights + hidden_bias); outputs = hidden @ out_weights + out_bias:
one logit a class, then the logarithms of the median and of the 90 % quantile of the answer's length in tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float32]

_BETA1: Final = 0.9
_BETA2: Final = 0.999
_EPSILON: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Inputs:
    """Rows of training data: `tokens` is a CSR matrix of TF-IDF weights, `dense` the structure features."""

    tokens: Any
    dense: Floats

    def __len__(self) -> int:
        return int(self.dense.shape[0])

    def take(self, rows: NDArray[np.intp]) -> "Inputs":
        """The given rows, in that order."""
        return Inputs(self.tokens[rows], self.dense[rows])


@dataclass(frozen=True, slots=True)
class Targets:
    """What the outputs should be; a row whose `label` is -1 or whose `lengths` are NaN does not teach that head."""

    label: NDArray[np.intp]
    lengths: Floats
    """Natural logarithms of observed answer lengths, [rows, samples]."""
    weight: Floats

    def take(self, rows: NDArray[np.intp]) -> "Targets":
        """The given rows, in that order."""
        return Targets(self.label[rows], self.lengths[rows], self.weight[rows])


@dataclass(frozen=True, slots=True)
class Parameters:
    """The weights, or a gradient or moment of the same shape."""

    table: Floats
    dense_weights: Floats
    hidden_bias: Floats
    out_weights: Floats
    out_bias: Floats

    @classmethod
    def zeros_like(cls, other: "Parameters") -> Self:
        """Zeros in the shape of `other`."""
        return cls(*(np.zeros_like(array) for array in other))

    def __iter__(self) -> Iterator[Floats]:
        return (getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train."""

    hidden: int = 32
    epochs: int = 8
    batch: int = 256
    rate: float = 3e-3
    decay: float = 1e-5
    token_dropout: float = 0.3
    hidden_dropout: float = 0.1
    length_weight: float = 0.5
    seed: int = 7


def initial(buckets: int, dense: int, outputs: int, recipe: Recipe) -> Parameters:
    """Random weights for the seed."""
    rng = np.random.default_rng(recipe.seed)

    def normal(rows: int, columns: int, scale: float) -> Floats:
        return (rng.standard_normal((rows, columns)) * scale).astype(np.float32)

    return Parameters(
        table=normal(buckets, recipe.hidden, 0.05),
        dense_weights=normal(dense, recipe.hidden, 1.0 / np.sqrt(dense)),
        hidden_bias=np.full(recipe.hidden, 0.1, np.float32),
        out_weights=normal(recipe.hidden, outputs, 1.0 / np.sqrt(recipe.hidden)),
        out_bias=np.zeros(outputs, np.float32),
    )


def hidden(parameters: Parameters, inputs: Inputs) -> Floats:
    """Hidden layer before dropout, [rows, hidden]."""
    total = inputs.tokens @ parameters.table + inputs.dense @ parameters.dense_weights + parameters.hidden_bias
    return np.maximum(np.asarray(total, np.float32), 0)


def outputs(parameters: Parameters, inputs: Inputs) -> Floats:
    """Raw outputs, [rows, outputs]."""
    return hidden(parameters, inputs) @ parameters.out_weights + parameters.out_bias


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def output_gradient(raw: Floats, targets: Targets, classes: int, recipe: Recipe) -> Floats:
    """Gradient of cross entropy (classes) and pinball loss (median and 90 % length)."""
    grad = np.zeros_like(raw)
    labelled = targets.label >= 0
    probabilities = softmax(raw[labelled, :classes])
    probabilities[np.arange(len(probabilities)), targets.label[labelled]] -= 1
    grad[labelled, :classes] = probabilities
    seen = ~np.isnan(targets.lengths)
    samples = np.maximum(seen.sum(axis=1), 1)
    for column, share in ((classes, 0.5), (classes + 1, 0.9)):
        slope = np.where(np.nan_to_num(targets.lengths) > raw[:, [column]], -share, 1 - share) * seen
        grad[:, column] = recipe.length_weight * slope.sum(axis=1) / samples
    return np.asarray(grad * (targets.weight / len(raw))[:, None], np.float32)


def _dropped(tokens: Any, share: float, rng: np.random.Generator) -> Any:
    kept = tokens.copy()
    mask = rng.random(len(kept.data), np.float32) >= share
    kept.data = np.where(mask, kept.data / np.float32(1 - share), np.float32(0))
    return kept


@dataclass(frozen=True, slots=True)
class _Trainer:
    inputs: Inputs
    targets: Targets
    classes: int
    recipe: Recipe
    rng: np.random.Generator

    def gradient(self, weights: Parameters, rows: NDArray[np.intp]) -> Parameters:
        """Gradient of the loss on a batch, tokens and hidden units dropped at random."""
        batch, recipe = self.inputs.take(rows), self.recipe
        kept = Inputs(_dropped(batch.tokens, recipe.token_dropout, self.rng), batch.dense)
        layer = hidden(weights, kept)
        mask = (self.rng.random(layer.shape, np.float32) >= recipe.hidden_dropout).astype(np.float32)
        mask /= np.float32(1 - recipe.hidden_dropout)
        used = layer * mask
        raw = np.asarray(used @ weights.out_weights + weights.out_bias, np.float32)
        grad = output_gradient(raw, self.targets.take(rows), self.classes, recipe)
        back = (grad @ weights.out_weights.T) * mask * (layer > 0)
        return Parameters(
            table=np.asarray(kept.tokens.T @ back, np.float32),
            dense_weights=kept.dense.T @ back,
            hidden_bias=back.sum(axis=0),
            out_weights=np.asarray(used.T @ grad, np.float32),
            out_bias=grad.sum(axis=0),
        )


@dataclass(slots=True)
class _Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); changes the weights in place."""

    first: Parameters
    second: Parameters
    decay: float
    steps: int = 0

    def step(self, weights: Parameters, grads: Parameters, rate: float) -> None:
        """One step at the given rate."""
        self.steps += 1
        scale = np.float32(rate * np.sqrt(1 - _BETA2**self.steps) / (1 - _BETA1**self.steps))
        for weight, grad, mean, square in zip(weights, grads, self.first, self.second, strict=True):
            _decay_towards(mean, grad, _BETA1)
            _decay_towards(square, grad * grad, _BETA2)
            if weight.ndim == 2:
                np.multiply(weight, np.float32(1 - rate * self.decay), out=weight)
            change = np.sqrt(square)
            change += np.float32(_EPSILON)
            np.divide(mean, change, out=change)
            change *= scale
            np.subtract(weight, change, out=weight)


def _decay_towards(average: Floats, value: Floats, keep: float) -> None:
    """average = keep * average + (1 - keep) * value, in place."""
    np.multiply(average, np.float32(keep), out=average)
    np.add(average, value * np.float32(1 - keep), out=average)


def train(inputs: Inputs, targets: Targets, classes: int, recipe: Recipe) -> Parameters:
    """Weights after `recipe.epochs` passes in an order the seed fixes, with a rate that falls to zero linearly."""
    weights = initial(inputs.tokens.shape[1], inputs.dense.shape[1], classes + 2, recipe)
    adam = _Adam(Parameters.zeros_like(weights), Parameters.zeros_like(weights), recipe.decay)
    rng = np.random.default_rng(recipe.seed + 1)
    trainer = _Trainer(inputs, targets, classes, recipe, rng)
    batches = -(-len(inputs) // recipe.batch)
    total = batches * recipe.epochs
    for _ in range(recipe.epochs):
        for rows in np.array_split(rng.permutation(len(inputs)), batches):
            grads = trainer.gradient(weights, rows)
            adam.step(weights, grads, recipe.rate * (1 - adam.steps / total))
    return weights


def tokens_matrix(ids: list[NDArray[Any]], counts: list[NDArray[Any]], buckets: int) -> Any:
    """CSR matrix [rows, buckets] of token counts."""
    pointers = np.concatenate(([0], np.cumsum([len(row) for row in ids])))
    data = np.concatenate([np.asarray(row, np.float32) for row in counts])
    return sparse.csr_matrix((data, np.concatenate(ids).astype(np.int32), pointers), shape=(len(ids), buckets))
