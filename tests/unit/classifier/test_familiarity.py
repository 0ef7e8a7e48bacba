import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_classifier import familiarity


def test_energy_is_high_where_no_class_claims_the_query():
    low, high = familiarity.energy(np.array([[9.0, 0.0], [0.1, 0.0]], np.float32))
    assert low < high


def test_energy_survives_large_logits():
    assert np.isfinite(familiarity.energy(np.array([[1e4, -1e4]], np.float32))).all()


def test_clusters_find_the_groups():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(at, 0.1, (50, 2)) for at in ((0, 0), (5, 5), (0, 9))]).astype(np.float32)
    centres = familiarity.clusters(points, seed=1, count=3)
    assert familiarity.distance(np.array([[0, 0], [5, 5], [0, 9]], np.float32), centres).max() < 0.5
    assert familiarity.distance(np.array([[50, 50]], np.float32), centres)[0] > 40


def test_fewer_points_than_clusters():
    points = np.eye(3, dtype=np.float32)
    assert familiarity.distance(points, familiarity.clusters(points, seed=1)).max() == pytest.approx(0, abs=1e-3)


@settings(max_examples=50)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=200),
    st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=20),
)
def test_a_percentile_is_a_monotone_share(seen, asked):
    knots = familiarity.knots(np.array(seen, np.float32))
    places = familiarity.percentile(np.sort(np.array(asked, np.float32)), knots)
    assert (np.diff(places) >= -1e-6).all()
    assert places.min() >= 0
    assert places.max() <= 1 + 1e-6


def test_the_median_is_at_half():
    values = np.arange(1001, dtype=np.float32)
    assert familiarity.percentile(np.array([500], np.float32), familiarity.knots(values))[0] == pytest.approx(
        0.5, abs=0.01
    )
