"""Figures of merit: calibration, correlation."""

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.network import softmax

Floats = NDArray[np.float32]


def expected_calibration_error(probabilities: Floats, label: NDArray[np.intp], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == label
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in np.unique(place)
    ]
    return float(sum(gaps))


def temperature(logits: Floats, label: NDArray[np.intp]) -> float:
    """The temperature with the least negative log likelihood, from a fixed grid."""
    grid = np.exp(np.linspace(np.log(0.5), np.log(5.0), 93))
    rows = np.arange(len(label))
    losses = [-np.log(softmax(logits / np.float32(t))[rows, label] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])


def correlation(predicted: Floats, true: Floats) -> float | None:
    """Pearson's correlation, four decimals; None when either side is constant or empty."""
    if len(true) < 2 or predicted.std() == 0 or true.std() == 0:
        return None
    return round(float(np.corrcoef(predicted, true)[0, 1]), 4)
