"""Prompts that one pool reads and another answers: the recipe's part, the pods, the policy, the fleet, the networks."""

from typing import Any

import pytest

from support.manifests import policy_manifest, pool_manifest, shape, tier
from support.operatorparts import H100
from support.rebalancing import observed_pool
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.load import SpecInvalid, load
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_crds.wire import RouterConfig
from trimtab_operator.core import networkpolicies
from trimtab_operator.core.claims import claims
from trimtab_operator.core.enginepod import pod_template
from trimtab_operator.core.fleet import Demand
from trimtab_operator.core.observation import Observation, fleet_of
from trimtab_operator.core.recipe import resolve
from trimtab_operator.core.routerconfig import compile_config, unbudgeted

PREFILL, DECODE = {"disaggregation": {"role": "Prefill"}}, {"disaggregation": {"role": "Decode"}}


def pool(name: str, recipe: Any = None, **changes: Any) -> InferencePool:
    base = {"spec__accelerator__name": H100, "spec__model__shape": shape(), "spec__recipe": recipe or {}}
    made = load(pool_manifest(name, **base | changes))
    assert isinstance(made, InferencePool)
    return made


def policy(**changes: Any) -> RoutingPolicy:
    low = tier("low") | {"prefillPoolRef": {"name": "reader"}}
    made = load(policy_manifest(**{"spec__tiers": [low, tier("high", thinking_tokens=64)]} | changes))
    assert isinstance(made, RoutingPolicy)
    return made


def pools(**changed: InferencePool) -> dict[str, InferencePool]:
    whole = {"low": pool("low", DECODE), "reader": pool("reader", PREFILL), "high": pool("high")}
    return whole | changed


# the recipe and its pods


@pytest.mark.parametrize("recipe", [PREFILL, DECODE], ids=["Prefill", "Decode"])
def test_both_roles_have_the_connector(recipe: Any):
    flags = resolve(pool("low", recipe)).flags
    assert flags[flags.index("--kv-transfer-config") + 1] == (
        '{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"recompute"}'
    )
    assert "--kv-transfer-config" not in resolve(pool("low")).flags


def container(made: InferencePool) -> dict[str, Any]:
    (found,) = pod_template(made, (), {})["spec"]["containers"]
    return dict(found)


def test_engines_say_where_they_are_and_probes_stay():
    plain, divided = container(pool("low")), container(pool("low", DECODE))
    env = {e["name"]: e for e in divided["env"]}
    assert env["VLLM_NIXL_SIDE_CHANNEL_HOST"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env["VLLM_NIXL_SIDE_CHANNEL_PORT"]["value"] == "5600"
    assert [(p["name"], p["containerPort"]) for p in divided["ports"]] == [("http", 8000), ("nixl-0", 5600)]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        assert divided[probe] == plain[probe]
    assert not any(e["name"].startswith("VLLM_NIXL") for e in plain["env"])
    assert len(plain["ports"]) == 1


def test_every_data_parallel_rank_has_a_side_channel():
    recipe = DECODE | {"parallelism": {"tensor": 1, "data": 2, "expert": True}}
    made = pool("low", recipe, spec__accelerator={"name": H100, "count": 2})
    assert [p["containerPort"] for p in container(made)["ports"]] == [8000, 5600, 5601]


def test_the_users_side_channel_goes_first():
    theirs = [{"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "value": "10.0.0.1"}]
    env = container(pool("low", DECODE, spec__engine={"env": theirs}))["env"]
    assert [e for e in env if e["name"] == "VLLM_NIXL_SIDE_CHANNEL_HOST"] == theirs


REFUSED = {
    "offload": (
        {"spec__recipe": DECODE | {"kvCache": {"offloadGib": 8}}},
        "recipe.disaggregation.role Decode beside recipe.kvCache.offloadGib 8: vLLM lets the offload replace",
    ),
    "memory that moves": (
        {
            "spec__recipe": PREFILL,
            "spec__engine": {"env": [{"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "expandable_segments:True"}]},
        },
        "recipe.disaggregation.role Prefill beside engine.env PYTORCH_CUDA_ALLOC_CONF expandable_segments:True",
    ),
    "split caches": (
        {
            "spec__recipe": PREFILL | {"parallelism": {"tensor": 16, "decodeContext": 2}},
            "spec__accelerator": {"name": H100, "count": 16},
        },
        "recipe.disaggregation.role Prefill beside recipe.parallelism.decodeContext 2; set decodeContext to 1",
    ),
    "another connector": (
        {"spec__recipe": PREFILL, "spec__engine": {"args": ["--kv-transfer-config", "{}"]}},
        "engine.args --kv-transfer-config sets --kv-transfer-config, which the recipe owns",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=list(REFUSED))
def test_what_moves_caches_stands_alone(changes: Any, sentence: str):
    (reason,) = resolve(pool("low", **changes)).reasons
    assert reason.startswith(sentence)


def test_sleeping_engines_keep_their_memory_in_place():
    env = [
        {"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "expandable_segments:True"},
        {"name": "VLLM_SERVER_DEV_MODE", "value": "1"},
    ]
    assert resolve(pool("low", PREFILL | {"sleepMode": True}, spec__engine={"env": env})).accepted


def test_a_pool_without_the_field_may_name_a_connector_itself():
    assert resolve(pool("low", spec__engine={"args": ["--kv-transfer-config", "{}"]})).accepted


# the policy


def test_the_document_names_both_pools():
    config = compile_config(policy(), pools())
    assert [(t.name, t.pool, t.prefill_pool) for t in config.tiers] == [
        ("low", "low", "reader"),
        ("high", "high", None),
    ]
    assert [p.name for p in config.pools] == ["low", "high", "reader"]
    assert RouterConfig.model_validate_json(config.document()) == config
    assert config.document().count("prefillPool") == 1


def test_a_document_without_the_reader_is_refused():
    broken = compile_config(policy(), pools()).model_dump(by_alias=True)
    broken["pools"] = [p for p in broken["pools"] if p["name"] != "reader"]
    with pytest.raises(ValueError, match="low names prefillPool 'reader', which is not in pools"):
        RouterConfig.model_validate(broken)


FIELD = "tiers[0].prefillPoolRef.name reader"
MISMATCHES = {
    "it is not there": (
        {"reader": None},
        f"{FIELD} is not an InferencePool of namespace default; create it or correct the name",
    ),
    "it has no role": (
        {"reader": pool("reader")},
        f"{FIELD} needs recipe.disaggregation.role Prefill on pool reader; set it there",
    ),
    "the roles are exchanged": (
        {"reader": pool("reader", DECODE)},
        f"{FIELD} needs recipe.disaggregation.role Prefill on pool reader; set it there",
    ),
    "the answering pool has no role": (
        {"low": pool("low")},
        f"{FIELD} needs recipe.disaggregation.role Decode on pool low; set it there",
    ),
    "another model": (
        {"reader": pool("reader", PREFILL, spec__model={"name": "other/model", "shape": shape()})},
        f"{FIELD} has model.name other/model, and pool low Qwen/Qwen3-8B; make them the same",
    ),
    "another type of cache": (
        {"reader": pool("reader", PREFILL | {"kvCache": {"dtype": "fp8"}})},
        f"{FIELD} has recipe.kvCache.dtype fp8, and pool low unset; make them the same",
    ),
    "other weights": (
        {"reader": pool("reader", PREFILL | {"quantization": "fp8"})},
        f"{FIELD} has recipe.quantization fp8, and pool low unset; make them the same",
    ),
    "another block size": (
        {"reader": pool("reader", PREFILL, spec__engine={"args": ["--block-size=32"]})},
        f"{FIELD} has engine.args --block-size 32, and pool low unset; make them the same",
    ),
    "another type of numbers": (
        {"low": pool("low", DECODE, spec__engine={"args": ["--dtype", "float16"]})},
        f"{FIELD} has engine.args --dtype unset, and pool low float16; make them the same",
    ),
    "another version": (
        {"reader": pool("reader", PREFILL, spec__engine={"version": "0.33.0"})},
        f"{FIELD} has engine.version 0.33.0, and pool low 0.32.0; make them the same",
    ),
    "guesses on one side": (
        {"reader": pool("reader", PREFILL | {"speculation": {"method": "ngram"}})},
        f"{FIELD} has recipe.speculation ",
    ),
    "a shorter context": (
        {
            "low": pool("low", DECODE, spec__model__contextTokens=8192),
            "reader": pool("reader", PREFILL, spec__model__contextTokens=4096),
        },
        f"{FIELD} has model.contextTokens 4096, below the 8192 of pool low",
    ),
    "a role that no tier divides": (
        {"high": pool("high", DECODE)},
        "tiers[1].poolRef.name high has recipe.disaggregation.role Decode, and the tier has no prefillPoolRef",
    ),
}


@pytest.mark.parametrize(("changed", "sentence"), MISMATCHES.values(), ids=list(MISMATCHES))
def test_pools_that_cannot_share_a_prompt_are_refused(changed: Any, sentence: str):
    with pytest.raises(SpecInvalid) as refused:
        compile_config(policy(), {n: p for n, p in pools(**changed).items() if p is not None})
    assert any(problem.startswith(sentence) for problem in refused.value.problems), refused.value.problems


def test_verifiers_read_themselves():
    best = {"type": "BestOfN", "verifierPoolRef": {"name": "judge"}}
    made = policy(spec__tiers=[tier("low") | {"strategy": best}])
    with pytest.raises(SpecInvalid) as refused:
        compile_config(made, {"low": pool("low"), "judge": pool("judge", PREFILL)})
    (sentence,) = refused.value.problems
    assert sentence.startswith("tiers[0].strategy.verifierPoolRef.name judge has recipe.disaggregation.role Prefill")


def test_a_refused_recipe_is_said_once_at_its_own_pool():
    broken = pool("reader", PREFILL, spec__engine={"args": ["--no-such-flag"]})
    assert compile_config(policy(), pools(reader=broken)).tiers[0].prefill_pool == "reader"


# the fleet


def test_both_pools_are_claimed_and_budgeted():
    assert policy().pool_names == policy().moved_pool_names == ["low", "high", "reader"]
    manifest = policy_manifest(spec__tiers=[tier("low") | {"prefillPoolRef": {"name": "reader"}}])
    assert claims([manifest]) == {"low": "chat", "reader": "chat"}
    made = policy(spec__rebalance={"mode": "Apply", "gpuBudget": [{"accelerator": H100, "gpus": 4}]})
    a100 = pool("reader", PREFILL, spec__accelerator__name="nvidia-a100-80gb")
    assert unbudgeted(made, pools()) == []
    assert unbudgeted(made, pools(reader=a100)) == [
        "rebalance.gpuBudget has no entry for accelerator nvidia-a100-80gb, which pools of the tiers use; add one"
    ]


def test_the_reader_is_moved_by_prompts_and_the_other_by_answers():
    seen = Observation(policy(), {name: observed_pool(name) for name in ("low", "high", "reader")})
    fleet = fleet_of(seen, {"low": Demand(2, 1000, 300), "high": Demand(1, 500, 100)})
    assert [(t.name, t.pool.name) for t in fleet.tiers] == [
        ("low", "low"), ("low/prefill", "reader"), ("high", "high"),
    ]  # fmt: skip
    answered, read, whole = (t.demand for t in fleet.tiers)
    assert answered == Demand(2, 0, 300)
    assert read == Demand(2, 1000, 2)
    assert whole == Demand(1, 500, 100)
    assert all(t.work for t in fleet.tiers)


def test_missing_demand_is_missing_for_both():
    seen = Observation(policy(), {name: observed_pool(name) for name in ("low", "reader")})
    assert [t.demand for t in fleet_of(seen, {}).tiers] == [None, None]


def test_a_reader_that_was_not_observed_is_absent():
    seen = Observation(policy(), {"low": observed_pool("low")})
    assert [t.name for t in fleet_of(seen, {}).tiers] == ["low"]


# networks

ISOLATED = {"spec__network": {"isolated": True}}
CACHED = {"name": "/models/m", "shape": shape(), "cache": {"claimName": "models"}, "offline": True}
OFFLINE = ISOLATED | {"spec__model": CACHED}


def transfers(**changed: InferencePool) -> dict[str, Any]:
    made = networkpolicies.of_routers(policy(), pools(**changed))
    return {m["metadata"]["name"].removeprefix("chat-router-"): m["spec"] for m in made}


def selected(spec: dict[str, Any]) -> list[str]:
    (expression,) = spec["podSelector"]["matchExpressions"]
    return list(expression["values"])


def test_pools_that_are_open_need_no_rule():
    assert transfers() == {}


def test_isolated_engines_of_a_pair_may_meet():
    found = transfers(low=pool("low", DECODE, **ISOLATED), high=pool("high", **ISOLATED))
    assert set(found) == {"engines", "transfers-low"}
    spec = found["transfers-low"]
    assert (selected(spec), spec["policyTypes"]) == (["low"], ["Ingress"])
    (rule,) = spec["ingress"]
    assert "ports" not in rule
    assert selected(rule["from"][0]) == ["low", "reader"]


def test_one_that_is_offline_gets_a_way_out_and_the_other_keeps_its_own():
    found = transfers(low=pool("low", DECODE, **OFFLINE), reader=pool("reader", PREFILL, **ISOLATED))
    assert set(found) == {"engines", "transfers-low", "fetches-low"}
    assert selected(found["transfers-low"]) == ["low", "reader"]
    out = found["fetches-low"]
    assert (selected(out), out["policyTypes"], "ingress" in out) == (["low"], ["Egress"], False)
    assert selected(out["egress"][0]["to"][0]) == ["low", "reader"]
