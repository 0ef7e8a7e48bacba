"""The cluster of the story, started once a session."""

from collections.abc import Generator, Iterator

import pytest

from testcluster.pytesting import limit_test_alone, provided, visible
from testcluster.story import StoryCluster, story_cluster

FIRST_FAILURE = pytest.StashKey[str]()
#: Printed where the log of a run ends, which is the part that everybody sees.
GLANCE = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside the first step of a story that fails: what the cluster looked like."""
    report = yield
    story = getattr(item, "funcargs", {}).get("story")
    if story is not None and report.failed and FIRST_FAILURE not in _module(item).stash:
        _module(item).stash[FIRST_FAILURE] = item.name
        report.sections.append(("the cluster", story.described()))
        item.config.stash[GLANCE] = story.glance()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if glance := config.stash.get(GLANCE, ""):
        terminalreporter.section("the cluster when the story failed")
        terminalreporter.write_line(glance)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Steps of a story build on each other: after one that failed, the others would only tell of it."""
    if failed := _module(item).stash.get(FIRST_FAILURE, None):
        pytest.fail(f"an earlier step failed: {failed}", pytrace=False)


def _module(item: pytest.Item) -> pytest.Module:
    module = item.getparent(pytest.Module)
    assert module is not None
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_test_alone(items, frozenset({"cluster"}), seconds=1800)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[StoryCluster]:
    """A cluster whose pods run, with GPUs to schedule and an image of this checkout (testcluster/story.py).

    The project's own node; with KIND=1 kind; with TRIMTAB_TEST_KUBECONFIG and TRIMTAB_TEST_IMAGE another one.
    """
    with provided(story_cluster(visible(request.config))) as started:
        yield started
