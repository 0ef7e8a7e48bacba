"""A one-hidden-layer network over hashed TF-IDF tokens and dense features, trained with Adam; numpy and scipy only.

hidden = relu(tfidf @ table + dense @ dense_weights + hidden_bias); outputs = hidden @ out_weights + out_bias.
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
    """What the outputs should be; a row whose `label` is -1, `gain` NaN or `lengths` NaN does not teach that head."""

    label: NDArray[np.intp]
    gain: Floats
    lengths: Floats
    """Natural logarithms of observed answer lengths, [rows, samples]."""
    weight: Floats

    def take(self, rows: NDArray[np.intp]) -> "Targets":
        """The given rows, in that order."""
        return Targets(self.label[rows], self.gain[rows], self.lengths[rows], self.weight[rows])


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
    epochs: int = 12
    batch: int = 256
    rate: float = 3e-3
    decay: float = 1e-5
    token_dropout: float = 0.3
    hidden_dropout: float = 0.1
    gain_weight: float = 4.0
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
    """Gradient of cross entropy (classes), squared error (gain) and pinball loss (median and 90 % length)."""
    grad = np.zeros_like(raw)
    labelled = targets.label >= 0
    probabilities = softmax(raw[labelled, :classes])
    probabilities[np.arange(len(probabilities)), targets.label[labelled]] -= 1
    grad[labelled, :classes] = probabilities
    grad[:, classes] = recipe.gain_weight * np.nan_to_num(raw[:, classes] - targets.gain)
    seen = ~np.isnan(targets.lengths)
    samples = np.maximum(seen.sum(axis=1), 1)
    for column, share in ((classes + 1, 0.5), (classes + 2, 0.9)):
        slope = np.where(np.nan_to_num(targets.lengths) > raw[:, [column]], -share, 1 - share) * seen
        grad[:, column] = recipe.length_weight * slope.sum(axis=1) / samples
    return np.asarray(grad * (targets.weight / len(raw))[:, None], np.float32)


def _dropped(tokens: Any, share: float, rng: np.random.Generator) -> Any:
    kept = tokens.copy()
    mask = rng.random(len(kept.data), np.float32) >= share
    kept.data = np.where(mask, kept.data / np.float32(1 - share), np.float32(0))
    return kept


def _gradient(
    parameters: Parameters, inputs: Inputs, targets: Targets, classes: int, recipe: Recipe, rng: np.random.Generator
) -> Parameters:
    kept = Inputs(_dropped(inputs.tokens, recipe.token_dropout, rng), inputs.dense)
    layer = hidden(parameters, kept)
    mask = (rng.random(layer.shape, np.float32) >= recipe.hidden_dropout).astype(np.float32)
    mask /= np.float32(1 - recipe.hidden_dropout)
    used = layer * mask
    grad = output_gradient(used @ parameters.out_weights + parameters.out_bias, targets, classes, recipe)
    back = (grad @ parameters.out_weights.T) * mask * (layer > 0)
    return Parameters(
        table=np.asarray(kept.tokens.T @ back, np.float32),
        dense_weights=inputs.dense.T @ back,
        hidden_bias=back.sum(axis=0),
        out_weights=used.T @ grad,
        out_bias=grad.sum(axis=0),
    )


def _adam_step(
    weights: Parameters,
    grads: Parameters,
    moments: tuple[Parameters, Parameters],
    step: int,
    recipe: Recipe,
    rate: float,
) -> None:
    """One step of Adam with decoupled weight decay (Loshchilov and Hutter, 2019), in place."""
    scale = rate * np.sqrt(1 - _BETA2**step) / (1 - _BETA1**step)
    for weight, grad, first, second in zip(weights, grads, *moments, strict=True):
        first *= _BETA1
        first += (1 - _BETA1) * grad
        second *= _BETA2
        second += (1 - _BETA2) * grad * grad
        if weight.ndim == 2:
            weight *= 1 - rate * recipe.decay
        weight -= np.float32(scale) * first / (np.sqrt(second) + np.float32(_EPSILON))


def train(inputs: Inputs, targets: Targets, classes: int, recipe: Recipe) -> Parameters:
    """Weights after `recipe.epochs` passes in an order the seed fixes, with a rate that falls to zero linearly."""
    weights = initial(inputs.tokens.shape[1], inputs.dense.shape[1], classes + 3, recipe)
    moments = (Parameters.zeros_like(weights), Parameters.zeros_like(weights))
    rng = np.random.default_rng(recipe.seed + 1)
    batches = -(-len(inputs) // recipe.batch)
    total = batches * recipe.epochs
    step = 0
    for _ in range(recipe.epochs):
        order = rng.permutation(len(inputs))
        for batch in np.array_split(order, batches):
            step += 1
            rate = recipe.rate * (1 - (step - 1) / total)
            grads = _gradient(weights, inputs.take(batch), targets.take(batch), classes, recipe, rng)
            _adam_step(weights, grads, moments, step, recipe, rate)
    return weights


def tokens_matrix(ids: list[NDArray[Any]], counts: list[NDArray[Any]], buckets: int) -> Any:
    """CSR matrix [rows, buckets] of token counts."""
    pointers = np.concatenate(([0], np.cumsum([len(row) for row in ids])))
    data = np.concatenate([np.asarray(row, np.float32) for row in counts])
    return sparse.csr_matrix((data, np.concatenate(ids).astype(np.int32), pointers), shape=(len(ids), buckets))
