"""Ridge regression for what the class does not say of the gain: structure (random Fourier features), then tokens.

The gain is noisy, so both parts are linear and held back; cosines are bounded and cannot run away on odd input.
Random Fourier features: Rahimi and Recht, 2007.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

GAMMA: Final = 0.005
_CG_STEPS: Final = 40


@dataclass(frozen=True, slots=True)
class Ridge:
    """How strongly each part is held back."""

    structure: float = 3.0
    tokens: float = 15.0
    features: int = 256
    rounds: int = 3
    """Times that each part is fitted to what the other leaves, which leads to the joint optimum."""
    seed: int = 11


@dataclass(frozen=True, slots=True)
class Linear:
    """cos(dense @ frequencies + phases) @ weights + intercept + tokens @ table."""

    frequencies: Floats
    phases: Floats
    weights: Floats
    intercept: float
    table: Floats

    def waves(self, dense: Floats) -> Floats:
        """The random Fourier features of standardised dense features."""
        return np.asarray(np.cos(dense @ self.frequencies + self.phases), np.float32)

    def predict(self, tokens: Any, dense: Floats) -> Floats:
        """Predicted values, one a row."""
        return np.asarray(self.waves(dense) @ self.weights + self.intercept + tokens @ self.table, np.float32)


def dense_ridge(features: Floats, target: Doubles, weight: Doubles, penalty: float) -> tuple[Doubles, float]:
    """Weighted ridge with an intercept that is not penalised, in closed form."""
    share = weight / weight.sum()
    mean, middle = share @ features, float(share @ target)
    centred = (features - mean).astype(np.float64)
    gram = centred.T @ (centred * weight[:, None]) + penalty * np.eye(features.shape[1])
    solution = np.linalg.solve(gram, centred.T @ (weight * (target - middle)))
    return solution, middle - float(mean @ solution)


def token_ridge(tokens: Any, target: Doubles, weight: Doubles, penalty: float) -> Doubles:
    """Weighted ridge without intercept over a sparse matrix, by conjugate gradients on the normal equations."""
    transposed = tokens.T.tocsr()
    solution = np.zeros(tokens.shape[1])
    residual = transposed @ (weight * target)
    direction = residual.copy()
    error = start = float(residual @ residual)
    for _ in range(_CG_STEPS):
        if error <= 1e-10 * start:
            break
        image = transposed @ (weight * (tokens @ direction)) + penalty * direction
        step = error / float(direction @ image)
        solution += step * direction
        residual -= step * image
        previous, error = error, float(residual @ residual)
        direction = residual + (error / previous) * direction
    return solution


def fit(tokens: Any, dense: Floats, target: Floats, weight: Floats, ridge: Ridge | None = None) -> Linear:
    """Fits both parts on standardised dense features and TF-IDF tokens."""
    ridge = ridge or Ridge()
    rng = np.random.default_rng(ridge.seed)
    count = ridge.features
    frequencies = (rng.standard_normal((dense.shape[1], count)) * np.sqrt(2 * GAMMA)).astype(np.float32)
    phases = (rng.random(count) * 2 * np.pi).astype(np.float32)
    waves = np.asarray(np.cos(dense @ frequencies + phases), np.float32)
    goal, importance = target.astype(np.float64), weight.astype(np.float64)
    said: Doubles = np.zeros(len(goal))
    for _ in range(ridge.rounds):
        # The usual scale sqrt(2 / features) of the waves is folded into the penalty.
        weights, intercept = dense_ridge(waves, goal - said, importance, ridge.structure * count / 2)
        table = token_ridge(tokens, goal - waves @ weights - intercept, importance, ridge.tokens)
        said = tokens @ table
    return Linear(frequencies, phases, weights.astype(np.float32), intercept, table.astype(np.float32))
