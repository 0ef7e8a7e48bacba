"""Which tier, which budget, for what reason."""

import pytest

from support.routing import asked, chat, config, facts, ladder, planned, scores
from trimtab_router.core.errors import ApiError
from trimtab_router.core.ladder import gain_threshold
from trimtab_router.core.planner import fall_back, needs_scores, plan, plan_as_dict, plan_on

LONG = {"context": [{"minPromptTokens": 5000, "tier": "high"}, {"minPromptTokens": 500, "tier": "medium"}]}
RULES = {"classes": [{"name": "math", "tier": "medium", "thinkingTokens": 1500, "outputTokens": 300}]}


@pytest.mark.parametrize(
    ("given", "score", "changes", "wanted"),
    [
        ({"tier": "medium"}, None, {}, ("medium", 1000, "TierHeader")),
        ({"tier": "high", "budget": 50}, None, {}, ("high", 2000, "TierHeader")),
        ({"tier": "high", "effort": "none"}, None, {}, ("high", 0, "TierHeader")),
        ({"budget": 1}, None, {}, ("low", 0, "BudgetHeader")),
        ({"budget": 33}, None, {}, ("low", 0, "BudgetHeader")),
        ({"budget": 34}, None, {}, ("medium", 20, "BudgetHeader")),
        ({"budget": 66}, None, {}, ("medium", 980, "BudgetHeader")),
        ({"budget": 67}, None, {}, ("high", 1030, "BudgetHeader")),
        ({"budget": 100}, None, {}, ("high", 4000, "BudgetHeader")),
        ({"budget": 100, "budget_field": "trimtab.budget"}, None, {}, ("high", 4000, "BudgetField")),
        ({"budget": 1, "effort": "max"}, None, {}, ("low", 0, "BudgetHeader")),
        ({"effort": "none"}, None, {}, ("low", 0, "ReasoningEffort")),
        ({"effort": "minimal"}, None, {}, ("low", 0, "ReasoningEffort")),
        ({"effort": "low"}, None, {}, ("low", 0, "ReasoningEffort")),
        ({"effort": "medium"}, None, {}, ("medium", 980, "ReasoningEffort")),
        ({"effort": "high"}, None, {}, ("high", 2650, "ReasoningEffort")),
        ({"effort": "xhigh"}, None, {}, ("high", 3550, "ReasoningEffort")),
        ({"effort": "max"}, None, {}, ("high", 4000, "ReasoningEffort")),
        ({"effort": "max"}, None, {"manual": {"maxBudget": 40}}, ("medium", 200, "ReasoningEffort")),
        ({"prompt_tokens": 499}, scores(), LONG, ("low", 0, "Gain")),
        ({"prompt_tokens": 500}, scores(), LONG, ("medium", 1000, "LongContext")),
        ({"prompt_tokens": 5000}, scores(), LONG, ("high", 4000, "LongContext")),
        ({"prompt_tokens": 5000, "tier": "low"}, scores(), LONG, ("low", 0, "TierHeader")),
        ({}, scores(class_name="math", gain=0.9), RULES, ("medium", 1500, "ClassRule")),
        ({}, scores(class_name="chat", gain=0.9), RULES, ("high", 4000, "Gain")),
        ({}, scores(class_name="math", out_of_domain=0.99), RULES, ("high", 4000, "OutOfDomain")),
        ({}, scores(out_of_domain=0.98), {}, ("high", 4000, "OutOfDomain")),
        ({}, scores(out_of_domain=0.97), {}, ("low", 0, "Gain")),
        (
            {},
            scores(out_of_domain=1.0),
            {"classifier": {"defaultTier": "high", "outOfDomainPercent": 100}},
            ("low", 0, "Gain"),
        ),
        ({}, None, {}, ("high", 4000, "ClassifierMiss")),
        ({}, None, {"classifier": {"defaultTier": "medium"}}, ("medium", 1000, "ClassifierMiss")),
        ({}, scores(gain=-0.5), {}, ("low", 0, "Gain")),
        ({}, scores(gain=0.099), {}, ("low", 0, "Gain")),
        ({}, scores(gain=0.101), {}, ("medium", 1000, "Gain")),
        ({}, scores(gain=0.17), {}, ("high", 4000, "Gain")),
        ({}, scores(gain=1.0), {"quality": 0}, ("low", 0, "Gain")),
        ({}, scores(gain=-1.0), {"quality": 100}, ("high", 4000, "Gain")),
        ({}, scores(gain=0.03), {"quality": 75}, ("medium", 1000, "Gain")),
    ],
)
def test_the_first_that_applies_decides(given, score, changes, wanted):
    found = plan(facts(**given), score, config(**changes))
    assert (found.tier, found.budget.thinking_tokens, found.reason) == wanted


@pytest.mark.parametrize(("quality", "threshold"), [(25, 0.225), (50, 0.1), (75, 0.025), (99, 0.00004)])
def test_the_knob_sets_the_gain_that_a_step_must_promise(quality, threshold):
    assert gain_threshold(quality) == pytest.approx(threshold)


def test_a_pool_by_name_is_left_alone():
    found = planned(chat(model="model-medium"))
    assert (found.tier, found.reason, found.fallbacks) == ("medium", "PoolByName", ())
    assert (found.budget.thinking_tokens, found.budget.output_tokens) == (None, None)


def test_a_pool_by_name_takes_a_budget_by_hand():
    found = planned(chat(model="model-high"), x_trimtab_budget="25")
    assert (found.tier, found.reason, found.budget.thinking_tokens) == ("high", "PoolByName", 1000)


def test_two_pools_of_one_model_mean_the_cheaper():
    both = {"medium": {"servedName": "same"}, "high": {"servedName": "same"}}
    assert planned(chat(model="same"), ladder(both)).tier == "medium"


def test_a_tier_for_long_prompts_is_no_step_in_quality():
    on = ladder(
        tiers=[
            {"name": "low", "pool": "pool-low"},
            {"name": "medium", "pool": "pool-medium", "thinkingTokens": 1000},
            {"name": "high", "pool": "pool-high", "thinkingTokens": 500},
        ],
        context=[{"minPromptTokens": 5000, "tier": "high"}],
    )
    found = plan_on(facts(), scores(gain=1.0), on)
    assert found.tier == "medium"
    assert plan_as_dict(found)["candidates"][2]["reason"] == "OnlyForLength"
    assert plan_on(facts(budget=100), None, on).tier == "medium"
    assert plan_on(facts(prompt_tokens=5000), scores(), on).tier == "high"


def test_a_context_tier_that_thinks_most_stays_a_step():
    on = ladder(context=[{"minPromptTokens": 5000, "tier": "high"}])
    assert plan_on(facts(), scores(gain=1.0), on).tier == "high"


@pytest.mark.parametrize(
    ("given", "thinking", "output"),
    [
        ({}, 4000, 1000),
        ({"thinking_token_budget": 100}, 100, 1000),
        ({"thinking_token_budget": 0}, 0, 1000),
        ({"thinking_token_budget": 9999}, 4000, 1000),
        ({"thinking_token_budget": -1}, 4000, 1000),
        ({"max_tokens": 9000}, 4000, 5000),
        ({"max_tokens": 3000}, 2000, 1000),
        ({"max_tokens": 500}, 250, 250),
        ({"max_tokens": 1}, 0, 1),
        ({"max_tokens": 3000, "thinking_token_budget": 5}, 5, 2995),
    ],
)
def test_the_clients_own_bounds_only_lower_the_thinking(given, thinking, output):
    found = plan(facts(tier="high", **given), None, config())
    assert (found.budget.thinking_tokens, found.budget.output_tokens) == (thinking, output)


def test_a_pool_that_cannot_bound_thinking_gets_none():
    found = plan(facts(tier="high"), None, config({"high": {"reasoning": False}}))
    assert found.budget.thinking_tokens == 0


def test_cost_and_time_are_those_of_the_whole_budget():
    found = plan(facts(tier="medium", prompt_tokens=1000), None, config())
    assert found.budget.seconds == pytest.approx(0.1 + 2000 * 0.01)
    assert found.budget.cost == pytest.approx((0.1 + 2000 * 0.001) / 3600)


def test_expected_output_is_half_the_thinking_and_the_predicted_answer():
    found = planned(chat(), score=scores(gain=1.0, output_tokens_p50=300))
    assert found.expected_output_tokens() == 2000 + 300
    assert planned(chat(max_tokens=100), score=scores(output_tokens_p50=300)).expected_output_tokens() == 100
    assert plan(facts(tier="low"), None, config()).expected_output_tokens() == 500


SHORT = {"low": {"contextTokens": 1000}, "medium": {"contextTokens": 2000}}


@pytest.mark.parametrize(
    ("given", "score", "tier", "reason"),
    [
        ({"prompt_tokens": 744}, scores(), "low", "Gain"),
        ({"prompt_tokens": 745}, scores(), "medium", "LongContext"),
        ({"prompt_tokens": 1745}, scores(), "high", "LongContext"),
        ({"prompt_tokens": 500, "max_tokens": 501}, scores(), "medium", "LongContext"),
        ({"prompt_tokens": 5000, "effort": "none"}, None, "high", "LongContext"),
        ({"prompt_tokens": 9000, "pool": "pool-low", "model": "model-low"}, None, "low", "PoolByName"),
    ],
)
def test_a_tier_that_cannot_hold_the_prompt_is_never_chosen(given, score, tier, reason):
    found = plan(facts(**given), score, config(SHORT))
    assert (found.tier, found.reason) == (tier, reason)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"prompt_tokens": 900, "tier": "low"},
            (
                "messages: about 900 prompt tokens do not fit the context of any allowed tier (low 1000); "
                "shorten the prompt or lower max_tokens"
            ),
        ),
        (
            {"prompt_tokens": 40000},
            (
                "messages: about 40000 prompt tokens do not fit the context of any allowed tier "
                "(low 1000, medium 2000, high 32768); shorten the prompt or lower max_tokens"
            ),
        ),
        (
            {"prompt_tokens": 10, "max_tokens": 50000},
            (
                "messages: about 10 prompt tokens and max_tokens 50000 do not fit the context of any allowed tier "
                "(low 1000, medium 2000, high 32768); shorten the prompt or lower max_tokens"
            ),
        ),
    ],
)
def test_a_prompt_that_fits_nowhere_is_refused(given, message):
    with pytest.raises(ApiError) as refusal:
        plan(facts(**given), scores(), config(SHORT))
    assert (refusal.value.status, refusal.value.code) == (400, "context_length_exceeded")
    assert refusal.value.message == message


def chain(first):
    out = [first]
    while (following := fall_back(out[-1])) is not None:
        out.append(following)
    return [(p.tier, p.reason, p.budget.thinking_tokens) for p in out]


def test_fallbacks_are_the_stronger_tiers_then_the_weaker():
    assert chain(planned(chat(), score=scores(gain=0.15))) == [
        ("medium", "Gain", 1000),
        ("high", "Fallback", 4000),
        ("low", "Fallback", 0),
    ]


def test_a_fallback_keeps_thinking_asked_for_by_hand():
    assert chain(planned(chat(reasoning_effort="medium"))) == [
        ("medium", "ReasoningEffort", 980),
        ("high", "Fallback", 980),
        ("low", "Fallback", 980),
    ]


def test_a_tier_by_hand_has_no_fallback():
    assert chain(planned(chat(), x_trimtab_tier="medium")) == [("medium", "TierHeader", 1000)]


def test_a_fallback_must_hold_the_prompt():
    on = ladder(SHORT)
    found = plan_on(facts(prompt_tokens=1500), scores(), on)
    assert [r.name for r in found.fallbacks] == ["high"]


@pytest.mark.parametrize(
    ("body", "headers", "wanted"),
    [
        (chat(), {}, True),
        (chat(reasoning_effort="low"), {}, False),
        (chat(), {"x_trimtab_tier": "low"}, False),
        (chat(trimtab={"budget": 3}), {}, False),
        (chat(model="model-low"), {}, False),
        (chat("word " * 4000), {}, False),
    ],
)
def test_only_what_the_classifier_decides_is_scored(body, headers, wanted):
    on = ladder(context=[{"minPromptTokens": 4000, "tier": "high"}])
    assert needs_scores(asked(body, on, **headers).facts, on) is wanted


@pytest.mark.parametrize(
    ("found", "reasons", "word"),
    [
        (
            planned(chat(), score=scores(gain=0.15)),
            ["GainWorthIt", "Gain", "GainTooSmall"],
            "class chat: the next tier promises +0.15 accuracy",
        ),
        (
            planned(chat(), x_trimtab_tier="low"),
            ["TierHeader", "NotAskedFor", "NotAskedFor"],
            "x-trimtab-tier asks for low",
        ),
        (
            planned(chat(trimtab={"budget": 40})),
            ["NotAskedFor", "BudgetField", "NotAskedFor"],
            "trimtab.budget 40 of 100 is tier medium",
        ),
        (
            planned(chat(), score=scores(out_of_domain=0.99)),
            ["NotDefault", "NotDefault", "OutOfDomain"],
            "less familiar than 99% of the training data: the default tier",
        ),
        (
            planned(chat(), ladder(**RULES), scores(class_name="math")),
            ["OtherClass", "ClassRule", "OtherClass"],
            "class math goes to medium by the policy",
        ),
        (
            planned(chat("word " * 1500), ladder(SHORT, **LONG)),
            ["ContextTooShort", "ContextTooShort", "LongContext"],
            "about 1879 prompt tokens need tier high",
        ),
        (
            planned(chat("word " * 1500), ladder(**LONG)),
            ["NotForLength", "LongContext", "NotForLength"],
            "about 1879 prompt tokens need tier medium",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_explain_gives_every_candidate_a_reason(found, reasons, word):
    shown = plan_as_dict(found)
    assert [c["reason"] for c in shown["candidates"]] == reasons
    assert [c["accepted"] for c in shown["candidates"]] == [c["tier"] == found.tier for c in shown["candidates"]]
    assert shown["message"] == word


def test_explain_has_the_keys_that_tools_rely_on():
    shown = plan_as_dict(planned(chat()))
    assert {"tier", "pool", "class", "budget", "strategy", "reason", "candidates"} <= shown.keys()
    assert shown["budget"].keys() == {"thinking_tokens", "output_tokens", "samples", "seconds", "cost"}
    assert shown["candidates"][0].keys() >= {"tier", "pool", "budget", "cost", "seconds", "accepted", "reason"}
    assert (shown["strategy"], shown["budget"]["samples"]) == ("single", 1)
