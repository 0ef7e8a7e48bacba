"""A thought that ends too early goes on: budget forcing (s1, Muennighoff et al. 2025, arXiv 2501.19393).

Measured on s1.1-1.5B and MATH-500 it gains nothing: one continuation mends as many answers as it breaks.
"""

from dataclasses import replace

from trimtab_crds.wire import ForcingConfig
from trimtab_router.core.costs import least_thinking
from trimtab_router.core.strategies.script import Attempt, Choice, Outcome, Query, Script


def budget_forcing(query: Query) -> Script:
    """One answer, whose thought is cut where it ends too early and goes on after a word, a few times at most.

    Where a thought cannot go on, its answer is taken as it comes.
    """
    forcing = query.strategy.forcing or ForcingConfig()
    attempt = query.attempt(query.plan.rung, "answer", show="all")
    least = least_thinking(query.strategy, attempt.thinking_tokens)
    last = yield [replace(attempt, least_thinking_tokens=least)]
    attempt = replace(attempt, role="continuation", word=forcing.text)
    for left in reversed(range(forcing.continuations)):
        if not last.early:
            break
        goes_on = replace(attempt, resumes=last.number, least_thinking_tokens=least if left else 0)
        outcome = yield [goes_on]
        if outcome.ended == "Failed" and not outcome.begun:
            return (yield from _let_end(attempt, outcome, last))
        last = outcome
    why = last.unforced or ("Forced" if last.number else "Complete")
    return Choice(last.number, why) if last.ok else Choice(-1, last.ended)


def _let_end(attempt: Attempt, failed: Outcome, before: Outcome) -> Script:
    """The answer to what there is of the thought, by any replica that can go on with it; else the whole answer anew."""
    why = failed.unforced or "ReplicaLost"
    thought = failed if failed.resumable else before
    outcome = yield [replace(attempt, word="", resumes=thought.number, anywhere=True)]
    if outcome.ended == "Failed":
        outcome = yield [replace(attempt, role="escalation", word="", resumes=None)]
    return Choice(outcome.number, why) if outcome.ok else Choice(-1, outcome.ended)
