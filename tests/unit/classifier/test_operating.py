import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_classifier.evaluation.operating import SURE, Points, budget


def points(*triples) -> Points:
    return Points(*np.array(triples, float).T)


CHEAP, FAIR, GOOD, DEAR = (0.1, -0.03, 0.01), (0.3, 0.0, 0.01), (0.4, 0.01, 0.01), (0.9, 0.02, 0.01)


@pytest.mark.parametrize(
    ("candidates", "spend", "aim", "place"),
    [
        ((CHEAP, FAIR, GOOD, DEAR), 0.45, 0.0, 2),
        ((CHEAP, FAIR, GOOD, DEAR), 0.35, 0.0, 1),
        ((CHEAP, FAIR, GOOD, DEAR), 1.0, 0.0, 3),
        ((CHEAP, FAIR, GOOD, DEAR), 0.2, 0.0, 1),
        ((CHEAP, FAIR, GOOD, DEAR), 0.2, -0.015, 0),
        ((CHEAP, FAIR, GOOD, DEAR), 0.05, 0.0, 1),
        ((CHEAP, FAIR), 0.2, 0.05, 1),
        ((FAIR, (0.2, 0.0, 0.01)), 0.35, 0.0, 1),
    ],
    ids=[
        "the most accurate within the budget",
        "a smaller budget",
        "a budget for everything",
        "surely too inaccurate: the cheapest that reaches the aim",
        "within two standard errors of the aim",
        "nothing that cheap",
        "an aim out of reach: the most accurate",
        "the cheaper of equals",
    ],
)
def test_the_point(candidates, spend, aim, place):
    assert points(*candidates).best(spend, aim) == place


def test_points_come_from_rows():
    kept = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]])
    found = Points.of(np.ones(3), kept)
    assert found.difference.tolist() == [0.0, 0.0, 1.0]
    assert found.error == pytest.approx([0.0, 0.5, 0.0])


def test_a_row_that_comes_twice_counts_twice():
    kept = np.array([[1.0, 0.0]])
    assert Points.of(np.ones(1), kept, np.array([2.0, 1.0])).difference == pytest.approx([2 / 3])


def test_a_budget_stays_below_its_bar():
    assert budget(0.4) == pytest.approx(0.38)


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(-1, 1), st.floats(0, 0.1)), min_size=1, max_size=20),
    st.floats(0, 2),
    st.floats(-0.1, 0.1),
)
def test_the_budget_holds_or_the_aim_does_or_nothing_is_better(triples, spend, aim):
    found = points(*triples)
    place = found.best(spend, aim)
    affordable = found.cost[place] <= spend and found.difference[place] + SURE * found.error[place] >= aim
    reaches = found.difference[place] >= aim
    assert affordable or reaches or found.difference[place] == found.difference.max()
