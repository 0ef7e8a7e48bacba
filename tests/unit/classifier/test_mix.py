import dataclasses

import numpy as np
import pytest

from trimtab_classifier.evaluation import ladder, ladders, mix
from trimtab_classifier.evaluation.splits import Folders, Split

TASKS = np.repeat([0, 1, 2], [60, 30, 30])
"""Easy, medium, hard: the cheap option is right on all, on half and on none of their rows."""
CHEAP = np.concatenate([np.ones(60), np.resize([1.0, 1.0, 0.0, 0.0], 30), np.zeros(30)])
SPLIT = Split(np.arange(0, 120, 2), np.arange(1, 120, 2))
NAME = ladder.OURS


def problem() -> ladder.Problem:
    quality = np.stack([CHEAP, np.ones(120)], axis=1)
    return ladder.Problem([f"row {i}" for i in range(120)], None, TASKS, quality, np.tile([1.0, 10.0], (120, 1)))


def plans(known: np.ndarray | None = None) -> ladder.Plans:
    """A method that knows how good the cheap option is on each task."""
    by_task = np.array([1.0, 0.5, 0.0])[TASKS] if known is None else known
    quality, cost = np.stack([by_task, np.ones(120)], axis=1), np.tile([1.0, 10.0], (120, 1))
    sides = ({NAME: ladder.Expected(quality[rows], cost[rows])} for rows in (SPLIT.learn, SPLIT.judge))
    return ladder.Plans(SPLIT, *sides)


def study(**changes) -> ladders.Study:
    return ladders.Study("rows", dataclasses.replace(problem(), **changes), [plans()])


def test_strata_come_from_the_success_of_the_cheap_option_on_the_task():
    assert mix.strata(problem(), np.arange(120)).tolist() == [2] * 60 + [1] * 30 + [0] * 30


def test_judged_labels_do_not_move_a_stratum():
    lost = problem()
    lost.quality[SPLIT.judge] = 0
    assert (mix.strata(lost, SPLIT.learn) == mix.strata(problem(), SPLIT.learn)).all()


def test_each_side_is_weighted_to_the_mix():
    side, stratum = mix.Side.of(problem(), plans()), mix.strata(problem(), SPLIT.learn)
    for rows in (SPLIT.learn, SPLIT.judge):
        shares = [side.problem.weight[rows][stratum[rows] == place].sum() for place in range(3)]
        assert shares == pytest.approx(list(mix.SHARES))


def test_a_stratum_without_rows_leaves_its_share_to_the_others():
    assert mix._weight(np.array([2, 2, 1]), np.arange(3)) == pytest.approx([0.35 / 0.95, 0.35 / 0.95, 0.25 / 0.95])


def test_easy_traffic_goes_to_the_cheap_option_and_the_saving_is_its_share():
    result = mix.judge([study()])
    assert result.id == "mix.saving"
    assert result.details["accuracy_kept"]
    assert result.value == pytest.approx(0.70 * 0.9)
    assert result.low <= result.value <= result.high
    assert result.details["rows_by_stratum"] == [{"hard": 15, "medium": 15, "easy": 30}]


def test_two_sets_share_one_accuracy():
    result = mix.judge([study(), study(quality=np.ones((120, 2)))])
    assert result.details["accuracy_difference"][NAME] >= -mix.ALLOWANCE
    assert result.value > mix.judge([study()]).value


def test_nothing_to_save_where_the_cheap_option_is_never_right():
    hopeless = np.stack([np.zeros(120), np.ones(120)], axis=1)
    result = mix.judge([dataclasses.replace(study(quality=hopeless), planned=[plans(np.zeros(120))])])
    assert result.value == pytest.approx(0)


def test_shuffled_labels_of_judged_rows_lose_what_the_strata_promise():
    moved = problem().quality
    moved[SPLIT.judge] = np.random.default_rng(2).permutation(moved[SPLIT.judge])
    result = mix.judge([study(quality=moved)])
    assert result.details["accuracy_difference"][NAME] < -0.1
    assert not result.met


def test_no_sets_no_figure(tmp_path):
    assert mix.run(Folders(tmp_path)) == []
