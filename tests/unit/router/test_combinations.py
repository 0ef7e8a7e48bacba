"""Plans over tier, budget and strategy: which are candidates, which is cheapest, and what is said of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import config, facts, ladder, pool, scores
from trimtab_router.core.explain import unmeasured
from trimtab_router.core.ladder import compile_ladder
from trimtab_router.core.planner import plan, plan_as_dict, plan_on

VOTE = {"type": "SelfConsistency", "samples": 4}
MATH = scores(class_name="math", gain=0.0)
DEAR, CHEAP = {"gpuHourMilli": 9000}, {"gpuHourMilli": 100}
TIERS = [
    {"name": n, "pool": f"pool-{n}", "thinkingTokens": t, "outputTokens": 1000}
    for n, t in (("low", 0), ("medium", 1000), ("high", 4000))
]


def voting(tier="low", **changes):
    """The tiers, of which one votes."""
    return {"tiers": [t | ({"strategy": VOTE} if t["name"] == tier else {}) for t in TIERS], **changes}


def outcome(tier, share, *, thinking, strategy=None, count=2000):
    right = round(share * count)
    found = {"className": "math", "tier": tier, "thinkingTokens": thinking, "right": right, "wrong": count - right}
    return found if strategy is None else found | {"strategy": strategy}


def everything(low, single, medium=0.5, high=0.5):
    """Outcomes of every tier as it is, and of single answers on the voting one."""
    return [
        outcome("low", low, thinking=0),
        outcome("low", single, thinking=0, strategy="Single"),
        outcome("medium", medium, thinking=1000),
        outcome("high", high, thinking=4000),
    ]


def shown(found):
    return {(c["tier"], c["strategy"], c["budget"]["thinking_tokens"]): c for c in plan_as_dict(found)["candidates"]}


def test_a_single_answer_serves_where_votes_were_learned_to_add_little():
    found = plan(facts(), MATH, config(**voting(outcomes=everything(0.52, 0.51))))
    assert (found.tier, found.strategy, found.reason) == ("low", "single", "Learned")
    candidates = shown(found)
    vote, single = candidates["low", "self-consistency", 0], candidates["low", "single", 0]
    assert (vote["reason"], single["accepted"]) == ("GainTooSmall", True)
    assert vote["expected_cost"] == pytest.approx(4 * single["expected_cost"])


def test_votes_serve_where_they_were_learned_to_help():
    found = plan(facts(), MATH, config(**voting(outcomes=everything(0.8, 0.5))))
    assert (found.tier, found.strategy, found.choice.strategy) == ("low", "self-consistency", None)
    assert shown(found)["low", "single", 0]["reason"] == "GainWorthIt"


def test_what_is_as_good_and_costs_less_undercuts_a_vote():
    found = plan(facts(), MATH, config({"low": DEAR}, **voting(outcomes=everything(0.8, 0.5, medium=0.82))))
    assert (found.tier, found.strategy) == ("medium", "single")
    rejected = shown(found)["low", "self-consistency", 0]
    assert rejected["reason"] == "Dearer"
    assert rejected["message"] == "tier medium with 1000 thinking tokens is at least as good and costs less"


def test_a_stronger_tier_that_costs_less_serves_by_the_predicted_gain_too():
    query, inverted = scores(gain=0.05), ladder({"low": DEAR, "medium": DEAR, "high": CHEAP})
    assert inverted.inverts
    found = plan_on(facts(), query, inverted)
    assert (found.tier, found.reason) == ("high", "Gain")
    assert {c["reason"] for c in plan_as_dict(found)["candidates"]} == {"Dearer", "Gain"}


@pytest.mark.parametrize(
    "pools",
    [
        {"low": {"gpuHourMilli": 1010, "outputTokenSeconds": 0.001}},
        {"low": DEAR, "medium": {"outputTokenSeconds": 0, "promptTokenSeconds": 0}, "high": DEAR},
    ],
    ids=["hardly dearer", "of unknown price"],
)
def test_a_tier_is_not_left_for_little_or_for_an_unknown_price(pools):
    assert plan(facts(), scores(gain=0.01), config(pools)).tier == "low"


def test_a_gain_below_zero_is_no_reason_to_climb_however_cheap():
    on = ladder({"low": DEAR, "medium": DEAR, "high": CHEAP})
    assert plan_on(facts(), scores(gain=-0.1), on).tier == "low"


def test_votes_that_nothing_was_learned_of_are_left_to_the_policy():
    assert plan(facts(), scores(gain=0.01), config(**voting())).strategy == "self-consistency"


def test_what_was_not_learned_does_not_undercut_what_was():
    outcomes = [outcome("low", 0.8, thinking=0)]
    assert plan(facts(), MATH, config({"low": DEAR}, **voting(outcomes=outcomes))).tier == "low"


def test_a_budget_between_learned_ones_is_a_candidate_by_their_curve():
    curve = [outcome("high", share, thinking=t) for t, share in ((500, 0.80), (2000, 0.805), (4000, 0.80))]
    outcomes = [outcome("low", 0.3, thinking=0), outcome("medium", 0.4, thinking=1000), *curve]
    found = plan(facts(), MATH, config(outcomes=outcomes))
    assert (found.tier, found.budget.thinking_tokens) == ("high", 500)
    middle = shown(found)["high", "single", 1000]
    assert middle["quality"]["source"] == "curve"
    assert 0.79 < middle["quality"]["mean"] < 0.83


def test_other_combinations_are_named_as_unmeasured():
    found = plan(facts(), scores(gain=0.0), config(**voting()))
    rest = {(u.tier, u.strategy, u.thinking_tokens) for u in unmeasured(found)}
    assert ("low", "single", 0) in rest
    assert ("high", "single", 1000) in rest
    assert ("low", "self-consistency", 0) not in rest
    assert not any(tier == "high" and how == "self-consistency" for tier, how, _ in rest)
    told = plan_as_dict(found)["unmeasured"]
    assert {entry["reason"] for entry in told} == {"Unmeasured"}
    assert len(told) == len(rest)


def test_a_pool_that_cannot_think_has_no_other_budgets():
    on = ladder({"high": {"reasoning": False}})
    assert [u.thinking_tokens for u in unmeasured(plan_on(facts(), scores(), on)) if u.tier == "high"] == []


def test_a_strategy_of_a_class_line_may_be_learned_on_its_tier():
    rule = {"name": "code", "tier": "medium", "strategy": VOTE}
    outcomes = [
        outcome("low", 0.3, thinking=0),
        outcome("medium", 0.5, thinking=1000),
        outcome("medium", 0.9, thinking=1000, strategy="SelfConsistency"),
        outcome("high", 0.85, thinking=4000),
    ]
    found = plan(facts(), MATH, config(outcomes=outcomes, classes=[rule]))
    assert (found.tier, found.strategy, found.spending.strategy.samples) == ("medium", "self-consistency", 4)
    one = plan(facts(one_attempt="tools"), MATH, config(outcomes=outcomes, classes=[rule]))
    assert (one.tier, one.strategy) == ("high", "single")


def test_a_strategy_that_the_policy_no_longer_allows_is_no_candidate():
    outcomes = [outcome("high", 0.9, thinking=4000, strategy="BestOfN"), outcome("low", 0.8, thinking=0)]
    found = plan(facts(), MATH, config(outcomes=outcomes))
    assert "best-of-n" not in {how for _, how, _ in shown(found)}


def test_a_fallback_and_a_full_pool_do_not_take_the_learned_strategy_along():
    on = compile_ladder(config(**voting(outcomes=everything(0.52, 0.51))))
    found = plan_on(facts(), MATH, on, full=frozenset({"pool-low"}))
    assert (found.tier, found.reason, found.choice.strategy) == ("medium", "Busy", None)


def test_a_verifier_and_the_next_tier_are_in_the_price():
    best = {"type": "BestOfN", "samples": 2, "verifierPool": "pool-judge"}
    passed = {"type": "Cascade", "samples": 1}
    pools = [*config().model_dump(by_alias=True)["pools"], pool("judge")]
    costs = {}
    for name, strategy in (("single", None), ("best", best), ("cascade", passed)):
        tiers = [TIERS[0] | ({"strategy": strategy} if strategy else {}), *TIERS[1:]]
        found = plan(facts(), scores(), _with(tiers, pools))
        costs[name] = plan_as_dict(found)["candidates"][0]["expected_cost"]
    assert costs["best"] > 2 * costs["single"]
    assert costs["cascade"] == pytest.approx(2 * costs["single"])


def _with(tiers, pools):
    return type(config()).model_validate(config().model_dump(by_alias=True) | {"tiers": tiers, "pools": pools})


def test_a_prompt_that_another_pool_reads_is_paid_there():
    pools = [*config().model_dump(by_alias=True)["pools"], pool("reader", promptTokenSeconds=0.5)]
    tiers = [TIERS[0] | {"prefillPool": "pool-reader"}, *TIERS[1:]]
    here, there = (plan_as_dict(plan(facts(), scores(), _with(t, pools))) for t in (TIERS, tiers))
    costs = [found["candidates"][0]["expected_cost"] for found in (here, there)]
    assert costs[1] > 100 * costs[0]


COMBINATIONS = st.builds(
    outcome,
    st.sampled_from(["low", "medium", "high"]),
    st.floats(0, 1),
    thinking=st.sampled_from([0, 500, 1000, 2000, 4000, 8000]),
    strategy=st.sampled_from([None, "Single", "SelfConsistency"]),
    count=st.integers(1, 3000),
)


@given(st.lists(COMBINATIONS, max_size=9), st.floats(-1, 1), st.integers(0, 99), st.sampled_from([100, 1000, 9000]))
def test_more_quality_never_means_a_place_further_down_whatever_the_prices(outcomes, gain, quality, milli):
    score, prices = scores(class_name="math", gain=gain), {"low": {"gpuHourMilli": milli}, "high": CHEAP}

    def place(knob):
        found = plan(facts(), score, config(prices, **voting(outcomes=outcomes, quality=knob)))
        [accepted] = [c for c in plan_as_dict(found)["candidates"] if c["accepted"]]
        assert (accepted["tier"], accepted["strategy"]) == (found.tier, found.strategy)
        return found.rung.index

    assert place(quality) <= place(quality + 1)
