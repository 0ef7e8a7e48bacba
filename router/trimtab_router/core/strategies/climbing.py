"""One answer at a time, and more where it is not good enough: escalation from a partial answer, and the cascade."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Final

from trimtab_crds.strategyspec import Signal
from trimtab_router.core.ladder import Rung
from trimtab_router.core.strategies.sampling import elect
from trimtab_router.core.strategies.script import Attempt, Choice, Outcome, Query, Script, instructed
from trimtab_router.core.strategies.verified import review, score

SHORT_DRAFT: Final = (
    "Think step by step, but keep only a minimal draft of each step, five words at most. Then give the answer."
)


def single(query: Query) -> Script:
    """One answer, escalated where its beginning asks for it."""
    return (yield from watched(query, query.attempt(query.plan.rung, "answer", show="all")))


def short_draft(query: Query) -> Script:
    """One answer whose reasoning is asked to be a draft (Chain of Draft, arXiv 2502.18600)."""
    messages = instructed(query.messages, SHORT_DRAFT)
    return (yield from watched(query, query.attempt(query.plan.rung, "answer", messages=messages, show="all")))


def watched(query: Query, attempt: Attempt) -> Script:
    """An attempt that is cut at a signal and followed by a longer thought or by the next tier."""
    rungs, why = list(query.climb), "Complete"
    steps = query.escalation.max_steps
    for number in range(steps + 1):
        watch = _signals(query, attempt, rungs) if number < steps else frozenset[Signal]()
        outcome = yield [replace(attempt, watch=watch)]
        if outcome.signal is None:
            if outcome.ended == "Failed" and attempt.resumes is not None and not outcome.begun:
                return (yield from _again(attempt, number))
            return Choice(number if outcome.ok else -1, why if outcome.ok else outcome.ended)
        why = str(outcome.signal)
        attempt = _following(query, attempt, outcome, rungs)
    raise AssertionError("the last step watches for nothing")


def _again(attempt: Attempt, number: int) -> Script:
    """The whole answer anew: the replica that had the thought is gone."""
    outcome = yield [replace(attempt, resumes=None, role="escalation", watch=frozenset())]
    return Choice(number + 1 if outcome.ok else -1, "ReplicaLost")


def _signals(query: Query, attempt: Attempt, rungs: Sequence[Rung]) -> frozenset[Signal]:
    """Those that something can follow on."""
    signals = frozenset(query.escalation.signals) - {Signal.DISAGREEMENT}
    if not rungs:
        signals &= {Signal.BUDGET_EXHAUSTED}
    return signals if attempt.thinking_tokens else signals - {Signal.BUDGET_EXHAUSTED, Signal.BRANCHING}


def _following(query: Query, attempt: Attempt, outcome: Outcome, rungs: list[Rung]) -> Attempt:
    """A used-up budget is raised on the same replica; everything else says that the model itself is lost."""
    if outcome.signal is Signal.BUDGET_EXHAUSTED:
        longer = attempt.thinking_tokens * query.escalation.budget_percent // 100
        resumes = outcome.number if outcome.resumable else None
        role = "escalation" if resumes is None else "continuation"
        return replace(attempt, role=role, thinking_tokens=longer, resumes=resumes)  # type: ignore[arg-type]
    return query.attempt(rungs.pop(0), "escalation", messages=attempt.messages, show=attempt.show)


def cascade(query: Query) -> Script:
    """Tiers from the plan's own upwards until one's answer is good enough; the last one's is taken as it is."""
    best, number = -1, 0
    rungs = (query.plan.rung, *query.climb)
    for rung in rungs:
        if rung is rungs[-1]:
            outcome = yield [query.attempt(rung, "answer" if number == 0 else "escalation", show="all")]
            return Choice(outcome.number if outcome.ok else best, "LastTier" if outcome.ok else outcome.ended)
        came, used, accepted = yield from _tier(query, rung, first=number == 0)
        number += used
        if came:
            best = elect(came)
        if accepted:
            return Choice(best, "Accepted")
    raise AssertionError("a ladder has a last rung")


def _tier(
    query: Query, rung: Rung, *, first: bool
) -> Generator[Sequence[Attempt], Outcome, tuple[list[Outcome], int, bool]]:
    """The answers of one tier, how many attempts they took, and whether they are good enough."""
    strategy, role = query.strategy, "sample" if first else "escalation"
    if strategy.samples > 1:
        wanted = [query.sampled(rung, role, i) for i in range(strategy.samples)]  # type: ignore[arg-type]
    else:
        measure = query.verifier is None
        wanted = [query.attempt(rung, role, measure=measure, show="reasoning")]  # type: ignore[arg-type]
    used, came = len(wanted), list[Outcome]()
    for _ in range(used):
        outcome = yield wanted
        wanted = []
        if outcome.ok:
            came.append(outcome)
    if not came:
        return came, used, False
    if strategy.samples > 1:
        keys = [o.answer.key for o in came]
        agreement = max(keys.count(k) if k else 0 for k in keys) / strategy.samples
        return came, used, agreement * 100 >= strategy.accept_percent
    if query.verifier is None:
        return came, used, (came[0].confidence or 0.0) * 100 >= strategy.accept_percent
    verdict = yield [review(query, came[0])]
    points = score(verdict.text) if verdict.ok else None
    return came, used + 1, points is not None and points >= strategy.accept_percent
