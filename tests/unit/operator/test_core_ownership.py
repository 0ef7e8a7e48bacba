"""Whose an object is, when an apply would change something, and what is left over."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_operator.core import names
from trimtab_operator.core.ownership import covers, is_owned, needs_apply, prunable, replicas_claimed

UID = "uid-1"
MINE = {"uid": UID, "controller": True}
JSON = st.recursive(
    st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def child(name: str = "x", kind: str = "Service", digest: str = "d", **meta: Any) -> dict[str, Any]:
    whole = {"name": name, "annotations": {names.DIGEST_ANNOTATION: digest}, "ownerReferences": [MINE], **meta}
    return {"kind": kind, "metadata": whole, "spec": {"a": 1}}


@pytest.mark.parametrize(
    ("references", "owned"),
    [
        pytest.param([MINE], True, id="our controller reference"),
        pytest.param([{**MINE, "uid": "other"}], False, id="another owner"),
        pytest.param([{**MINE, "controller": False}], False, id="not the controller"),
        pytest.param([], False, id="nobody's"),
        pytest.param(None, False, id="none at all"),
    ],
)
def test_an_owner_reference_with_our_uid_makes_it_ours(references: Any, owned: bool):
    assert is_owned(child(ownerReferences=references), UID) is owned


@pytest.mark.parametrize(
    ("live", "desired", "covered"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, True, id="defaults of the server"),
        pytest.param({"a": 2}, {"a": 1}, False, id="another value"),
        pytest.param({}, {"a": 1}, False, id="a missing field"),
        pytest.param({"a": None}, {"a": {}}, False, id="an empty mapping chooses (emptyDir)"),
        pytest.param({}, {"a": []}, True, id="an empty list is absent"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, False, id="a longer list of values"),
        pytest.param({"a": [{"name": "x", "y": 1}]}, {"a": [{"name": "x"}]}, True, id="named items"),
        pytest.param({"a": [{"name": "z"}, {"name": "x"}]}, {"a": [{"name": "x"}]}, True, id="an injected sidecar"),
        pytest.param({"a": [{"name": "z"}]}, {"a": [{"name": "x"}]}, False, id="another item"),
        pytest.param({"a": "1Gi"}, {"a": "1024Mi"}, True, id="the same quantity"),
        pytest.param({"a": "500m"}, {"a": "0.5"}, True, id="half a core"),
        pytest.param({"a": "1Gi"}, {"a": "1G"}, False, id="another quantity"),
        pytest.param({"a": "x1"}, {"a": "x2"}, False, id="words"),
        pytest.param({"a": 0}, {"a": False}, True, id="nothing"),
        pytest.param("text", {"a": 1}, False, id="another shape"),
        pytest.param({"a": "text"}, {"a": [1]}, False, id="a list wanted"),
    ],
)
def test_covers(live: Any, desired: Any, covered: bool):
    assert covers(live, desired) is covered


@given(JSON)
def test_everything_covers_itself(value: Any):
    assert covers(value, value)


def test_an_apply_is_needed_for_what_is_missing_changed_or_drifted():
    assert needs_apply(child(), None)
    assert not needs_apply(child(), child(resourceVersion="7"))
    assert needs_apply(child(digest="new"), child()), "fields that are no longer desired"
    assert needs_apply(child(), {**child(), "spec": {"a": 2}}), "drift"
    assert needs_apply(child(), child(annotations=None))


def test_what_is_left_over_is_ours_unwanted_and_not_ending():
    left = child("left")
    live = [child(), left, child("theirs", ownerReferences=[]), child("ending", deletionTimestamp="now")]
    assert prunable(live, [child()], UID) == [left]
    assert prunable([child(kind="ConfigMap")], [child()], UID), "another kind of the same name"


@pytest.mark.parametrize(
    ("entries", "claimed"),
    [
        pytest.param([{"manager": "trimtab-replicas", "fieldsV1": {"f:spec": {"f:replicas": {}}}}], True, id="ours"),
        pytest.param([{"manager": "trimtab", "fieldsV1": {"f:spec": {"f:replicas": {}}}}], False, id="the children's"),
        pytest.param([{"manager": "trimtab-replicas", "fieldsV1": {}}], False, id="another field"),
        pytest.param(None, False, id="nobody's"),
    ],
)
def test_who_owns_replicas(entries: Any, claimed: bool):
    assert replicas_claimed({"metadata": {"managedFields": entries}}) is claimed
