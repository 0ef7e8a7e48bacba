"""TF-IDF over hashed tokens, the training side of the formula that the exported graph computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trimtab_classifier import features
from trimtab_classifier.features import Query
from trimtab_classifier.network import Inputs, tokens_matrix

Floats = NDArray[np.float32]


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
