import numpy as np
import pytest

from trimtab_classifier.evaluation import two_tier
from trimtab_classifier.evaluation.forest import Forest, grow
from trimtab_classifier.evaluation.splits import Split

SMALL = Forest(trees=20, leaf=3)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, 4))


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    return rows(300)


def step(features: np.ndarray) -> np.ndarray:
    """A step that no line follows: only the middle of the first feature counts."""
    return (np.abs(features[:, 0] - 0.5) < 0.25).astype(float)


def test_trees_follow_a_step_that_no_line_follows(known):
    asked = rows(400)[300:]
    predicted = grow(SMALL, known, step(known), asked)
    assert predicted.shape == (100,)
    assert np.corrcoef(predicted, step(asked))[0, 1] > 0.6


def test_several_targets_keep_their_columns(known):
    target = np.stack([step(known), 1 - step(known)], axis=1)
    predicted = grow(SMALL, known, target, known)
    assert predicted.shape == target.shape
    assert predicted.sum(axis=1) == pytest.approx(np.ones(len(known)))


def test_the_same_rows_and_seed_give_the_same_values(known):
    first, second = (grow(SMALL, known, step(known), known) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_rows_to_judge_are_not_read(known):
    one, other = (grow(SMALL, known, step(known), np.vstack([known[:5], extra])) for extra in (known[5:6], known[9:12]))
    assert one[:5].tolist() == other[:5].tolist()


def test_a_target_that_is_constant_stays_so(known):
    assert grow(SMALL, known, np.full(len(known), 0.25), known) == pytest.approx(np.full(len(known), 0.25))


def test_inner_folds_keep_domains_together_and_leave_the_judged_rows_alone():
    domain = [f"domain {i % 9}" for i in range(90)]
    split = Split(np.arange(60), np.arange(60, 90))
    inner = two_tier.inner_folds(split, domain)
    assert sorted(np.concatenate([fold.judge for fold in inner])) == list(range(60))
    for fold in inner:
        assert not {domain[row] for row in fold.learn} & {domain[row] for row in fold.judge}
        assert max(fold.learn.max(), fold.judge.max()) < 60
