import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from trimtab_classifier import linear
from trimtab_classifier.linear import Ridge


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.1, 50))
def test_conjugate_gradients_reach_the_closed_form(seed, penalty):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(0, 1, (20, 8)) * (rng.random((20, 8)) < 0.5)
    target, weight = rng.normal(0, 1, 20), rng.random(20) + 0.1
    exact = np.linalg.solve(matrix.T @ (matrix * weight[:, None]) + penalty * np.eye(8), matrix.T @ (weight * target))
    found = linear.token_ridge(sparse.csr_matrix(matrix), target, weight, penalty)
    assert found == pytest.approx(exact, abs=1e-4)


def test_the_intercept_is_not_penalised():
    features = np.random.default_rng(0).normal(0, 1, (50, 3)).astype(np.float32)
    weights, intercept = linear.dense_ridge(features, np.full(50, 7.0), np.ones(50), penalty=1e9)
    assert intercept == pytest.approx(7.0)
    assert weights == pytest.approx(np.zeros(3), abs=1e-6)


def test_a_row_without_weight_changes_nothing():
    rng = np.random.default_rng(3)
    features = rng.normal(0, 1, (30, 3)).astype(np.float32)
    target, weight = rng.normal(0, 1, 30), np.ones(30)
    weight[0] = 0
    before = linear.dense_ridge(features, target, weight, 1.0)
    target[0] = 1e6
    after = linear.dense_ridge(features, target, weight, 1.0)
    assert after[1] == pytest.approx(before[1])
    assert after[0] == pytest.approx(before[0])


def test_both_parts_are_learned():
    rng = np.random.default_rng(4)
    dense = rng.normal(0, 1, (400, 6)).astype(np.float32)
    chosen = rng.random((400, 40)) < 0.2
    target = (0.3 * np.tanh(dense[:, 0]) + 0.5 * chosen[:, 3]).astype(np.float32)
    tokens = sparse.csr_matrix(chosen.astype(np.float32))
    model = linear.fit(tokens, dense, target, np.ones(400, np.float32), Ridge(structure=0.01, tokens=0.1))
    predicted = model.predict(tokens, dense)
    assert np.corrcoef(predicted, target)[0, 1] > 0.95
    assert model.table[3] == model.table.max()


def test_prediction_cannot_run_away_on_odd_input():
    rng = np.random.default_rng(5)
    dense = rng.normal(0, 1, (200, 6)).astype(np.float32)
    none = sparse.csr_matrix((200, 10), dtype=np.float32)
    model = linear.fit(none, dense, dense[:, 0], np.ones(200, np.float32))
    bound = np.abs(model.weights).sum() + abs(model.intercept)
    assert np.abs(model.predict(none[:1], np.full((1, 6), 1e4, np.float32))).max() <= bound
