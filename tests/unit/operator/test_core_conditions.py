"""Conditions: times only on flips, abnormal ones only while true, one Event per transition."""

from typing import Any

import pytest

from trimtab_operator.core.conditions import READY, RECONCILING, STALLED, Fact, merge, timestamp, transitions

T0, T1 = "2026-01-01T00:00:00Z", "2026-01-01T00:01:40Z"
AT_T0 = 1767225600.0


def condition(kind: str = READY, status: str = "True", reason: str = "Available", **changes: Any) -> dict[str, Any]:
    plain = {"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": 1}
    return {**plain, "lastTransitionTime": T0, **changes}


def fact(kind: str = READY, status: bool | None = True, reason: str = "Available", message: str = "") -> Fact:
    return Fact(kind, status, reason, message)


def test_a_first_condition_is_dated_now():
    assert merge([], [fact()], generation=3, now=AT_T0) == [condition(observedGeneration=3)]


def test_an_unchanged_status_keeps_its_time_and_takes_the_new_words():
    (after,) = merge([condition()], [fact(message="2 of 2")], generation=2, now=AT_T0 + 100)
    assert (after["lastTransitionTime"], after["message"], after["observedGeneration"]) == (T0, "2 of 2", 2)


def test_a_flip_is_dated_now():
    (after,) = merge([condition()], [fact(status=False)], generation=1, now=AT_T0 + 100)
    assert (after["status"], after["lastTransitionTime"]) == ("False", T1)


def test_abnormal_conditions_are_there_only_while_they_are_true():
    facts = [fact(), fact(RECONCILING, status=False), fact(STALLED, status=False)]
    assert [c["type"] for c in merge([condition(STALLED)], facts, generation=1, now=AT_T0)] == [READY]


def test_unknown_is_a_status():
    assert merge([], [fact(status=None)], generation=1, now=AT_T0)[0]["status"] == "Unknown"


def test_a_message_fits_into_the_api():
    assert len(merge([], [fact(message="x" * 40000)], generation=1, now=AT_T0)[0]["message"]) == 32768


def test_times_are_whole_seconds_in_utc():
    assert timestamp(AT_T0 + 0.9) == T0


GOOD, BAD = condition(), condition(status="False", reason="NotOurs")
STUCK, MOVING = condition(STALLED, reason="NotOurs"), condition(RECONCILING, reason="PodsNotReady")
WAITING = condition(status="False", reason="PodsNotReady")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param([], [GOOD], [], id="born good"),
        pytest.param([], [BAD, STUCK], [(READY, True), (STALLED, True)], id="born bad"),
        pytest.param([], [WAITING, MOVING], [], id="born moving"),
        pytest.param([GOOD], [GOOD], [], id="still good"),
        pytest.param([WAITING, MOVING], [GOOD], [(READY, False)], id="it becomes ready"),
        pytest.param([GOOD], [WAITING, MOVING], [(READY, False)], id="readiness is lost while it moves"),
        pytest.param([WAITING, MOVING], [{**WAITING, "reason": "RollingOut"}, MOVING], [], id="another step"),
        pytest.param([GOOD], [BAD, STUCK], [(READY, True), (STALLED, True)], id="it breaks"),
        pytest.param([BAD], [{**BAD, "reason": "SpecInvalid"}], [(READY, True)], id="broken otherwise"),
        pytest.param([BAD], [{**BAD, "message": "other words"}], [], id="other words"),
    ],
)
def test_news(before: list[Any], after: list[Any], expected: list[Any]):
    assert [(t.type, t.warning) for t in transitions(before, after)] == expected
