"""A policy and its pools to the routers' document, or to sentences that say what to change."""

import json
from typing import Any

import pytest

from support.manifests import policy_manifest, pool_manifest, shape, tier
from support.operatorparts import H100
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import SpecInvalid, load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_crds.wire import RouterConfig
from trimtab_operator.core.routerconfig import compile_config, unbudgeted


def pool(name: str = "low", **changes: Any) -> InferencePool:
    made = load(pool_manifest(name, **{"spec__accelerator__name": H100, "spec__model__shape": shape()} | changes))
    assert isinstance(made, InferencePool)
    return made


def policy(**changes: Any) -> RoutingPolicy:
    made = load(policy_manifest(**changes))
    assert isinstance(made, RoutingPolicy)
    return made


POOLS = {"low": pool("low"), "high": pool("high")}


def problems(made: RoutingPolicy, pools: dict[str, InferencePool]) -> tuple[str, ...]:
    with pytest.raises(SpecInvalid) as refused:
        compile_config(made, pools)
    return refused.value.problems


def test_the_document_round_trips_and_has_equal_bytes_for_equal_policies():
    config = compile_config(policy(), POOLS)
    assert RouterConfig.model_validate_json(config.document()) == config
    assert compile_config(policy(), dict(reversed(POOLS.items()))).document() == config.document()


def test_everything_of_the_policy_arrives():
    made = policy(
        spec__models=["auto", "fast"],
        spec__quality=80,
        spec__classes=[{"name": "math", "tier": "high", "budget": {"thinkingTokens": 99, "outputTokens": 9}}],
        spec__context=[{"minPromptTokens": 8000, "tier": "high"}],
        spec__classifier={"deadlineMilliseconds": 7, "defaultTier": "low", "outOfDomainPercent": 90},
        spec__manual={"tierHeader": False, "reasoningEffort": False, "maxBudget": 40},
    )
    config = compile_config(made, POOLS)
    assert (config.policy, config.models, config.quality) == ("default/chat", ["auto", "fast"], 80)
    assert [(t.name, t.pool, t.thinking_tokens, t.output_tokens) for t in config.tiers] == [
        ("low", "low", 0, 1024),
        ("high", "high", 4096, 1024),
    ]
    assert [(c.name, c.tier, c.thinking_tokens, c.output_tokens) for c in config.classes] == [("math", "high", 99, 9)]
    assert [(c.min_prompt_tokens, c.tier) for c in config.context] == [(8000, "high")]
    assert (config.classifier.deadline_milliseconds, config.classifier.default_tier) == (7, "low")
    assert (config.manual.tier_header, config.manual.reasoning_effort, config.manual.max_budget) == (False, False, 40)


def test_a_class_without_a_budget_has_its_tiers():
    config = compile_config(policy(spec__classes=[{"name": "chat", "tier": "low"}]), POOLS)
    assert (config.classes[0].thinking_tokens, config.classes[0].output_tokens) == (None, None)


def test_a_miss_goes_to_the_strongest_tier_where_none_is_named():
    assert compile_config(policy(), POOLS).classifier.default_tier == "high"


def test_pools_are_found_by_name_in_a_cluster_and_by_address_outside():
    inside = compile_config(policy(), POOLS).pool("low")
    assert (inside.host, inside.addresses) == ("low-engine.default.svc", [])
    outside = compile_config(policy(), POOLS, {"low": ["127.0.0.1:9001"]})
    assert (outside.pool("low").host, outside.pool("low").addresses) == (None, ["127.0.0.1:9001"])
    assert outside.pool("high").addresses == [], "no replica yet"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"spec__recipe": {"speculation": {"method": "ngram"}}}, ["logit_bias", "min_p"], id="speculates"),
        pytest.param({"spec__recipe": {"speculation": {"method": "none"}}}, [], id="speculation off"),
        pytest.param({}, [], id="plain"),
    ],
)
def test_fields_that_a_speculating_engine_refuses(changes: dict[str, Any], expected: list[str]):
    pools = POOLS | {"low": pool("low", **changes)}
    assert compile_config(policy(), pools).pool("low").drops_sampling == expected


def test_costs_come_from_the_capacity_model_and_are_zero_without_a_shape():
    known = compile_config(policy(), POOLS).pool("low")
    assert 0 < known.prompt_token_seconds < known.output_token_seconds < known.output_token_latency_seconds
    blind = POOLS | {"low": pool("low", spec__model={"name": "x/y", "contextTokens": 8192})}
    unknown = compile_config(policy(), blind).pool("low")
    assert (unknown.prompt_token_seconds, unknown.output_token_seconds, unknown.reasoning) == (0, 0, False)


@pytest.mark.parametrize(
    ("made", "pools", "sentences"),
    [
        pytest.param(
            policy(),
            {"low": POOLS["low"]},
            ("tiers[1].poolRef.name high is not an InferencePool of namespace default; create it or correct the name",),
            id="a pool that is not there",
        ),
        pytest.param(
            policy(),
            POOLS | {"high": pool("high", spec__model={"name": "x/y", "contextTokens": 8192})},
            (
                (
                    "tiers[1].budget.thinkingTokens 4096 needs model.reasoningParser on pool high; "
                    "set it there, or set thinkingTokens to 0"
                ),
            ),
            id="thinking without a parser",
        ),
        pytest.param(
            policy(
                spec__tiers=[tier("low", thinking_tokens=512) | {"strategy": {"type": "BudgetForcing"}}],
                spec__classes=[{"name": "math", "tier": "low", "strategy": {"type": "BudgetForcing"}}],
            ),
            POOLS | {"low": pool("low", spec__model={"name": "x/y", "reasoningParser": "openai_gptoss"})},
            tuple(
                f"{field}.strategy.type BudgetForcing needs a model.reasoningParser of deepseek_r1, deepseek_v3, "
                "ernie45, glm45, glm47, nemotron_v3, olmo3, qwen3 on pool low, not openai_gptoss: no other thought can "
                "go on; set it there, or choose another type"
                for field in ("tiers[0]", "classes[0]")
            ),
            id="a thought that cannot be made to go on",
        ),
        pytest.param(
            policy(spec__tiers=[tier("low", thinking_tokens=40000)]),
            POOLS,
            (
                (
                    "tiers[0].budget asks for 41024 tokens, and contextTokens of pool low is 32768, prompt included; "
                    "lower the budget or raise contextTokens"
                ),
            ),
            id="a budget beyond the context",
        ),
        pytest.param(
            policy(spec__classes=[{"name": "math", "tier": "low", "budget": {"outputTokens": 40000}}]),
            POOLS,
            (
                (
                    "classes[0].budget asks for 40000 tokens, and contextTokens of pool low is 32768, prompt included; "
                    "lower the budget or raise contextTokens"
                ),
            ),
            id="a class's budget beyond the context",
        ),
        pytest.param(
            policy(spec__context=[{"minPromptTokens": 32768, "tier": "high"}]),
            POOLS,
            (
                (
                    "context[0].minPromptTokens 32768 does not fit into contextTokens 32768 of pool high; "
                    "lower it or choose a tier with a longer context"
                ),
            ),
            id="prompts beyond the context",
        ),
    ],
)
def test_what_no_pool_could_keep_is_refused(made: Any, pools: Any, sentences: tuple[str, ...]):
    assert problems(made, pools) == sentences


def test_every_problem_is_named_at_once():
    assert len(problems(policy(), {})) == 2


def test_apply_needs_a_budget_for_every_accelerator():
    budget = [{"accelerator": "nvidia-l4-24gb", "gpus": 4}]
    applies = policy(spec__rebalance={"mode": "Apply", "gpuBudget": budget})
    assert unbudgeted(applies, POOLS) == [
        "rebalance.gpuBudget has no entry for accelerator nvidia-h100-80gb, which pools of the tiers use; add one"
    ]
    assert unbudgeted(policy(spec__rebalance={"mode": "DryRun", "gpuBudget": budget}), POOLS) == []


def test_what_the_planner_learned_and_limits_arrive():
    outcome = {"className": "math", "tier": "high", "thinkingTokens": 512, "right": 40, "wrong": 10, "gainMilli": 120}
    made = policy(
        spec__planning={"spillPercent": 150, "explorePercent": 5, "unsolvable": "Cap", "unsolvablePercent": 7},
        spec__outcomes=[outcome],
        spec__tenants=[{"name": "free", "maxTier": "low", "maxBudget": 20, "maxThinkingTokens": 0}],
        spec__router={"replicas": 3},
    )
    config = compile_config(made, POOLS)
    assert config.planning is not None
    assert config.planning.model_dump() == {
        "spill_percent": 150,
        "explore_percent": 5,
        "unsolvable": "Cap",
        "unsolvable_percent": 7,
        "routers": 3,
    }
    document = json.loads(config.document())
    assert document["outcomes"] == [outcome]
    assert document["tenants"] == [{"name": "free", "maxTier": "low", "maxBudget": 20, "maxThinkingTokens": 0}]
    assert all(isinstance(pool["batch"], int) and pool["batch"] > 1 for pool in document["pools"])
    assert RouterConfig.model_validate_json(config.document()) == config


def test_keys_and_ceilings_of_tenants_are_in_the_document_and_secrets_are_not():
    keys, bound = {"secretRef": {"name": "keys-of-acme"}}, {"tokens": 9, "costMicros": 5}
    document = compile_config(policy(spec__tenants=[{"name": "acme", "apiKeys": keys, "ceiling": bound}]), POOLS)
    [tenant] = json.loads(document.document())["tenants"]
    assert tenant == {"name": "acme", "maxBudget": 100, "keyed": True, "ceiling": bound}


def test_a_policy_without_them_has_the_document_it_always_had():
    document = json.loads(compile_config(policy(), POOLS).document())
    assert not {"planning", "outcomes", "tenants"} & document.keys()
    assert not any("batch" in pool for pool in document["pools"])


def test_passing_queries_on_needs_to_know_how_much_a_pool_holds():
    bare = load(pool_manifest("high"))
    assert isinstance(bare, InferencePool)
    found = problems(policy(spec__planning={"spillPercent": 150}), {"low": POOLS["low"], "high": bare})
    sentence = (
        "planning.spillPercent 150 needs model.shape on pool high, without which its room is unknown; "
        "set it there, or set spillPercent to 0"
    )
    assert found == (sentence,)
