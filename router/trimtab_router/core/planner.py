"""Facts and scores to a plan. The same input gives the same plan.

First match decides: pool by name, tier header, budget 1-100, reasoning_effort, context threshold, an unfamiliar query,
exploration, class rule of the policy, what was learned of the class, gain predicted by the classifier. Whatever
decides, a tier that the tenant may not use or whose pool cannot hold the prompt is never chosen; only a pool that was
named directly is left to refuse by itself. Where the chosen pool is full, the next stronger tier with room serves.

A budget `b` on `n` graded tiers: the tier is number `(b*n - 1) // 100`, and the thinking tokens rise evenly from the
tier before it to the tier's own. `reasoning_effort` is a budget by name (`facts.EFFORTS`). With a tier header, budget
and effort are a share of that tier's thinking tokens.

Gain: the classifier predicts what the next tier adds in accuracy; every further step is taken to add 0.6 of the
one before. The chosen tier is the first whose next step promises less than `ladder.gain_threshold(quality)`. A tier
that promises no more than a stronger one which clearly costs less is no candidate.
"""

from collections.abc import Sequence
from dataclasses import replace

from trimtab_crds.wire import RouterConfig
from trimtab_router.core.errors import ApiError
from trimtab_router.core.explain import plan_as_dict
from trimtab_router.core.facts import EFFORTS, Facts
from trimtab_router.core.ladder import Ladder, Rung, compile_ladder
from trimtab_router.core.learned import STEP_DECAY, Step, acceptable, hopeless, undominated
from trimtab_router.core.plan import (
    UNSCORED,
    Choice,
    Plan,
    Reason,
    allowed,
    arms,
    budget_on,
    expected_cost,
    fits,
    others,
)
from trimtab_router.core.scores import Scores
from trimtab_router.core.spending import spending_on, within_ceiling

__all__ = ["fall_back", "needs_scores", "plan", "plan_as_dict", "plan_on"]


def plan(facts: Facts, scores: Scores | None, config: RouterConfig) -> Plan:
    """The plan under `config`; raises ApiError when no tier can hold the prompt."""
    return plan_on(facts, scores, compile_ladder(config))


def needs_scores(facts: Facts, ladder: Ladder) -> bool:
    """Nothing that comes before the classifier decides the request."""
    return not facts.by_hand and _by_context(facts, ladder) is None


def plan_on(
    facts: Facts,
    scores: Scores | None,
    ladder: Ladder,
    *,
    classifier_off: bool = False,
    full: frozenset[str] = frozenset(),
) -> Plan:
    """As `plan`, for a ladder that is compiled once.

    `classifier_off` only names the reason for absent scores; `full` are the names of pools without room.
    """
    choice = _by_hand(facts, ladder) or _by_context(facts, ladder) or _by_scores(facts, scores, ladder, classifier_off)
    choice = _that_fits(choice, facts, ladder)
    if full:
        choice = _that_has_room(choice, facts, ladder, full)
    class_name = UNSCORED if scores is None else scores.class_name
    budget, spending = budget_on(choice.rung, facts, choice), spending_on(choice, class_name, facts, ladder)
    found = Plan(choice.rung, budget, choice.reason, class_name, choice, facts, scores, ladder, spending=spending)
    return within_ceiling(found) if spending.limits.bounds else found


def fall_back(failed: Plan) -> Plan | None:
    """The plan for the next candidate after the pool of `failed` refused; None when there is none."""
    following = failed.fallbacks
    if not following:
        return None
    rung = following[0]
    budget = budget_on(rung, failed.facts, failed.choice)
    found = replace(failed, rung=rung, budget=budget, reason="Fallback", spent=(*failed.spent, rung))
    return within_ceiling(found) if found.spending.limits.bounds else found


def _by_hand(facts: Facts, ladder: Ladder) -> Choice | None:
    if not facts.by_hand:
        return None
    share = facts.budget if facts.budget is not None else _effort_share(facts, ladder)
    if facts.tier is not None or facts.pool is not None:
        rung = ladder.by_name[facts.tier] if facts.tier is not None else ladder.by_model[facts.model]
        thinking = None if share is None else rung.thinking_tokens * share // 100
        return Choice(rung, "TierHeader" if facts.tier is not None else "PoolByName", thinking, strict=True)
    rung, thinking = _on_scale(share or 0, allowed(facts, ladder))
    if facts.budget is None:
        return Choice(rung, "ReasoningEffort", thinking)
    return Choice(rung, "BudgetHeader" if facts.budget_field == "x-trimtab-budget" else "BudgetField", thinking)


def _effort_share(facts: Facts, ladder: Ladder) -> int | None:
    if facts.effort is None:
        return None
    limits = None if facts.tenant is None else ladder.tenants.get(facts.tenant)
    return min(EFFORTS[facts.effort], ladder.manual.max_budget, 100 if limits is None else limits.max_budget)


def _on_scale(budget: int, graded: Sequence[Rung]) -> tuple[Rung, int]:
    """The tier and the thinking tokens of a budget; 0 is the cheapest tier without thinking."""
    if budget <= 0:
        return graded[0], 0
    count = len(graded)
    index = (budget * count - 1) // 100
    rung = graded[index]
    before = graded[index - 1].thinking_tokens if index else 0
    if rung.thinking_tokens <= before:
        return rung, rung.thinking_tokens
    return rung, before + (rung.thinking_tokens - before) * (budget * count - 100 * index) // 100


def _by_context(facts: Facts, ladder: Ladder) -> Choice | None:
    for least, rung in ladder.context:
        if facts.prompt_tokens >= least:
            return Choice(rung, "LongContext")
    return None


def _by_scores(facts: Facts, scores: Scores | None, ladder: Ladder, classifier_off: bool) -> Choice:
    if scores is None:
        return Choice(ladder.default, "ClassifierOff" if classifier_off else "ClassifierMiss")
    if scores.out_of_domain >= ladder.out_of_domain:
        return Choice(ladder.default, "OutOfDomain")
    if facts.draw % 100 < ladder.planning.explore_percent:
        return _explored(facts, ladder)
    rule = ladder.classes.get(scores.class_name)
    if rule is not None:
        rung = ladder.by_name[rule.tier]
        thinking = rung.thinking_tokens if rule.thinking_tokens is None else rule.thinking_tokens
        output = rung.output_tokens if rule.output_tokens is None else rule.output_tokens
        return Choice(rung, "ClassRule", class_budget=(thinking, output))
    if scores.class_name in ladder.tables:
        return _by_learned(facts, scores, ladder)
    return _by_gain(facts, scores, ladder)


def _best(found: list[Step], facts: Facts, scores: Scores, ladder: Ladder) -> Step:
    """The cheapest acceptable combination; those that a better one undercuts are no candidates."""
    able = undominated(found, lambda step: expected_cost(ladder.graded[step.rung], step, facts, scores, ladder))
    return acceptable(able, ladder.gain_threshold)


def _by_gain(facts: Facts, scores: Scores, ladder: Ladder) -> Choice:
    graded, threshold = allowed(facts, ladder), ladder.gain_threshold
    if ladder.inverts:
        return Choice(graded[_best(arms(facts, scores, ladder), facts, scores, ladder).rung], "Gain")
    last, gain = len(graded) - 1, scores.gain
    for i, rung in enumerate(graded):
        if i == last or gain < threshold:
            return Choice(rung, "Gain")
        gain *= STEP_DECAY
    raise AssertionError("a ladder has at least one rung")


def _explored(facts: Facts, ladder: Ladder) -> Choice:
    """A tier by the hash of the text; those that the tenant may not use or that are too short are left out."""
    able = [rung for rung in allowed(facts, ladder) if fits(rung, facts)] or allowed(facts, ladder)
    return Choice(able[facts.draw // 100 % len(able)], "Explored")


def _by_learned(facts: Facts, scores: Scores, ladder: Ladder) -> Choice:
    graded, found = allowed(facts, ladder), arms(facts, scores, ladder)
    planning = ladder.planning
    if planning.unsolvable != "Off" and hopeless(found, planning.unsolvable_percent / 100):
        return Choice(graded[0 if planning.unsolvable == "Cap" else -1], "Unsolvable")
    step = _best(found, facts, scores, ladder)
    rung = graded[step.rung]
    return Choice(
        rung,
        "Learned",
        learned_thinking_tokens=None if step.own else step.thinking_tokens,
        strategy=None if step.own_strategy else ladder.strategy(rung, step.strategy),
    )


def _that_has_room(choice: Choice, facts: Facts, ladder: Ladder, full: frozenset[str]) -> Choice:
    """The next stronger tier where the chosen one's pool is full; quality never falls because of load."""
    if choice.strict or choice.rung.pool.name not in full:
        return choice
    for rung in allowed(facts, ladder):
        if rung.index > choice.rung.index and rung.pool.name not in full and fits(rung, facts):
            plain = replace(choice, learned_thinking_tokens=None, strategy=None)
            return replace(plain, rung=rung, reason="Busy", wanted=choice.rung)
    return choice


def _that_fits(choice: Choice, facts: Facts, ladder: Ladder) -> Choice:
    if choice.reason == "PoolByName" or fits(choice.rung, facts):
        return choice
    able = () if choice.strict else others(choice.rung, facts, ladder)
    if able:
        limited = facts.top is not None and choice.rung.index > facts.top
        reason: Reason = "TenantLimit" if limited else "LongContext"
        return replace(choice, rung=able[0], reason=reason, learned_thinking_tokens=None, strategy=None)
    rungs = (choice.rung,) if choice.strict else ladder.rungs[: None if facts.top is None else facts.top + 1]
    limits = ", ".join(f"{r.name} {r.pool.context_tokens}" for r in rungs)
    answer = "" if facts.max_tokens is None else f" and max_tokens {facts.max_tokens}"
    raise ApiError(
        400,
        f"messages: about {facts.prompt_tokens} prompt tokens{answer} do not fit the context of any allowed tier "
        f"({limits}); shorten the prompt or lower max_tokens",
        param="messages",
        code="context_length_exceeded",
    )
