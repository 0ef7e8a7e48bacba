"""`trimtab explain`: the router's own plan, for a prompt or a request body."""

import io
import json
from pathlib import Path

import pytest
import yaml

from support.commands import Trimtab
from support.manifests import policy_manifest, pool_manifest, shape
from trimtab_classifier.labels import CLASSES

QUERY = "What is the capital of France?"


@pytest.fixture
def trimtab(capsys: pytest.CaptureFixture[str]) -> Trimtab:
    return Trimtab(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pools, of which one has a shape, and a policy that always wants the strongest tier."""
    return written(tmp_path, quality=100)


def written(path: Path, *, quality: int) -> Path:
    """At the ends of the knob the plan does not depend on what the packaged classifier predicts."""
    pools = [pool_manifest("low", spec__model__shape=shape()), pool_manifest("high")]
    policy = policy_manifest(spec__quality=quality, spec__classifier={"outOfDomainPercent": 100})
    (path / "all.yaml").write_text(yaml.safe_dump_all([*pools, policy]))
    return path


def test_json_has_what_other_tools_rely_on(trimtab: Trimtab, folder: Path):
    ran = trimtab("explain", "-f", folder, QUERY, "-o", "json")
    assert ran.status == 0
    plan = json.loads(ran.out)
    assert {"tier", "pool", "class", "budget", "strategy", "reason", "candidates"} <= set(plan)
    assert set(plan["budget"]) >= {"thinking_tokens", "output_tokens", "samples", "seconds", "cost"}
    assert (plan["tier"], plan["pool"], plan["reason"]) == ("high", "high", "Gain")
    assert plan["class"] in CLASSES
    assert [(c["tier"], c["accepted"]) for c in plan["candidates"]] == [("low", False), ("high", True)]
    assert all(c["reason"] and c["message"] for c in plan["candidates"])


def test_the_cheapest_tier_serves_where_nothing_is_worth_a_step(trimtab: Trimtab, tmp_path: Path):
    plan = json.loads(trimtab("explain", "-f", written(tmp_path, quality=0), QUERY, "-o", "json").out)
    assert (plan["tier"], plan["budget"]["thinking_tokens"]) == ("low", 0)


def test_the_table_shows_the_choice_and_the_rejected(trimtab: Trimtab, folder: Path):
    out = trimtab("explain", "-f", folder, QUERY).out
    assert out.startswith("high on pool high: class ")
    assert "\nGain: class " in out
    assert "budget: 4096 thinking and 1024 output tokens; seconds unknown, cost unknown" in out
    [low] = [line for line in out.splitlines() if " low " in line]
    assert "GainWorthIt" in low
    assert "unknown" not in low


def test_the_table_shows_what_doubling_a_budget_is_worth(trimtab: Trimtab, tmp_path: Path):
    """Whatever its class, the policy's own outcomes come before the packaged curves."""
    classes = [n for n in CLASSES if n != "agentic"]
    shares = {512: 400, 1024: 500, 2048: 600, 4096: 700}
    outcomes = [
        {"className": n, "tier": "high", "thinkingTokens": t, "right": r, "wrong": 1000 - r}
        for n in classes
        for t, r in shares.items()
    ]
    policy = policy_manifest(spec__outcomes=outcomes, spec__classifier={"outOfDomainPercent": 100})
    pools = [pool_manifest("low"), pool_manifest("high")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([*pools, policy]))
    out = trimtab("explain", "-f", tmp_path, QUERY).out
    [line] = [text for text in out.splitlines() if " 2048 " in text]
    assert "+0.1" in line
    plan = json.loads(trimtab("explain", "-f", tmp_path, QUERY, "-o", "json").out)
    [found] = [c for c in plan["candidates"] if c["budget"]["thinking_tokens"] == 2048]
    assert found["doubling"]["source"] == "outcomes"


def test_a_pool_by_name_is_not_bounded(trimtab: Trimtab, folder: Path, tmp_path: Path):
    body = {"model": "high", "messages": [{"role": "user", "content": "[red] hi"}]}
    request = tmp_path / "request.json"
    request.write_text(json.dumps(body))
    out = trimtab("explain", "-f", folder / "all.yaml", "--request", request).out
    assert "PoolByName: model high names pool high" in out
    assert "unbounded" in out


def test_a_compiled_document_gives_the_same_plan(trimtab: Trimtab, folder: Path):
    document = folder / "router.json.txt"
    assert trimtab("compile", "-f", folder, "-o", document).status == 0
    first, second = (trimtab("explain", *s, QUERY, "-o", "json").out for s in (("-f", folder), ("--config", document)))
    assert json.loads(first) == json.loads(second)


def test_a_request_body_may_choose_by_hand(trimtab: Trimtab, folder: Path, monkeypatch: pytest.MonkeyPatch):
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "trimtab": {"budget": 100}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(body)))
    plan = json.loads(trimtab("explain", "-f", folder, "--request", "-", "-o", "json").out)
    assert (plan["tier"], plan["reason"]) == ("high", "BudgetField")
    assert plan["budget"]["thinking_tokens"] == 4096


def test_a_completion_is_explained_too(trimtab: Trimtab, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"model": "auto", "prompt": "Say hello."})))
    plan = json.loads(trimtab("explain", "-f", folder, "--request", "-", "-o", "json").out)
    assert (plan["tier"], plan["facts"]["turns"]) == ("high", 1)


def test_headers_choose_by_hand(trimtab: Trimtab, folder: Path):
    plan = json.loads(trimtab("explain", "-f", folder, "hi", "-H", "X-Trimtab-Tier: high", "-o", "json").out)
    assert (plan["tier"], plan["reason"]) == ("high", "TierHeader")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["hi", "-H", "x-trimtab-tier:best"], 'x-trimtab-tier: "best" is not allowed; use one of low, high'),
        (["hi", "-H", "high"], "--header high: not a header; write NAME:VALUE"),
        (["--request", "/no/such"], "/no/such: no such file or folder; correct the path"),
    ],
    ids=["a tier that is not there", "no header", "no file"],
)
def test_what_the_router_would_refuse_is_refused(trimtab: Trimtab, folder: Path, options: list[str], sentence: str):
    assert trimtab.refused("explain", "-f", folder, *options) == sentence


def test_bodies_and_documents_that_are_no_good(trimtab: Trimtab, folder: Path):
    body = folder / "body.txt"
    body.write_text("{}")
    assert trimtab.refused("explain", "-f", folder, "--request", body).startswith("model: must be one of auto")
    body.write_text("{")
    assert trimtab.refused("explain", "-f", folder, "--request", body).startswith("body: not valid JSON")
    assert trimtab.refused("explain", "--config", body, "hi").startswith(f"{body}: document: Invalid JSON")
    body.write_text('{"policy": "a/b"}')
    assert trimtab.refused("explain", "--config", body, "hi") == (
        f"{body}: models: Field required; write it with `trimtab compile`"
    )


def test_one_source_and_one_query_are_needed(trimtab: Trimtab, folder: Path):
    assert "one of the arguments -f/--filename --config is required" in trimtab("explain", "hi").err
    assert "one of the arguments --request PROMPT is required" in trimtab("explain", "-f", folder).err
