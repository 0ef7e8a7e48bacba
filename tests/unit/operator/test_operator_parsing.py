"""Parsed resources are kept for as long as what they come from stays the same, and no longer."""

import copy
from typing import Any

import pytest

from support.manifests import pool_manifest
from trimtab_operator.shell.parsing import Parsed


def live(**changes: Any) -> dict[str, Any]:
    return pool_manifest(
        **{"metadata__resourceVersion": "1", "metadata__uid": "u", "metadata__generation": 1} | changes
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata__resourceVersion": "2"},
        {"metadata__managedFields": [{"manager": "kubectl"}]},
        {"status": {"replicas": 3}},
        {},
    ],
    ids=["another version", "field managers", "a status", "nothing"],
)
def test_it_is_parsed_once(changes: dict[str, Any]):
    parsed = Parsed()
    first, _ = parsed.of(live())
    again, problem = parsed.of(copy.deepcopy(live(**changes)))
    assert again is first
    assert (first is None, problem) == (False, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec__replicas": 2, "metadata__generation": 2},
        {"spec__replicas": 2},
        {"metadata__labels": {"app.kubernetes.io/part-of": "x"}},
        {"metadata__uid": "another"},
        {"metadata__deletionTimestamp": "2026-01-01T00:00:00Z"},
    ],
    ids=["a spec", "a spec of a server without generations", "a label", "another object", "an end"],
)
def test_what_matters_is_parsed_again(changes: dict[str, Any]):
    parsed = Parsed()
    first, _ = parsed.of(live())
    second, _ = parsed.of(live(**changes))
    assert second is not first
    assert second is not None


def test_a_bad_spec_is_remembered_until_it_is_mended():
    parsed = Parsed()
    for _ in range(2):
        resource, problem = parsed.of(live(spec__replicas=-1))
        assert resource is None
        assert problem is not None
        assert "spec.replicas" in problem.message
    assert parsed.of(live())[1] is None


def test_what_follows_is_made_once():
    parsed, made = Parsed(), []

    def make() -> int:
        made.append(1)
        return len(made)

    first, _ = parsed.of(live())
    assert first is not None
    assert [parsed.once(first, "what", make), parsed.once(first, "what", make)] == [1, 1]
    assert parsed.once(first, "else", make) == 2
    second, _ = parsed.of(live(spec__replicas=5))
    assert second is not None
    assert parsed.once(second, "what", make) == 3
    assert parsed.once(first, "what", make) == 4, "nothing is kept for what is no longer there"
    assert parsed.once(second, "what", make) == 3
