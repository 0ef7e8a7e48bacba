import numpy as np
import pytest

from trimtab_classifier.evaluation import curves, rivals
from trimtab_classifier.evaluation.learners import Fitted, encode

TOPICS = ("the river delta floods in spring", "a sorted list of integers in code", "contract law and liability")
TEXTS = [f"{TOPICS[i % 3]} number {i}" for i in range(240)]
HARD = np.array([i % 3 == 1 for i in range(240)])
WEAK, STRONG = (~HARD).astype(float), np.ones(240)
LEARN, JUDGE = np.arange(160), np.arange(160, 240)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return Fitted.of(encode(TEXTS), LEARN, JUDGE)


def test_every_method_finds_the_topic_that_needs_the_strong_model_without_reading_judged_labels(fitted):
    lost = WEAK.copy()
    lost[JUDGE] = np.nan
    found = rivals.gains(fitted, lost, STRONG)
    areas = {method: curves.auc(score, HARD[JUDGE]) for method, score in found.items()}
    assert set(areas) == {rivals.SIMILARITY, rivals.FACTORS, rivals.CLUSTERS, rivals.HYBRID}
    assert min(areas.values()) > 0.95, areas


def test_options_have_a_cost_each_and_the_threshold_looks_at_two(fitted):
    quality, cost = np.stack([WEAK, WEAK * 0, STRONG], axis=1), np.tile([1.0, 3.0, 9.0], (240, 1))
    found = rivals.options(fitted, quality, cost)
    assert all(expected.shape == paid.shape == (80, 3) for expected, paid in found.values())
    assert np.isneginf(found[rivals.HYBRID][0][:, 1]).all()
    assert found[rivals.CLUSTERS][1] == pytest.approx(cost[JUDGE])


def test_latent_vectors_have_length_one_and_keep_topics_together(fitted):
    vectors = rivals.latent(fitted.inputs.tokens, LEARN, dimensions=8)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(240), abs=1e-4)
    near = vectors[JUDGE] @ vectors[JUDGE].T
    same = np.equal.outer(JUDGE % 3, JUDGE % 3)
    assert near[same].mean() > near[~same].mean() + 0.3
