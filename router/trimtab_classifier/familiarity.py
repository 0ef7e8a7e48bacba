"""How unlike the training data a query is: free energy of the class logits and distance to the nearest cluster."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLUSTERS: Final = 64
KNOTS: Final = 101
_ROUNDS: Final = 15


def energy(logits: Floats) -> Floats:
    """Free energy: high for a query that no class claims (Liu et al., 2020)."""
    top = logits.max(axis=1)
    return np.asarray(-(top + np.log(np.exp(logits - top[:, None]).sum(axis=1))), np.float32)


def squared_distances(points: Floats, centres: Floats) -> Floats:
    """Squared Euclidean distances, [points, centres], never negative."""
    cross = points @ centres.T
    total = (points * points).sum(axis=1)[:, None] - 2 * cross + (centres * centres).sum(axis=1)
    return np.asarray(np.maximum(total, 0), np.float32)


def clusters(points: Floats, seed: int, count: int = CLUSTERS) -> Floats:
    """Centres by Lloyd's k-means from a seeded draw; a cluster that empties keeps its centre."""
    rng = np.random.default_rng(seed)
    centres = points[rng.choice(len(points), min(count, len(points)), replace=False)].copy()
    for _ in range(_ROUNDS):
        nearest = squared_distances(points, centres).argmin(axis=1)
        for cluster in range(len(centres)):
            members = points[nearest == cluster]
            if len(members):
                centres[cluster] = members.mean(axis=0)
    return centres


def distance(points: Floats, centres: Floats) -> Floats:
    """Distance to the nearest centre."""
    return np.asarray(np.sqrt(squared_distances(points, centres).min(axis=1)), np.float32)


def knots(values: Floats) -> Floats:
    """The percentiles of values, 0 to 100."""
    return np.quantile(values, np.linspace(0, 1, KNOTS)).astype(np.float32)


def percentile(values: Floats, at: Floats) -> Floats:
    """Where values lie among the knots, 0..1: the mean of one clipped ramp per pair of knots."""
    widths = np.maximum(np.diff(at), np.float32(1e-6))
    return np.asarray(np.clip((values[:, None] - at[:-1]) / widths, 0, 1).mean(axis=1), np.float32)
