"""What holds for every request and every policy."""

from hypothesis import given
from hypothesis import strategies as st

from support.routing import config, facts
from trimtab_router.core.errors import ApiError
from trimtab_router.core.explain import candidates
from trimtab_router.core.facts import EFFORTS
from trimtab_router.core.ladder import compile_ladder
from trimtab_router.core.plan import fits
from trimtab_router.core.planner import fall_back, plan
from trimtab_router.core.scores import Scores

TIERS = ("low", "medium", "high")
unit = st.floats(0, 1)
any_scores = st.builds(
    Scores,
    class_name=st.sampled_from(["math", "code", "chat"]),
    class_probability=unit,
    gain=st.floats(-1, 1),
    output_tokens_p50=st.integers(1, 4000),
    output_tokens_p90=st.integers(4000, 9000),
    out_of_domain=unit,
)
any_config = st.builds(
    lambda quality, contexts, rule, threshold: config(
        {t: {"contextTokens": c} for t, c in zip(TIERS, contexts, strict=True)},
        quality=quality,
        classes=[{"name": "math", "tier": rule}] if rule else [],
        context=[{"minPromptTokens": threshold, "tier": "high"}] if threshold else [],
    ),
    st.integers(0, 100),
    st.tuples(*[st.sampled_from([None, 500, 4000, 40000])] * 3),
    st.sampled_from([None, *TIERS]),
    st.sampled_from([None, 1000, 20000]),
)
any_facts = st.builds(
    facts,
    prompt_tokens=st.integers(0, 50000),
    max_tokens=st.none() | st.integers(1, 8000),
    thinking_token_budget=st.none() | st.integers(-1, 8000),
    tier=st.none() | st.sampled_from(TIERS),
    budget=st.none() | st.integers(1, 100),
    effort=st.none() | st.sampled_from(list(EFFORTS)),
)


@given(any_facts, st.none() | any_scores, any_config)
def test_a_plan_fits_is_bounded_and_repeats(request, score, policy):
    try:
        found = plan(request, score, policy)
    except ApiError:
        named = policy.tiers if request.tier is None else [t for t in policy.tiers if t.name == request.tier]
        assert not any(fits(r, request) for r in compile_ladder(policy).rungs if r.name in {t.name for t in named})
        return
    assert found == plan(request, score, policy)
    while found is not None:
        assert fits(found.rung, request)
        thinking, output = found.budget.thinking_tokens, found.budget.output_tokens
        assert 0 <= thinking <= 4000
        assert output >= 1
        if request.max_tokens is not None:
            assert thinking + output == request.max_tokens
            assert found.expected_output_tokens() <= request.max_tokens
        if (request.thinking_token_budget or 0) >= 0 and request.thinking_token_budget is not None:
            assert thinking <= request.thinking_token_budget
        assert [c.tier for c in candidates(found) if c.accepted] == [found.tier]
        found = fall_back(found)


@given(st.integers(1, 99), st.integers(0, 99))
def test_more_budget_never_means_less(budget, quality):
    policy = config(quality=quality)
    less, more = (plan(facts(budget=b), None, policy) for b in (budget, budget + 1))
    assert TIERS.index(less.tier) <= TIERS.index(more.tier)
    assert less.budget.thinking_tokens <= more.budget.thinking_tokens


@given(any_scores, st.integers(0, 99))
def test_more_quality_never_means_a_weaker_tier(score, quality):
    less, more = (plan(facts(), score, config(quality=q)) for q in (quality, quality + 1))
    assert TIERS.index(less.tier) <= TIERS.index(more.tier)


@given(any_scores, st.floats(0, 0.5), st.integers(0, 100))
def test_more_gain_never_means_a_weaker_tier(score, extra, quality):
    policy = config(quality=quality)
    hopeful = Scores(
        score.class_name,
        score.class_probability,
        score.gain + extra,
        score.output_tokens_p50,
        score.output_tokens_p90,
        score.out_of_domain,
    )
    assert TIERS.index(plan(facts(), score, policy).tier) <= TIERS.index(plan(facts(), hopeful, policy).tier)
