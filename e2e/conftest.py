"""The cluster of the story, started once a session."""

from collections.abc import Iterator

import pytest

from testcluster.pytesting import limit_test_alone, provided, visible
from testcluster.story import StoryCluster, story_cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_test_alone(items, frozenset({"cluster"}), seconds=900)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[StoryCluster]:
    """A cluster whose pods run, with GPUs to schedule and an image of this checkout (testcluster/story.py).

    The project's own node; with KIND=1 kind; with TRIMTAB_TEST_KUBECONFIG and TRIMTAB_TEST_IMAGE another one.
    """
    with provided(story_cluster(visible(request.config))) as started:
        yield started
