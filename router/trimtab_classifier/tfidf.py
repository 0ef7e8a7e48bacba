"""TF-IDF over hashed tokens, the training side of the formula that the exported graph computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trimtab_classifier import features
from trimtab_classifier.features import Query
from trimtab_classifier.network import Inputs, tokens_matrix

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

CLIP: Final = 3.0
"""Standard deviations beyond which a dense feature is cut, so that odd input cannot drive a head out of its range."""
_MIN_SCALE: Final = np.float32(0.01)


def encode_rows(queries: Sequence[Query], chunk: int = 64) -> Inputs:
    """Token counts (CSR) and dense features of many queries."""
    ids: list[NDArray[Any]] = []
    counts: list[NDArray[Any]] = []
    dense: list[Floats] = []
    for start in range(0, len(queries), chunk):
        batch = features.encode(queries[start : start + chunk])
        for row, count in zip(batch["ids"], batch["counts"], strict=True):
            seen = count > 0
            ids.append(row[seen])
            counts.append(count[seen])
        dense.append(batch["dense"])
    return Inputs(tokens_matrix(ids, counts, features.BUCKETS), np.concatenate(dense))


def inverse_frequency(counts: Any) -> Floats:
    """log((1 + rows) / (1 + rows with the bucket)) + 1, the smooth form of scikit-learn."""
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.asarray(np.log((1 + counts.shape[0]) / (1 + frequency)) + 1, np.float32)


def weigh(counts: Any, idf: Floats) -> Any:
    """(1 + log tf) * idf, each row scaled to length one."""
    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    scale = sparse.diags((1 / np.maximum(lengths, 1e-6)).astype(np.float32))
    return sparse.csr_matrix(scale @ weighted, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scaler:
    """Document frequencies of tokens, means and deviations of dense features."""

    idf: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, raw: Inputs, learn: Rows) -> Self:
        """From the given rows alone."""
        dense = raw.dense[learn]
        return cls(inverse_frequency(raw.tokens[learn]), dense.mean(axis=0), dense.std(axis=0) + _MIN_SCALE)

    def apply(self, raw: Inputs) -> Inputs:
        """TF-IDF weights of length one, dense features in standard deviations."""
        dense = np.clip((raw.dense - self.mean) / self.scale, -CLIP, CLIP)
        return Inputs(weigh(raw.tokens, self.idf), np.asarray(dense, np.float32))
