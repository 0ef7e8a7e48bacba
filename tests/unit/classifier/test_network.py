import numpy as np
import pytest
from scipy import sparse

from trimtab_classifier import network
from trimtab_classifier.network import Inputs, Recipe, Targets

CLASSES = 3


def problem(rows: int = 60) -> tuple[Inputs, Targets]:
    rng = np.random.default_rng(1)
    label = rng.integers(0, CLASSES, rows)
    tokens = np.zeros((rows, 30), np.float32)
    tokens[np.arange(rows), label * 10 + rng.integers(0, 10, rows)] = 1.0
    lengths = np.full((rows, 2), np.nan, np.float32)
    lengths[:, 0] = label + rng.normal(0, 0.1, rows)
    dense = rng.normal(0, 1, (rows, 4)).astype(np.float32)
    return Inputs(sparse.csr_matrix(tokens), dense), Targets(label, lengths, np.ones(rows, np.float32))


def loss(raw: np.ndarray, targets: Targets, recipe: Recipe) -> float:
    picked = network.softmax(raw[:, :CLASSES])[np.arange(len(raw)), targets.label]
    total = -np.log(picked)
    for column, share in ((CLASSES, 0.5), (CLASSES + 1, 0.9)):
        gap = targets.lengths[:, 0] - raw[:, column]
        total = total + recipe.length_weight * np.maximum(share * gap, (share - 1) * gap)
    return float((total * targets.weight).mean())


def test_the_gradient_is_the_slope_of_the_loss():
    rng = np.random.default_rng(2)
    _, targets = problem(8)
    raw = rng.normal(0, 1, (8, CLASSES + 2)).astype(np.float64)
    grad = network.output_gradient(raw, targets, CLASSES, Recipe())
    step = 1e-5
    for row in range(8):
        for column in range(CLASSES + 2):
            up, down = raw.copy(), raw.copy()
            up[row, column] += step
            down[row, column] -= step
            slope = (loss(up, targets, Recipe()) - loss(down, targets, Recipe())) / (2 * step)
            assert grad[row, column] == pytest.approx(slope, abs=1e-3)


def test_unknown_targets_teach_nothing():
    raw = np.ones((2, CLASSES + 2), np.float32)
    unknown = Targets(np.array([-1, 0]), np.full((2, 3), np.nan, np.float32), np.ones(2, np.float32))
    grad = network.output_gradient(raw, unknown, CLASSES, Recipe())
    assert not grad[0].any()
    assert not grad[1, CLASSES:].any()
    assert grad[1, :CLASSES].any()


def test_training_learns_classes_and_lengths():
    inputs, targets = problem()
    weights = network.train(inputs, targets, CLASSES, Recipe(hidden=16, epochs=150, batch=16, rate=0.02))
    raw = network.outputs(weights, inputs)
    assert (raw[:, :CLASSES].argmax(axis=1) == targets.label).mean() > 0.95
    assert np.abs(raw[:, CLASSES] - targets.label).mean() < 0.4
    assert (targets.lengths[:, 0] <= raw[:, CLASSES + 1] + 0.2).mean() > 0.7


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    inputs, targets = problem()
    first, second, other = (
        network.train(inputs, targets, CLASSES, Recipe(hidden=4, epochs=2, seed=seed)) for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert not (first.table == other.table).all()


def test_token_counts_become_a_sparse_matrix():
    matrix = network.tokens_matrix([np.array([1, 3]), np.array([], np.int32)], [np.array([2, 1]), np.array([])], 5)
    assert matrix.toarray().tolist() == [[0, 2, 0, 1, 0], [0, 0, 0, 0, 0]]
