"""The ceiling of one query is never exceeded, whatever happens to its attempts and in which order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import asked, chat, ladder, planned, pool, scores
from trimtab_crds.wire import CeilingConfig, PoolConfig
from trimtab_router.core.ceiling import LEAST_TOKENS, Ledger, Limits, Price, limits
from trimtab_router.core.errors import ApiError
from trimtab_router.core.planner import plan_as_dict, plan_on
from trimtab_router.core.rewrite import rewrite

CHEAP, DEAR = Price(2_000, 50_000), Price(40_000, 1_000_000)


def test_the_lowest_bound_holds():
    policy, rule = CeilingConfig(tokens=1000, cost_micros=5), CeilingConfig(tokens=2000, seconds=9)
    found = limits({"policy": policy, "class math": rule, "tenant free": CeilingConfig(tokens=1000, seconds=8)})
    assert found == Limits(1000, 8, 5000)
    assert found.owners == {"tokens": "policy", "seconds": "tenant free", "cost": "policy"}
    assert found.whose("tokens", "cost") == "the policy's"
    assert found.whose("tokens", "seconds") == "the policy's and tenant free's"
    assert not limits({"policy": CeilingConfig(), "class math": None}).bounds


def test_the_price_is_that_of_the_pools_capacity():
    config = PoolConfig.model_validate(pool("low", gpuHourMilli=3600))
    assert Price.of(config).nanos(1000, 1000) == 100_000 + 1_000_000
    assert Price.of(PoolConfig(name="x", served_name="x")).nanos(10, 10) == 0


def test_a_reservation_is_granted_what_is_left_and_given_back():
    ledger = Ledger(Limits(tokens=100), 0)
    assert ledger.reserve(1, CHEAP, prompt_tokens=5, wanted=80, now=0) == 80
    assert ledger.reserve(2, CHEAP, prompt_tokens=5, wanted=80, now=0) == 20
    assert ledger.reserve(3, CHEAP, prompt_tokens=5, wanted=80, now=0) == 0
    ledger.settle(1, prompt_tokens=5, tokens=10, complete=True)
    assert ledger.room(CHEAP, 5, 80, 0) == 70
    assert ledger.granted(2) == 20


def test_what_was_cut_counts_with_all_that_it_was_granted():
    ledger = Ledger(Limits(tokens=1000), 0)
    ledger.reserve(1, CHEAP, prompt_tokens=5, wanted=500, now=0)
    ledger.settle(1, prompt_tokens=5, tokens=10, complete=False)
    assert ledger.spent_tokens == 500
    assert ledger.spent_nanos == CHEAP.nanos(5, 500)


def test_an_attempt_too_small_to_be_useful_is_not_started():
    ledger = Ledger(Limits(tokens=LEAST_TOKENS - 1), 0)
    assert ledger.reserve(1, CHEAP, prompt_tokens=5, wanted=100, now=0) == 0
    assert ledger.reserve(2, CHEAP, prompt_tokens=5, wanted=8, now=0) == 8


def test_nothing_is_granted_after_the_deadline():
    ledger = Ledger(Limits(seconds=5), 10)
    assert ledger.room(CHEAP, 5, 100, 14.9) == 100
    assert ledger.room(CHEAP, 5, 100, 15) == 0


@st.composite
def histories(draw):
    """Starts and ends of samples, retries and escalations in any order; ends are complete, cut or lost."""
    steps = st.tuples(
        st.sampled_from(["start", "start", "end"]),
        st.sampled_from([CHEAP, DEAR, Price(0, 0)]),
        st.integers(0, 5000),
        st.integers(1, 3000),
        st.floats(0, 1),
        st.booleans(),
        st.floats(0, 3),
    )
    return draw(st.lists(steps, max_size=40))


CEILINGS = st.dictionaries(
    st.sampled_from(["policy", "class math", "tenant free"]),
    st.none()
    | st.builds(
        CeilingConfig,
        tokens=st.none() | st.integers(1, 6000),
        seconds=st.none() | st.integers(1, 60),
        cost_micros=st.none() | st.integers(1, 5_000),
    ),
)


@given(CEILINGS, histories())
def test_spent_and_reserved_never_exceed_any_ceiling(ceilings, history):
    """Of policy, class and tenant, whichever there are."""
    bounds, given = limits(ceilings), [ceiling for ceiling in ceilings.values() if ceiling is not None]
    ledger, now, open_, written, paid = Ledger(bounds, 0), 0.0, {}, 0, 0
    for number, (what, price, prompt, wanted, share, complete, passed) in enumerate(history):
        now += passed
        if what == "start":
            granted = ledger.reserve(number, price, prompt_tokens=prompt, wanted=wanted, now=now)
            assert granted <= wanted
            assert not granted or all(ceiling.seconds is None or now < ceiling.seconds for ceiling in given)
            if granted:
                open_[number] = (price, prompt, granted)
        elif open_:
            attempt = min(open_)
            rate, asked, most = open_.pop(attempt)
            really = int(most * share)
            seen = really if complete else really // 7
            written, paid = written + really, paid + rate.nanos(asked, really)
            ledger.settle(attempt, prompt_tokens=asked, tokens=seen, complete=complete)
        total, cost = ledger.spent_tokens + ledger.reserved_tokens, ledger.spent_nanos + ledger.reserved_nanos
        for ceiling in given:
            assert ceiling.tokens is None or total <= ceiling.tokens
            assert ceiling.cost_micros is None or cost <= ceiling.cost_micros * 1000
        assert (written, paid) <= (ledger.spent_tokens, ledger.spent_nanos)


@given(
    st.none() | st.integers(40, 3000),
    st.none() | st.integers(40, 3000),
    st.none() | st.integers(1, 5000),
    st.sampled_from(["low", "medium", "high", "model-low", "model-high"]),
    st.sampled_from(["free", "paid", ""]),
)
def test_a_plan_and_its_body_fit_the_lowest_ceiling(policy, own, asked_for, where, tenant):
    """Of the policy and of the tenant, by tier or by the name of a pool, whatever the client asks for itself."""
    on = ladder(
        ceiling={} if policy is None else {"tokens": policy},
        tenants=[{"name": "free", "ceiling": {} if own is None else {"tokens": own}}, {"name": "paid"}],
    )
    headers = {"x_trimtab_tenant": tenant} if tenant else {}
    body = chat() if asked_for is None else chat(max_tokens=asked_for)
    by_name = where.startswith("model-")
    body, headers = (body | {"model": where}, headers) if by_name else (body, headers | {"x_trimtab_tier": where})
    plan = planned(body, on, **headers)
    bounds = {"policy": None if by_name else policy, "tenant free": own if tenant == "free" else None}
    given_bounds = {name: value for name, value in bounds.items() if value is not None}
    sent = json.loads(rewrite(asked(body, on, **headers), plan)[0])
    most = sent.get("max_completion_tokens", sent.get("max_tokens"))
    if given_bounds:
        lowest = min(given_bounds.values())
        assert plan.spending.limits.tokens == lowest
        assert given_bounds[plan.spending.limits.owners["tokens"]] == lowest
        assert most <= min(lowest, asked_for or lowest)
    else:
        assert not plan.spending.limits.bounds
        assert most == asked_for or not by_name


TENANTS = [{"name": "free", "ceiling": {"tokens": 600, "seconds": 5, "costMicros": 5000}}, {"name": "paid"}]


def test_explain_says_whose_bound_it_is():
    on = ladder(ceiling={"tokens": 500, "seconds": 60}, tenants=TENANTS)
    shown = plan_as_dict(planned(chat(), on, x_trimtab_tenant="free"))["spending"]["ceiling"]
    assert shown == {
        "tokens": 500,
        "seconds": 5,
        "cost": 0.005,
        "of": {"tokens": "policy", "seconds": "tenant free", "cost": "tenant free"},
    }
    assert plan_as_dict(planned(chat(), on, x_trimtab_tenant="paid"))["spending"]["ceiling"]["of"] == {
        "tokens": "policy",
        "seconds": "policy",
    }


def test_a_tenants_ceiling_holds_for_a_pool_by_name():
    on = ladder(ceiling={"tokens": 20}, tenants=TENANTS)

    def sent(tenant, **changes):
        asks = asked(chat(model="model-high", **changes), on, x_trimtab_tenant=tenant)
        return json.loads(rewrite(asks, plan_on(asks.facts, scores(), on))[0])

    assert sent("free")["max_completion_tokens"] == 600
    assert sent("free", max_tokens=50)["max_tokens"] == 50
    assert "max_completion_tokens" not in sent("paid")
    assert sent("paid", max_tokens=50)["max_tokens"] == 50


def test_seconds_alone_put_no_cap_on_a_pool_by_name():
    on = ladder(tenants=[{"name": "free", "ceiling": {"seconds": 5}}])
    asks = asked(chat(model="model-high"), on, x_trimtab_tenant="free")
    plan = plan_on(asks.facts, scores(), on)
    assert plan.spending.limits.seconds == 5
    assert "max_completion_tokens" not in json.loads(rewrite(asks, plan)[0])


def test_a_refusal_says_whose_ceiling_it_was():
    on = ladder(ceiling={"costMicros": 10**6}, tenants=[{"name": "free", "ceiling": {"tokens": 100}}])
    with pytest.raises(ApiError, match="messages: tenant free's and the policy's ceiling leaves 5 tokens for"):
        planned(chat(n=20), on, x_trimtab_tenant="free")


def test_a_class_lowers_the_ceiling_and_may_not_escalate():
    rule = {"name": "math", "tier": "medium", "ceiling": {"tokens": 500}, "escalate": False}
    on = ladder(classes=[rule], ceiling={"tokens": 900}, escalation={"maxSteps": 2})
    plan = planned(chat(), on, scores(class_name="math"))
    assert plan.spending.limits.tokens == 500
    assert plan.spending.escalation.max_steps == 0
    assert planned(chat(), on).spending.limits.tokens == 900


def test_a_class_has_its_own_strategy():
    rule = {"name": "math", "tier": "medium", "strategy": {"type": "SelfConsistency"}}
    plan = planned(chat(), ladder(classes=[rule]), scores(class_name="math"))
    assert plan.strategy == "self-consistency"
    assert planned(chat(), ladder(classes=[rule])).strategy == "single"


def test_a_pool_by_name_has_no_ceiling():
    on = ladder(ceiling={"tokens": 20})
    assert not planned(chat(model="model-low"), on).spending.limits.bounds


def test_too_many_answers_for_a_ceiling_are_refused():
    with pytest.raises(ApiError, match="ceiling leaves 5 tokens"):
        planned(chat(n=20), ladder(ceiling={"tokens": 100}))
