"""Published kinds of router, learned from the same rows and features as ours: what every figure is compared with.

Similarity weighting and matrix factorisation: RouteLLM (arXiv 2406.18665). Cluster table: Avengers-Pro (arXiv
2508.12631). Threshold on the chance that the small model is no worse: Hybrid LLM (arXiv 2404.14618). Their text
encoders are replaced by one latent semantic analysis, learned from the rows too, so that only the method differs.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier import familiarity
from trimtab_classifier.evaluation.learners import Fitted, class_table

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Pair = tuple[Doubles, Doubles]

SIMILARITY: Final = "RouteLLM similarity"
FACTORS: Final = "RouteLLM factorisation"
CLUSTERS: Final = "cluster table"
HYBRID: Final = "Hybrid LLM"

DIMENSIONS: Final = 64
_OVERSAMPLE: Final = 16
_GAMMA: Final = 10.0
"""Base of the weight of a row by its similarity, as in RouteLLM."""
_SHARPEN: Final = 2.0
"""Similarities, and the weights above those of strangers, are raised to this power: the vectors of a latent analysis
lie closer together than a language model's."""
_ROWS_PER_CLUSTER: Final = 150
_MOST_CLUSTERS: Final = 64
_NEAREST: Final = 3
_CLUSTER_SHRINK: Final = 5.0
_FACTOR_PENALTY: Final = 30.0
_HYBRID_PENALTY: Final = 10.0
_CHUNK: Final = 512


def latent(tokens: Any, learn: NDArray[np.intp], dimensions: int = DIMENSIONS, seed: int = 3) -> Floats:
    """Rows of `tokens` on the main directions of those in `learn`, length one (randomised SVD: Halko et al., 2011)."""
    taught = tokens[learn]
    width = min(dimensions + _OVERSAMPLE, *taught.shape)
    probe = np.random.default_rng(seed).standard_normal((taught.shape[1], width)).astype(np.float32)
    for _ in range(3):
        basis, _ = np.linalg.qr(taught @ probe)
        probe = taught.T @ basis
    _, _, directions = np.linalg.svd(np.asarray(basis.T @ taught), full_matrices=False)
    found = np.asarray(tokens @ directions[:dimensions].T, np.float32)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6), np.float32)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Latent vectors of the rows to learn from and of the rows to judge."""

    learn: Floats
    judge: Floats

    @classmethod
    def of(cls, fitted: Fitted) -> "Embedded":
        """From the tokens of a split; nothing of the judged rows shapes the directions."""
        vectors = latent(fitted.inputs.tokens, fitted.learn)
        return cls(vectors[fitted.learn], vectors[fitted.judge])

    def similarity(self, target: Doubles) -> Doubles:
        """Mean of `target` [rows to learn from, columns], each row weighted by its similarity to the judged one."""
        parts = []
        for start in range(0, len(self.judge), _CHUNK):
            near = np.clip(self.judge[start : start + _CHUNK] @ self.learn.T, 0, 1) ** _SHARPEN
            weight = _GAMMA ** (1 + near / np.maximum(near.max(axis=1, keepdims=True), 1e-6))
            weight = (weight - _GAMMA) ** _SHARPEN
            parts.append(weight @ target / np.maximum(weight.sum(axis=1, keepdims=True), 1e-9))
        return np.asarray(np.concatenate(parts), np.float64)

    def clusters(self, target: Doubles) -> Doubles:
        """Table of `target` per k-means cluster, averaged over the nearest clusters."""
        count = int(np.clip(len(self.learn) // _ROWS_PER_CLUSTER, 2, _MOST_CLUSTERS))
        centres = familiarity.clusters(self.learn, seed=3, count=count)
        label = familiarity.squared_distances(self.learn, centres).argmin(axis=1)
        table = class_table(label, target, len(centres), shrink=_CLUSTER_SHRINK)
        far = familiarity.squared_distances(self.judge, centres)
        nearest = np.argsort(far, axis=1)[:, :_NEAREST]
        weight = np.exp(-8 * np.take_along_axis(far, nearest, axis=1).astype(np.float64))
        weight /= weight.sum(axis=1, keepdims=True)
        return np.asarray((weight[:, :, None] * table[nearest]).sum(axis=1), np.float64)

    def factorised(self, target: Doubles) -> Doubles:
        """Vector of the query times a learned vector per column: the bilinear score, fitted by ridge."""
        vectors, mean = self.learn.astype(np.float64), target.mean(axis=0)
        gram = vectors.T @ vectors + _FACTOR_PENALTY * np.eye(vectors.shape[1])
        return np.asarray(self.judge @ np.linalg.solve(gram, vectors.T @ (target - mean)) + mean, np.float64)


def gains(fitted: Fitted, weak: Doubles, strong: Doubles) -> dict[str, Doubles]:
    """Score of each judged row by method, high where the strong model is worth its price; `weak`, `strong` of all rows.

    Ties prefer neither model, so the preferences that RouteLLM learns from are the differences.
    """
    embedded, learn = Embedded.of(fitted), fitted.learn
    gain = (strong - weak)[learn, None]
    not_worse = (weak >= strong).astype(np.float64)
    return {
        SIMILARITY: embedded.similarity(gain)[:, 0],
        FACTORS: embedded.factorised(gain)[:, 0],
        CLUSTERS: embedded.clusters(gain)[:, 0],
        HYBRID: -fitted.tokens_only(not_worse, _HYBRID_PENALTY),
    }


def options(fitted: Fitted, quality: Doubles, cost: Doubles) -> dict[str, Pair]:
    """Expected quality and cost of every option [judged rows, options] by method; both arrays are over all rows."""
    embedded, learn = Embedded.of(fitted), fitted.learn
    mean_cost = np.broadcast_to(cost[learn].mean(axis=0), (len(fitted.judge), cost.shape[1]))
    found = {
        SIMILARITY: (embedded.similarity(quality[learn]), mean_cost),
        FACTORS: (embedded.factorised(quality[learn]), mean_cost),
        CLUSTERS: (embedded.clusters(quality[learn]), embedded.clusters(cost[learn])),
    }
    return found | {HYBRID: (_two_options(fitted, quality, cost), mean_cost)}


def _two_options(fitted: Fitted, quality: Doubles, cost: Doubles) -> Doubles:
    """Only the cheapest and the best option count; the cheap one is worth the chance that it is not worse."""
    learn = fitted.learn
    small, large = int(cost[learn].mean(axis=0).argmin()), int(quality[learn].mean(axis=0).argmax())
    worth = np.full((len(fitted.judge), quality.shape[1]), -np.inf)
    worth[:, large] = 1.0
    not_worse = (quality[:, small] >= quality[:, large]).astype(np.float64)
    worth[:, small] = fitted.tokens_only(not_worse, _HYBRID_PENALTY)
    return worth
