"""Plans from outcomes, exploration, tenants, load, and queries that nothing here solves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.routing import asked, chat, config, facts, ladder, planned, scores
from trimtab_router.core.errors import ApiError
from trimtab_router.core.explain import candidates
from trimtab_router.core.learned import STEP_DECAY, Tier, acceptable, promised, steps, table
from trimtab_router.core.load import saturated
from trimtab_router.core.plan import Plan
from trimtab_router.core.planner import fall_back, plan, plan_as_dict, plan_on

TIERS = ("low", "medium", "high")
THINKING = {"low": 0, "medium": 1000, "high": 4000}
MATH = scores(class_name="math", gain=0.0)


def outcome(tier, share, *, count=1000, thinking=None, name="math", gain=0):
    right = round(share * count)
    tokens = THINKING[tier] if thinking is None else thinking
    return {
        "className": name,
        "tier": tier,
        "thinkingTokens": tokens,
        "right": right,
        "wrong": count - right,
        "gainMilli": gain,
    }


def chosen(found: Plan):
    return found.tier, found.budget.thinking_tokens, found.reason


WORLDS = {
    "the first two steps are worth it": ((0.3, 0.6, 0.9), 50, ("high", 4000, "Learned")),
    "the last step is not": ((0.3, 0.6, 0.65), 50, ("medium", 1000, "Learned")),
    "nothing is": ((0.9, 0.92, 0.95), 50, ("low", 0, "Learned")),
    "a flat step before a steep one": ((0.3, 0.31, 0.8), 50, ("high", 4000, "Learned")),
    "a step down before one up": ((0.6, 0.4, 0.95), 50, ("high", 4000, "Learned")),
    "stronger is worse": ((0.9, 0.8, 0.7), 99, ("low", 0, "Learned")),
    "the strongest at any price": ((0.9, 0.8, 0.7), 100, ("high", 4000, "Learned")),
    "the cheapest whatever it costs": ((0.1, 0.8, 0.9), 0, ("low", 0, "Learned")),
    "a little is worth it at high quality": ((0.9, 0.93, 0.96), 80, ("high", 4000, "Learned")),
}


@pytest.mark.parametrize(("shares", "quality", "wanted"), WORLDS.values(), ids=WORLDS)
def test_the_cheapest_tier_that_nothing_dearer_beats_by_its_steps(shares, quality, wanted):
    outcomes = [outcome(t, s) for t, s in zip(TIERS, shares, strict=True)]
    assert chosen(plan(facts(), MATH, config(outcomes=outcomes, quality=quality))) == wanted


def test_a_query_that_promises_more_than_its_class_goes_up():
    outcomes = [outcome("low", 0.8, gain=50), outcome("medium", 0.85, gain=50), outcome("high", 0.86, gain=50)]
    on = ladder(outcomes=outcomes)
    tiers = [plan_on(facts(), scores(class_name="math", gain=g), on).tier for g in (-0.2, 0.05, 0.2)]
    assert tiers == ["low", "low", "medium"]


def test_another_class_is_planned_by_its_gain_and_a_rule_of_the_policy_comes_first():
    outcomes = [outcome(t, 0.5 + 0.2 * i) for i, t in enumerate(TIERS)]
    assert plan(facts(), scores(class_name="chat"), config(outcomes=outcomes)).reason == "Gain"
    ruled = config(outcomes=outcomes, classes=[{"name": "math", "tier": "low"}])
    assert plan(facts(), MATH, ruled).reason == "ClassRule"


def test_a_budget_that_was_learned_to_do_is_taken():
    outcomes = [outcome("low", 0.2), outcome("medium", 0.3), outcome("high", 0.9), outcome("high", 0.89, thinking=500)]
    found = plan(facts(), MATH, config(outcomes=outcomes))
    assert chosen(found) == ("high", 500, "Learned")
    shown = plan_as_dict(found)["candidates"]
    assert [(c["tier"], c["budget"]["thinking_tokens"], c["accepted"]) for c in shown] == [
        ("low", 0, False),
        ("medium", 1000, False),
        ("high", 4000, False),
        ("high", 500, True),
    ]
    assert [c["reason"] for c in shown] == ["GainWorthIt", "Dearer", "GainTooSmall", "Learned"]
    assert fall_back(found).budget.thinking_tokens == 1000


def test_a_learned_budget_cannot_make_an_engine_think_that_cannot_be_stopped():
    outcomes = [outcome("high", 0.9, thinking=500), outcome("low", 0.1)]
    found = plan(facts(), MATH, config({"high": {"reasoning": False}}, outcomes=outcomes))
    assert (found.tier, found.budget.thinking_tokens) == ("high", 0)


def test_tiers_that_nothing_was_learned_of_continue_by_the_predicted_gain():
    found = plan(facts(), scores(class_name="math", gain=0.3), config(outcomes=[outcome("low", 0.4, gain=300)]))
    shown = {c["tier"]: c["quality"] for c in plan_as_dict(found)["candidates"]}
    assert shown["low"]["source"] == "outcomes"
    assert shown["medium"]["source"] == "gain"
    assert shown["medium"]["mean"] == pytest.approx(shown["low"]["mean"] + 0.3, abs=0.02)
    assert found.tier == "high"


def test_few_outcomes_are_shrunk_to_those_of_all_classes():
    sure = [outcome(t, s, name="code") for t, s in zip(TIERS, (0.3, 0.6, 0.9), strict=True)]
    one_bad_day = [outcome("high", 0.0, count=2)]
    found = plan(facts(), MATH, config(outcomes=sure + one_bad_day))
    quality = {c["tier"]: c["quality"]["mean"] for c in plan_as_dict(found)["candidates"]}
    assert 0.6 < quality["high"] < 0.9


outcomes_of_any = st.lists(
    st.builds(
        outcome, st.sampled_from(TIERS), st.floats(0, 1), count=st.integers(1, 500), thinking=st.integers(0, 8000)
    ),
    min_size=1,
    max_size=8,
)


@given(outcomes_of_any, st.floats(-1, 1), st.integers(0, 99))
def test_more_quality_never_means_fewer_steps(outcomes, gain, quality):
    score = scores(class_name="math", gain=gain)

    def place(knob):
        found = plan(facts(), score, config(outcomes=outcomes, quality=knob))
        return TIERS.index(found.tier), found.budget.thinking_tokens

    assert place(quality) <= place(quality + 1)


@settings(max_examples=30)
@given(outcomes_of_any, st.floats(-1, 1), st.integers(0, 100))
def test_the_same_input_is_the_same_plan_and_one_candidate_is_accepted(outcomes, gain, quality):
    score, policy = scores(class_name="math", gain=gain), config(outcomes=outcomes, quality=quality)
    found = plan(facts(), score, policy)
    assert found == plan(facts(), score, policy)
    while found is not None:
        assert [c.tier for c in candidates(found) if c.accepted] == [found.tier]
        found = fall_back(found)


@given(st.floats(-1, 1), st.integers(1, 99), st.integers(1, 5))
def test_without_outcomes_steps_are_the_rule_of_the_gain(gain, quality, count):
    threshold = 0.4 * ((100 - quality) / 100) ** 2
    found = acceptable(steps(table([Tier(f"t{i}", 0) for i in range(count)], {}, {}), gain, count), threshold)
    climbed, left = 0, gain
    while climbed < count - 1 and left >= threshold:
        climbed, left = climbed + 1, left * STEP_DECAY
    near = any(abs(gain * STEP_DECAY**i - threshold) < 1e-9 for i in range(count))
    assert found.rung == climbed or near


def test_steps_lose_worth():
    assert [promised(0.1, k) for k in range(4)] == pytest.approx([0, 0.1, 0.16, 0.196])


HOPELESS = [outcome(t, 0.01) for t in TIERS]


@pytest.mark.parametrize(
    ("action", "outcomes", "wanted"),
    [
        ("Cap", HOPELESS, ("low", 0, "Unsolvable")),
        ("Top", HOPELESS, ("high", 4000, "Unsolvable")),
        ("Off", HOPELESS, ("low", 0, "Learned")),
        ("Top", HOPELESS[:2], ("low", 0, "Learned")),
        ("Top", [*HOPELESS[:2], outcome("high", 0.4)], ("high", 4000, "Learned")),
        ("Top", [outcome(t, 0.0, count=3) for t in TIERS], ("low", 0, "Learned")),
    ],
    ids=["cap", "top", "off", "one tier unknown", "one tier can", "too little known"],
)
def test_what_nothing_here_solves_is_capped_or_sent_to_the_top(action, outcomes, wanted):
    planning = {"unsolvable": action, "unsolvablePercent": 10}
    assert chosen(plan(facts(), MATH, config(outcomes=outcomes, planning=planning))) == wanted


def drawn(text, percent=100, **changes):
    on = ladder(planning={"explorePercent": percent}, **changes)
    return plan_on(asked(chat(text), on).facts, scores(gain=0.0), on)


def test_exploration_draws_every_tier_by_the_text_alone():
    tiers = {f"question {n}": drawn(f"question {n}") for n in range(60)}
    assert {p.tier for p in tiers.values()} == set(TIERS)
    assert {p.reason for p in tiers.values()} == {"Explored"}
    assert all(drawn(text).tier == found.tier for text, found in tiers.items())


def test_only_the_given_share_is_explored():
    explored = sum(drawn(f"question {n}", 20).reason == "Explored" for n in range(200))
    assert 20 <= explored <= 60
    assert not any(drawn(f"question {n}", 0).reason == "Explored" for n in range(50))


def test_unfamiliar_queries_and_choices_by_hand_are_not_explored():
    on = ladder(planning={"explorePercent": 100})
    request = asked(chat("hello"), on).facts
    assert plan_on(request, scores(out_of_domain=1.0), on).reason == "OutOfDomain"
    assert plan_on(asked(chat("hello", reasoning_effort="high"), on).facts, None, on).reason == "ReasoningEffort"


def test_a_class_with_a_rule_is_explored_too():
    assert drawn("x", classes=[{"name": "chat", "tier": "high"}]).reason == "Explored"


TENANTS = {
    "tenants": [
        {"name": "free", "maxTier": "medium", "maxBudget": 40, "maxThinkingTokens": 300},
        {"name": "none", "maxBudget": 0},
        {"name": "gold"},
    ]
}


@pytest.mark.parametrize(
    ("tenant", "body", "score", "wanted"),
    [
        ("free", {}, scores(gain=1.0), ("medium", 300, "Gain")),
        ("gold", {}, scores(gain=1.0), ("high", 4000, "Gain")),
        ("free", {}, scores(out_of_domain=1.0), ("medium", 300, "TenantLimit")),
        ("free", {"trimtab": {"budget": 40}}, None, ("low", 0, "BudgetField")),
        ("free", {"reasoning_effort": "max"}, None, ("low", 0, "ReasoningEffort")),
        ("free", {"thinking_token_budget": -1}, scores(gain=1.0), ("medium", 300, "Gain")),
        ("free", {"thinking_token_budget": 20}, scores(gain=1.0), ("medium", 20, "Gain")),
        ("none", {"reasoning_effort": "max"}, scores(), ("low", 0, "Gain")),
    ],
    ids=["top", "no limit", "default tier", "budget", "effort", "unbounded", "own bound", "effort not obeyed"],
)
def test_a_tenant_gets_what_it_may_have(tenant, body, score, wanted):
    on = ladder(**TENANTS)
    found = plan_on(asked(chat(**body), on, x_trimtab_tenant=tenant).facts, score, on)
    assert chosen(found) == wanted
    assert all(rung.index <= (1 if tenant == "free" else 2) for rung in found.fallbacks)


def test_explain_names_the_tenant_and_what_it_may_not_have():
    on = ladder(**TENANTS)
    shown = plan_as_dict(plan_on(asked(chat(), on, x_trimtab_tenant="free").facts, scores(), on))
    assert shown["facts"]["tenant"] == "free"
    assert (shown["candidates"][2]["reason"], shown["candidates"][2]["message"]) == (
        "TenantLimit",
        "tenant free may use tiers up to medium",
    )


def test_without_the_header_the_limits_of_default_hold_where_there_are_any():
    assert planned(chat(), ladder(**TENANTS), scores(gain=1.0)).tier == "high"
    limited = ladder(tenants=[{"name": "default", "maxTier": "low"}])
    assert planned(chat(), limited, scores(gain=1.0)).tier == "low"


REFUSED = {
    "an unknown tenant": (
        TENANTS,
        {},
        {"x_trimtab_tenant": "acme"},
        (403, 'x-trimtab-tenant: "acme" is no tenant of the policy; correct it or add it to tenants'),
    ),
    "a tier above": (
        TENANTS,
        {},
        {"x_trimtab_tenant": "free", "x_trimtab_tier": "high"},
        (403, "x-trimtab-tier: high is not for tenant free; use one of low, medium"),
    ),
    "a pool above": (
        TENANTS,
        {"model": "model-high"},
        {"x_trimtab_tenant": "free"},
        (403, "model: model-high is not for tenant free; use one of model-low, model-medium"),
    ),
    "a budget above": (
        TENANTS,
        {"trimtab": {"budget": 41}},
        {"x_trimtab_tenant": "free"},
        (400, "trimtab.budget: 41 is not allowed; use a whole number from 1 to 40 (tenant free's maxBudget)"),
    ),
    "no budget at all": (
        TENANTS,
        {},
        {"x_trimtab_tenant": "none", "x_trimtab_budget": "1"},
        (400, "x-trimtab-budget: budgets by hand are not allowed (tenant none's maxBudget is 0); remove it"),
    ),
    "a header without tenants": (
        {},
        {},
        {"x_trimtab_tenant": "free"},
        (400, "x-trimtab-tenant: no such header; use one of x-trimtab-tier, x-trimtab-budget"),
    ),
    "a misspelled header": (
        TENANTS,
        {},
        {"x_trimtab_tennant": "free"},
        (400, "x-trimtab-tennant: no such header; use one of x-trimtab-tier, x-trimtab-budget, x-trimtab-tenant"),
    ),
}


@pytest.mark.parametrize(("policy", "body", "headers", "wanted"), REFUSED.values(), ids=REFUSED)
def test_what_a_tenant_may_not_do_is_said(policy, body, headers, wanted):
    with pytest.raises(ApiError) as refusal:
        asked(chat(**body), ladder(**policy), **headers)
    assert (refusal.value.status, refusal.value.message) == wanted


def test_a_prompt_too_long_for_a_tenant_names_its_tiers_only():
    on = ladder(
        {"high": {"contextTokens": 100000}, "low": {"contextTokens": 50}, "medium": {"contextTokens": 50}}, **TENANTS
    )
    with pytest.raises(ApiError, match=r"\(low 50, medium 50\)"):
        plan_on(facts(top=1, tenant="free", prompt_tokens=5000), scores(), on)


@pytest.mark.parametrize(
    ("full", "given", "wanted"),
    [
        ({"pool-low"}, {}, ("medium", "Busy")),
        ({"pool-low", "pool-medium"}, {}, ("high", "Busy")),
        ({"pool-low", "pool-medium", "pool-high"}, {}, ("low", "Gain")),
        ({"pool-high"}, {}, ("low", "Gain")),
        ({"pool-low"}, {"tier": "low"}, ("low", "TierHeader")),
        ({"pool-low"}, {"budget": 1}, ("medium", "Busy")),
        ({"pool-low"}, {"top": 0, "tenant": "free"}, ("low", "Gain")),
        ({"pool-low"}, {"prompt_tokens": 30000}, ("high", "Busy")),
    ],
    ids=["next", "the one after", "all", "another", "by header", "by budget", "tenant's limit", "too short"],
)
def test_a_full_pool_passes_queries_up_and_never_down(full, given, wanted):
    on = ladder({"medium": {"contextTokens": 8000}})
    found = plan_on(facts(**given), scores(), on, full=frozenset(full))
    assert (found.tier, found.reason) == wanted
    assert found.demand == "low"


def test_explain_says_which_pool_was_full():
    shown = plan_as_dict(plan_on(facts(), scores(), ladder(), full=frozenset({"pool-low"})))
    assert shown["message"] == "the pool of tier low is full: tier medium serves instead"
    assert [c["reason"] for c in shown["candidates"]] == ["Full", "Busy", "NotNext"]


@pytest.mark.parametrize(
    ("inflight", "replicas", "routers", "wanted"),
    [
        (15, 1, 1, False),
        (16, 1, 1, True),
        (31, 2, 1, False),
        (32, 2, 1, True),
        (8, 1, 2, True),
        (7, 1, 2, False),
        (9, 0, 1, False),
    ],
)
def test_a_pool_is_full_beyond_its_share(inflight, replicas, routers, wanted):
    found = saturated(inflight, replicas=replicas, batch=8, spill_percent=200, routers=routers)
    assert found is wanted
