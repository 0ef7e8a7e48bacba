"""The decision log read again: lines to observations, and how many lines were of no use."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trimtab_router.core.outcomes import Arm
from trimtab_router.core.plan import UNSCORED


@dataclass(frozen=True, slots=True)
class Observation:
    """One request that the classifier scored and an engine answered."""

    class_name: str
    arm: Arm
    gain: float
    """As the classifier predicted it."""
    cost: float
    """Currency units."""
    score: float | None
    """What feedback said, 0..1; None without any."""


@dataclass(slots=True)
class Skipped:
    """Lines that teach nothing, by why."""

    broken: int = 0
    other_policy: int = 0
    unanswered: int = 0
    """Ended with anything but an answer."""
    unscored: int = 0
    """Chosen by hand, by length or without the classifier."""
    unmatched_feedback: int = 0

    def words(self) -> str:
        """Those that there are."""
        names = {
            "broken": "broken lines",
            "other_policy": "of other policies",
            "unanswered": "not answered",
            "unscored": "not scored by the classifier",
            "unmatched_feedback": "feedback without a decision",
        }
        return ", ".join(f"{getattr(self, name)} {text}" for name, text in names.items() if getattr(self, name))


@dataclass(slots=True)
class Journal:
    """Everything that was read."""

    observations: list[Observation] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def judged(self) -> int:
        """Observations with feedback."""
        return sum(o.score is not None for o in self.observations)


def read(lines: Iterable[str], policy: str | None = None) -> Journal:
    """Joins decisions with the last feedback on each; `policy` is `namespace/name`, None takes all."""
    journal, said = Journal(), {}
    decisions: list[dict[str, Any]] = []
    for line in lines:
        record = _record(line)
        if record is None:
            journal.skipped.broken += bool(line.strip())
        elif record["kind"] == "feedback":
            said[record["request_id"]] = float(record["score"])
        else:
            decisions.append(record)
    known = {record["request_id"] for record in decisions}
    journal.skipped.unmatched_feedback = sum(name not in known for name in said)
    for record in decisions:
        _add(journal, record, said, policy)
    return journal


def _record(line: str) -> dict[str, Any] | None:
    """The record of a line; None when it is none, for example because a worker was killed while it wrote."""
    try:
        found = json.loads(line)
        if found["kind"] == "feedback":
            return found if isinstance(found["request_id"], str) and 0 <= found["score"] <= 1 else None
        return found if found["kind"] == "decision" and isinstance(found["request_id"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _add(journal: Journal, record: dict[str, Any], said: dict[str, float], policy: str | None) -> None:
    skipped = journal.skipped
    try:
        if policy is not None and record["policy"] != policy:
            skipped.other_policy += 1
        elif record["outcome"] != "ok":
            skipped.unanswered += 1
        elif record["class"] == UNSCORED or record["gain"] is None or record["thinking_tokens"] is None:
            skipped.unscored += 1
        else:
            arm = Arm(str(record["tier"]), int(record["thinking_tokens"]), str(record["strategy"]))
            score = said.get(record["request_id"])
            gain, cost = float(record["gain"]), float(record["cost"])
            journal.observations.append(Observation(str(record["class"]), arm, gain, cost, score))
    except (KeyError, ValueError, TypeError):
        skipped.broken += 1
