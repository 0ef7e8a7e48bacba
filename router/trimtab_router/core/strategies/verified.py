"""Answers that another model scores: best of several, and refinement by its objections."""

import re
from typing import Any, Final

from trimtab_router.core.strategies.sampling import elect
from trimtab_router.core.strategies.script import Attempt, Choice, Outcome, Query, Script

VERIFIER_TOKENS: Final = 512
MAX_SHOWN_CHARS: Final = 24_000
_SCORE: Final = re.compile(r"\bscore\s*[:=]?\s*\**\s*(\d{1,3})\b", re.IGNORECASE)
_ASK: Final = (
    "A question and an answer to it follow. Check the answer: say briefly what is wrong or missing, then end with a "
    "line 'Score: N', where N is a whole number from 0 (wrong) to 100 (right and complete).\n\n"
    "Question:\n{question}\n\nAnswer:\n{answer}"
)
_REVISE: Final = (
    "A reviewer says of your answer:\n{review}\n\nAnswer the question again, complete and corrected. Do not mention "
    "the reviewer."
)


def score(text: str) -> int | None:
    """The last score in a verifier's text, 0 to 100; None where it gave none."""
    found = _SCORE.findall(text)
    return min(int(found[-1]), 100) if found else None


def review(query: Query, outcome: Outcome) -> Attempt:
    """The verifier's look at an answer."""
    rung = query.verifier
    if rung is None:
        raise RuntimeError("the policy's rules ask for a verifier here")
    text = _ASK.format(question=query.text[-MAX_SHOWN_CHARS:], answer=outcome.text[-MAX_SHOWN_CHARS:])
    messages = [{"role": "user", "content": text}]
    return Attempt(
        rung=rung, role="verifier", thinking_tokens=0, output_tokens=VERIFIER_TOKENS, messages=messages,
        options={"temperature": 0},
    )  # fmt: skip


def best_of_n(query: Query) -> Script:
    """Samples, each scored as it comes; the best one, or the first that is good enough. A verifier that fails leaves
    the vote.
    """
    strategy = query.strategy
    started = min(strategy.wave, strategy.samples)
    wanted = [query.sampled(query.plan.rung, "sample", i) for i in range(started)]
    running, asked = started, started
    came: list[Outcome] = []
    scored: dict[int, tuple[int, Outcome]] = {}
    judged: dict[int, Outcome] = {}
    while running:
        outcome = yield wanted
        wanted, running = [], running - 1
        about = judged.pop(outcome.number, None)
        if about is not None:
            points = score(outcome.text) if outcome.ok else None
            if points is not None:
                scored[about.number] = (points, about)
                if points >= strategy.accept_percent:
                    return Choice(about.number, "Accepted")
            if started < strategy.samples and outcome.ended != "CeilingReached":
                wanted = [query.sampled(query.plan.rung, "sample", started)]
                started += 1
        elif outcome.ok:
            came.append(outcome)
            judged[asked] = outcome
            wanted = [review(query, outcome)]
        running, asked = running + len(wanted), asked + len(wanted)
    if scored:
        return Choice(max(scored.values(), key=lambda s: (s[0], -s[1].number))[1].number, "BestScore")
    return Choice(elect(came), "NoScore" if came else "NoAnswer")


def refine(query: Query) -> Script:
    """An answer, the verifier's objections, the next answer, until one is good enough or the rounds are over."""
    best: tuple[int, int] | None = None
    attempt = query.attempt(query.plan.rung, "answer", show="reasoning")
    for last in (i == query.strategy.samples - 1 for i in range(query.strategy.samples)):
        outcome = yield [attempt]
        if not outcome.ok:
            return Choice(-1 if best is None else best[1], outcome.ended)
        verdict = yield [review(query, outcome)]
        points = score(verdict.text) if verdict.ok else None
        if points is None:
            return Choice(outcome.number, "NoScore")
        best = max(best or (-1, -1), (points, outcome.number))
        if points >= query.strategy.accept_percent or last:
            break
        attempt = query.attempt(query.plan.rung, "revision", messages=_revision(query, outcome, verdict))
    if best is None:
        return Choice(-1, "NoAnswer")
    return Choice(best[1], "Accepted" if best[0] >= query.strategy.accept_percent else "BestScore")


def _revision(query: Query, outcome: Outcome, verdict: Outcome) -> list[dict[str, Any]]:
    objections = verdict.text[-MAX_SHOWN_CHARS:]
    return [
        *query.messages,
        {"role": "assistant", "content": outcome.text},
        {"role": "user", "content": _REVISE.format(review=objections)},
    ]
