"""Extremely randomised trees (Geurts et al., 2006) over dense features; the same rows and seed give the same values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forest:
    """How trees are grown."""

    trees: int = 150
    leaf: int = 12
    """Rows that a leaf holds at least."""
    share: float = 0.4
    """Share of the features that are tried at a node."""
    rows: float = 0.7
    """Share of the rows that a tree sees."""
    seed: int = 17


def grow(forest: Forest, known: NDArray[np.floating], target: Doubles, asked: NDArray[np.floating]) -> Doubles:
    """Fits `target` (one or several columns) on the rows `known` and predicts the rows `asked`."""
    trees = ExtraTreesRegressor(
        forest.trees,
        min_samples_leaf=forest.leaf,
        max_features=forest.share,
        bootstrap=True,
        max_samples=forest.rows,
        random_state=forest.seed,
    )
    return np.asarray(trees.fit(known, target).predict(asked), np.float64).reshape(len(asked), *target.shape[1:])
