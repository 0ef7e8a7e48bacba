"""How pytest fixtures give a real part: progress is seen, what cannot be had is skipped or fails, by one rule."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, TypeVar

import pytest

from testcluster.errors import StartError, UnavailableError
from testcluster.progress import Progress, to_stderr

T = TypeVar("T")


def unavailable(message: object) -> NoReturn:
    """A part that cannot be had: a skip on somebody's machine, a failure where CI must show everything."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{message} (CI={os.environ['CI']}: nothing may be missing)", pytrace=False)
    pytest.skip(str(message))


def visible(config: pytest.Config) -> Progress:
    """Progress that is seen although pytest captures output."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            to_stderr(line)

    return show


@contextmanager
def provided(part: AbstractContextManager[T]) -> Iterator[T]:
    """Enter a part for a fixture; UnavailableError while entering it becomes the skip or the failure."""
    try:
        value = part.__enter__()
    except UnavailableError as error:
        unavailable(error)
    except StartError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield value
    finally:
        part.__exit__(None, None, None)


def limit_test_alone(items: list[pytest.Item], fixtures: frozenset[str], seconds: float) -> None:
    """Count a test's time limit without its fixtures: the first user of a session's server waits for its start."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & fixtures and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(seconds, func_only=True))
