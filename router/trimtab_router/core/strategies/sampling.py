"""Several answers that vote: self-consistency, and forms that must agree."""

from collections.abc import Sequence
from typing import Final

from trimtab_crds.strategyspec import Signal, StopRule
from trimtab_crds.wire import StrategyConfig
from trimtab_router.core.answers import medoid
from trimtab_router.core.strategies.script import Attempt, Choice, Outcome, Query, Script, instructed
from trimtab_router.core.voting import AllSamples, Posterior, Rule, Voting, Window

DIRECT: Final = "Give only the final answer, without explanation."
PROGRAM: Final = (
    "Solve it by writing a short program, work out by hand what the program prints, and end with the line "
    "'The answer is' and that result."
)
_UNSURE_BELOW: Final = 0.5


def stop_rule(strategy: StrategyConfig) -> Rule:
    """The rule that the strategy names."""
    if strategy.stop_rule is StopRule.POSTERIOR:
        return Posterior(strategy.stop_percent / 100)
    return Window(strategy.stop_window) if strategy.stop_rule is StopRule.WINDOW else AllSamples()


def elect(outcomes: Sequence[Outcome]) -> int:
    """Number of the attempt that wins: the most frequent answer, the medoid where no two agree, -1 without any."""
    said = [o for o in outcomes if o.answer.key]
    if not said:
        return outcomes[0].number if outcomes else -1
    verdict = Voting(AllSamples(), len(said)).verdict([o.answer.key for o in said])
    if verdict.votes > 1 or len(said) == 1:
        return said[verdict.winner].number
    return said[medoid([o.text for o in said])].number


def self_consistency(query: Query) -> Script:
    """Samples of the plan's tier until the vote is decided; the next tier where they disagree and escalation is on."""
    strategy, rung = query.strategy, query.plan.rung
    voting = Voting(stop_rule(strategy), strategy.samples, strategy.wave)
    came: list[Outcome] = []
    started = running = 0
    stopped = False
    while True:
        keys = [o.answer.key for o in came]
        more = 0 if stopped else min(voting.more(keys, running), strategy.samples - started)
        if voting.ending(keys) != "Running" or (not more and not running):
            break
        outcome = yield [query.sampled(rung, "sample", started + i) for i in range(more)]
        started, running = started + more, running + more - 1
        if outcome.ok:
            came.append(outcome)
        stopped = stopped or outcome.ended == "CeilingReached"
    verdict = voting.verdict([o.answer.key for o in came])
    if came and verdict.agreement < _UNSURE_BELOW and _may_climb(query):
        return (yield from climb_once(query, "Disagreement", elect(came)))
    return Choice(elect(came), verdict.ending if came else "NoAnswer")


def _may_climb(query: Query) -> bool:
    escalation = query.escalation
    return bool(escalation.max_steps and Signal.DISAGREEMENT in escalation.signals and query.climb)


def climb_once(query: Query, why: str, otherwise: int) -> Script:
    """One answer of the next tier; the attempt `otherwise` where there is none or it fails."""
    for rung in query.climb[:1]:
        outcome = yield [query.attempt(rung, "escalation", show="all")]
        if outcome.ok:
            return Choice(outcome.number, why)
    return Choice(otherwise, why)


def mixed_form(query: Query) -> Script:
    """A direct and a reasoned answer (and a program-like one) at once; two that agree are right more often than one
    that is sure (MoT cascade, arXiv 2310.03094). Else the next tier answers.
    """
    wanted = _forms(query)
    running, came = len(wanted), list[Outcome]()
    while running:
        outcome = yield wanted
        wanted, running = [], running - 1
        if outcome.ok:
            came.append(outcome)
            same = [o for o in came if o.answer.key and o.answer.key == outcome.answer.key]
            if len(same) > 1:
                return Choice(max(same, key=lambda o: len(o.text)).number, "FormsAgree")
    return (yield from climb_once(query, "FormsDisagree", elect(came)))


def _forms(query: Query) -> list[Attempt]:
    rung, messages = query.plan.rung, query.messages
    direct = query.attempt(rung, "form", thinking_tokens=0, messages=instructed(messages, DIRECT))
    program = query.attempt(rung, "form", messages=instructed(messages, PROGRAM))
    return [direct, query.attempt(rung, "form"), program][: max(query.strategy.samples, 2)]
