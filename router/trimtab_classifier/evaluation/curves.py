"""Areas, thresholds and intervals; definitions of RouteLLM (arXiv 2406.18665) where it has them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]

Curve = list[tuple[float, float]]

RESAMPLES: Final = 400
_SHARES: Final = np.linspace(0, 1, 11)


@dataclass(frozen=True, slots=True)
class Picture:
    """Cost and quality by method, for a plot."""

    x: str
    y: str
    curves: dict[str, Curve]
    point: tuple[float, float] | None = None
    """Where the router works: the operating point that was fixed beforehand."""
    level: float | None = None
    """Quality that has to be kept."""


def shared_curve(score: Doubles, weak: Doubles, strong: Doubles) -> Curve:
    """Accuracy over the share of queries that go to the strong model, in steps of 2.5 %."""
    shares = np.linspace(0, 1, 41)
    accuracy = accuracy_by_share(score, weak, strong, shares)
    return [(float(x), float(y)) for x, y in zip(shares, accuracy, strict=True)]


def accuracy_by_share(score: Doubles, weak: Doubles, strong: Doubles, shares: Doubles) -> Doubles:
    """Accuracy when the given shares of queries, highest score first, go to the strong model."""
    order = np.argsort(-score, kind="stable")
    strong_first = np.concatenate(([0.0], np.cumsum(strong[order])))
    weak_first = np.concatenate(([0.0], np.cumsum(weak[order])))
    cut = np.round(shares * len(score)).astype(int)
    return np.asarray((strong_first[cut] + weak_first[-1] - weak_first[cut]) / len(score), np.float64)


def apgr(score: Doubles, weak: Doubles, strong: Doubles) -> float:
    """Average performance gap recovered: 0.5 for random, above 1 possible; NaN when strong is no better than weak."""
    gap = float(strong.mean() - weak.mean())
    if gap <= 0:
        return float("nan")
    curve = accuracy_by_share(score, weak, strong, _SHARES)
    area = float(((curve[1:] + curve[:-1]) / 2 * np.diff(_SHARES)).sum())
    return (area - float(weak.mean())) / gap


def auc(score: Doubles, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive row scores above a negative one, ties count half; NaN when one kind is missing."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    total = float(mean_rank[inverse][positive].sum())
    return (total - positives * (positives + 1) / 2) / (positives * negatives)


def undominated(points: Curve) -> Curve:
    """The points that no cheaper one equals in quality, by cost."""
    found: Curve = []
    for point in sorted(points, key=lambda each: (each[0], -each[1])):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found


def roc(score: Doubles, positive: NDArray[np.bool_]) -> Curve:
    """Share of positive rows over share of negative ones above a falling threshold, at most 101 points."""
    order = np.argsort(-score, kind="stable")
    found = np.concatenate(([0.0], np.cumsum(positive[order]))) / max(int(positive.sum()), 1)
    taken = np.concatenate(([0.0], np.cumsum(~positive[order]))) / max(int((~positive).sum()), 1)
    places = np.unique(np.linspace(0, len(score), 101).astype(int))
    return [(float(taken[place]), float(found[place])) for place in places]


def interval(statistic: Callable[[Rows], float], rows: int, seed: int = 5) -> tuple[float, float]:
    """Bootstrap interval of 95 % over rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, rows, rows)) for _ in range(RESAMPLES)]
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def ranks(score: Doubles) -> Doubles:
    """Scores as places 0..1, so that scores of different scales can be added."""
    order = np.argsort(np.argsort(score, kind="stable"), kind="stable")
    return np.asarray((order + 0.5) / max(len(score), 1), np.float64)
