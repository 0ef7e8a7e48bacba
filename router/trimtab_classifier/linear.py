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

FEATURES: Final = 256
GAMMA: Final = 0.005
_CG_STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class Ridge:
    """How strongly each part is held back."""

    structure: float = 3.0
    tokens: float = 15.0
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
    frequencies = (rng.standard_normal((dense.shape[1], FEATURES)) * np.sqrt(2 * GAMMA)).astype(np.float32)
    phases = (rng.random(FEATURES) * 2 * np.pi).astype(np.float32)
    waves = np.asarray(np.cos(dense @ frequencies + phases), np.float32)
    goal, importance = target.astype(np.float64), weight.astype(np.float64)
    # The usual scale sqrt(2 / FEATURES) of the waves is folded into the penalty.
    weights, intercept = dense_ridge(waves, goal, importance, ridge.structure * FEATURES / 2)
    left = goal - waves @ weights - intercept
    table = token_ridge(tokens, left, importance, ridge.tokens)
    return Linear(frequencies, phases, weights.astype(np.float32), intercept, table.astype(np.float32))
