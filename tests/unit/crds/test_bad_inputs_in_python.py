"""What must be refused is refused in Python with exactly this sentence; the contract suite asks the API server."""

import datetime as dt
import re
from typing import Any

import pytest
from pydantic import BaseModel

from support.badinput import BadInput
from support.badinputs import BAD_INPUTS
from support.brokenrules import BROKEN_RULES
from support.manifests import policy_manifest, pool_manifest, shape, tier
from trimtab_crds.inferencepool import InferencePool, InferencePoolSpec
from trimtab_crds.load import SpecInvalid, load
from trimtab_crds.meta import Spec
from trimtab_crds.routingpolicy import RoutingPolicy, RoutingPolicySpec
from trimtab_crds.schema import models_of

VALID = [
    pytest.param(pool_manifest(), id="a small pool"),
    pytest.param(
        pool_manifest(
            spec__model__shape=shape(activeParametersMillions=8190),
            spec__recipe={
                "preset": "reasoning",
                "speculation": {"method": "eagle3", "model": "org/draft"},
                "parallelism": {"tensor": 2, "pipeline": 2},
                "batching": {"maxSequences": 256, "maxBatchedTokens": 256},
            },
            spec__accelerator__count=4,
            spec__replicas=4,
            spec__scaling={"minReplicas": 1, "maxReplicas": 4},
            spec__engine={"args": ["--disable-log-stats", "--portable"]},
        ),
        id="a pool at every bound",
    ),
    pytest.param(pool_manifest(spec__replicas=None, spec__recipe=None), id="null is no value"),
    pytest.param(policy_manifest(), id="a small policy"),
    pytest.param(
        policy_manifest(
            spec__tiers=[tier("low"), tier("mid"), tier("high")],
            spec__classes=[{"name": "math", "tier": "high"}],
            spec__context=[{"minPromptTokens": 8000, "tier": "high"}],
            spec__classifier={"defaultTier": "mid"},
            spec__rebalance={
                "mode": "Apply",
                "gpuBudget": [{"accelerator": "nvidia-l4-24gb", "gpus": 8}],
                "intervalSeconds": 30,
                "windowSeconds": 30,
            },
        ),
        id="a policy that uses every rule",
    ),
]


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.id)
def test_a_bad_manifest_is_refused_with_these_sentences(bad: BadInput):
    with pytest.raises(SpecInvalid) as refused:
        load(bad.manifest)
    assert refused.value.problems == bad.problems
    assert str(refused.value) == "; ".join(bad.problems)


@pytest.mark.parametrize("manifest", VALID)
def test_a_good_manifest_is_taken(manifest: dict[str, Any]):
    resource = load(manifest)
    assert resource.key == f"default/{manifest['metadata']['name']}"


def test_the_table_is_large_and_names_every_case_once():
    names = [bad.id for bad in BAD_INPUTS]
    assert len(names) >= 30
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "Pool"}, "kind: 'Pool' is not one of InferencePool, RoutingPolicy; correct it"),
        ({"kind": None}, "kind: None is not one of InferencePool, RoutingPolicy; correct it"),
        (
            {"apiVersion": "inference.networking.k8s.io/v1"},
            "apiVersion: 'inference.networking.k8s.io/v1' is not served; use trimtab.dev/v1alpha1",
        ),
        ({"metadata": {}}, "metadata.name: required; set it"),
        (
            {"data": {}},
            "data: no such field; remove it or correct its spelling (kubectl explain lists the fields)",
        ),
    ],
    ids=["another kind", "no kind", "the other InferencePool", "no name", "a field beside spec"],
)
def test_what_is_no_resource_of_ours_is_refused(change: dict[str, Any], problem: str):
    with pytest.raises(SpecInvalid) as refused:
        load(pool_manifest() | change)
    assert refused.value.problems == (problem,)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(SpecInvalid) as refused:
        load(pool_manifest(spec__replicas="x" * 500))
    assert len(str(refused.value)) < 120


def test_a_date_that_yaml_made_of_a_revision_counts_as_its_text():
    pool = load(pool_manifest(spec__model__revision=dt.date(2026, 1, 31)))
    assert isinstance(pool, InferencePool)
    assert pool.spec.model.revision == "2026-01-31"


def rule_messages() -> list[str]:
    """The message of every declared rule."""
    models: list[type[BaseModel]] = [*models_of(InferencePoolSpec), *models_of(RoutingPolicySpec)]
    return [rule.message for model in models if issubclass(model, Spec) for rule in model.rules]


def as_pattern(message: str) -> str:
    """The message with anything where its placeholders stand."""
    return ".+".join(re.escape(part) for part in re.split(r"\{[A-Za-z.]+\}", message))


@pytest.mark.parametrize("message", rule_messages())
def test_every_rule_is_broken_by_a_row_of_the_table(message: str):
    pattern = re.compile(as_pattern(message))
    assert any(pattern.search(problem) for bad in BAD_INPUTS for problem in bad.problems)


@pytest.mark.parametrize("bad", BROKEN_RULES, ids=lambda bad: bad.id)
def test_a_rule_names_the_fix(bad: BadInput):
    assert all("; " in problem for problem in bad.problems)


def test_both_kinds_are_read():
    assert isinstance(load(pool_manifest()), InferencePool)
    assert isinstance(load(policy_manifest()), RoutingPolicy)
