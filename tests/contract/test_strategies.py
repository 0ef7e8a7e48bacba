"""Strategies and escalation between the real OpenAI SDK and engines: simulated ones, and a real vLLM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest

from support.engines import SimulatedEngine, simulated_engine
from support.routers import router_process
from testcluster.processes import PATIENCE_SECONDS
from testcluster.vllm import VllmServer

pytestmark = pytest.mark.contract
QUESTION = [{"role": "user", "content": "Prove that 17 * 23 = 391, step by step."}]


def document(low: str, high: str, *, budget: int, **changes: Any) -> dict[str, Any]:
    def pool(name: str, address: str, **more: Any) -> dict[str, Any]:
        found = {"name": name, "servedName": "tiny", "addresses": [address.removeprefix("http://")]}
        return found | {"contextTokens": 8192, "reasoning": True, "outputTokenSeconds": 0.01, **more}

    tiers = [
        {"name": "low", "pool": "low", "thinkingTokens": budget, "outputTokens": 24},
        {"name": "high", "pool": "high", "thinkingTokens": budget * 4, "outputTokens": 24},
    ]
    tiers[0]["strategy"] = changes.pop("strategy", {})
    return {
        "policy": "default/strategies",
        "models": ["auto"],
        "tiers": tiers,
        "pools": [pool("low", low, thinkingEnd="</think>"), pool("high", high)],
        "classifier": {"defaultTier": "low"},
        **changes,
    }


class Asked:
    """A router with a policy, and what the SDK gets from it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self._url}/v1", api_key="key", max_retries=0, timeout=PATIENCE_SECONDS)

    def whole(self, **how: Any) -> tuple[Any, Mapping[str, Any]]:
        """The answer and its account."""
        with self._client() as client:
            answer = client.chat.completions.create(model="auto", messages=QUESTION, **how)
        return answer, answer.usage.model_extra["trimtab"]

    def streamed(self, **how: Any) -> tuple[str, str, Mapping[str, Any]]:
        """Reasoning, content and account of a streamed answer."""
        how |= {"model": "auto", "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}}
        with self._client() as client, client.chat.completions.create(**how) as stream:
            chunks = list(stream)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        assert all(choice.logprobs is None for choice in choices)
        reasoning = "".join((c.delta.model_extra or {}).get("reasoning") or "" for c in choices)
        content = "".join(c.delta.content or "" for c in choices)
        return reasoning, content, chunks[-1].usage.model_extra["trimtab"]


@dataclass(frozen=True, slots=True)
class Forced:
    """Budget forcing under test; one of the `ways` to ask lets the model end its thought too early."""

    asked: Asked
    budget: int
    word_tokens: int
    ways: list[dict[str, Any]]


def tokens_of(base_url: str, text: str) -> list[int]:
    body = {"model": "tiny", "prompt": text, "add_special_tokens": False}
    found: list[int] = httpx.post(f"{base_url}/tokenize", json=body, timeout=PATIENCE_SECONDS, trust_env=False).json()[
        "tokens"
    ]
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[SimulatedEngine]:
    with simulated_engine("--reasoning-parser=qwen3") as running:
        yield running


def on_simulated(engine: SimulatedEngine, **how: Any) -> Any:
    return router_process(document(engine.base_url, engine.base_url, **({"budget": 64} | how)), "--classifier=off")


def test_samples_of_simulated_engines_vote(engine: SimulatedEngine):
    with on_simulated(engine, strategy={"type": "SelfConsistency", "samples": 3, "wave": 3}) as router:
        asked = Asked(router.url)
        answer, account = asked.whole()
        assert answer.choices[0].message.content
        assert account["strategy"] == "self-consistency"
        attempts = account["attempts"]
        assert 2 <= len(attempts) <= 3
        assert answer.usage.completion_tokens == sum(a["completion_tokens"] for a in attempts)
        assert account["cost"] > 0
        assert sum(a["cost"] for a in attempts) == pytest.approx(account["cost"])
        _, content, streamed = asked.streamed()
        assert content
        assert streamed["strategy"] == "self-consistency"


@pytest.mark.parametrize(
    ("strategy", "roles"),
    [
        ({"type": "Cascade", "samples": 1, "acceptPercent": 100}, ["sample", "escalation"]),
        ({"type": "MixedForm", "samples": 2}, ["form", "form", "escalation"]),
        ({"type": "ShortDraft"}, ["answer"]),
        ({"type": "Refine", "samples": 2, "verifierPool": "high"}, ["answer", "verifier"]),
        ({"type": "BestOfN", "samples": 2, "verifierPool": "high"}, ["sample", "sample", "verifier", "verifier"]),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_every_strategy_answers(engine: SimulatedEngine, strategy: dict[str, Any], roles: list[str]):
    with on_simulated(engine, strategy=strategy) as router:
        answer, account = Asked(router.url).whole()
        assert answer.choices[0].message.content
        assert sorted(a["role"] for a in account["attempts"]) == sorted(roles)


def test_a_spent_budget_is_raised_on_a_simulated_engine(engine: SimulatedEngine):
    escalation = {"maxSteps": 2, "signals": ["BudgetExhausted"]}
    with on_simulated(engine, escalation=escalation, budget=16) as router:
        asked = Asked(router.url)
        _, account = asked.whole()
        assert [a.get("signal") for a in account["attempts"]] == ["BudgetExhausted", "BudgetExhausted", None]
        reasoning, content, streamed = asked.streamed()
        assert reasoning
        assert content
        assert len(streamed["attempts"]) == 3


@pytest.fixture(scope="module", params=["simulated", "real"])
def forced(request: pytest.FixtureRequest) -> Iterator[Forced]:
    """A router that forces thoughts which the model ends by itself: a bias makes one of random weights do so."""
    if request.param == "simulated":
        strategy = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 2000, "continuations": 2}}
        with (
            simulated_engine("--reasoning-parser=qwen3", "--sim-time-scale=50") as engine,
            on_simulated(engine, strategy=strategy, budget=4000) as router,
        ):
            yield Forced(Asked(router.url), 4000, len(tokens_of(engine.base_url, "Wait")), [{}])
        return
    server = request.getfixturevalue("real_vllm")
    (end,) = tokens_of(server.base_url, "</think>")
    ways = [{"temperature": 1, "seed": seed, "logit_bias": {str(end): 4.5}} for seed in range(12)]
    ways = [way | {"extra_body": {"ignore_eos": True}} for way in ways]
    strategy = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 40, "continuations": 2}}
    with on_real(server, strategy=strategy, budget=64) as router:
        yield Forced(Asked(router.url), 64, len(tokens_of(server.base_url, "Wait")), ways)


def until_forced(answers: Iterator[Any]) -> Any:
    """The first of the answers whose thought was made to go on."""
    others = []
    for found in answers:
        if found[-1]["ended"] == "Forced":
            return found
        others.append(found[-1])
    pytest.fail(f"no thought was made to go on: {others}")


def test_a_thought_that_ends_too_early_goes_on(forced: Forced):
    answer, account = until_forced(forced.asked.whole(**way) for way in forced.ways)
    attempts = account["attempts"]
    assert [a["role"] for a in attempts] in (["answer", "continuation"], ["answer", "continuation", "continuation"])
    assert {a.get("signal") for a in attempts[:-1]} == {"EndedEarly"}
    message = answer.choices[0].message
    assert message.content
    assert message.model_extra["reasoning"].count("Wait") >= len(attempts) - 1
    for before, after in pairwise(attempts):
        grown = after["prompt_tokens"] - before["prompt_tokens"]
        # One event may have the end of the thought and tokens after it, which are counted and taken away.
        assert forced.word_tokens < grown <= before["completion_tokens"] + forced.word_tokens
    assert attempts[-1]["prompt_tokens"] - attempts[0]["prompt_tokens"] < forced.budget
    assert answer.usage.completion_tokens == sum(a["completion_tokens"] for a in attempts)


def test_a_streamed_thought_that_ends_too_early_goes_on(forced: Forced):
    reasoning, content, _ = until_forced(forced.asked.streamed(**way) for way in forced.ways)
    assert "Wait" in reasoning
    assert content
    assert "</think>" not in reasoning


def test_a_ceiling_holds_on_a_simulated_engine(engine: SimulatedEngine):
    vote = {"type": "SelfConsistency", "samples": 8, "wave": 2, "stopRule": "AllSamples"}
    with on_simulated(engine, strategy=vote, ceiling={"tokens": 150}) as router:
        answer, _ = Asked(router.url).whole(extra_body={"ignore_eos": True})
        assert answer.usage.completion_tokens <= 150


def on_real(server: VllmServer, **how: Any) -> Any:
    content = document(server.base_url, server.base_url, **({"budget": 16} | how))
    return router_process(content, "--classifier=off")


def test_a_thought_goes_on_where_it_was_on_a_real_vllm(real_vllm: VllmServer):
    escalation = {"maxSteps": 1, "signals": ["BudgetExhausted"]}
    with on_real(real_vllm, escalation=escalation) as router:
        asked = Asked(router.url)
        answer, account = asked.whole(temperature=0)
        first, second = account["attempts"]
        assert (first["signal"], second["role"]) == ("BudgetExhausted", "continuation")
        assert first["reasoning_tokens"] <= 16
        assert second["prompt_tokens"] == first["prompt_tokens"] + first["reasoning_tokens"]
        assert first["reasoning_tokens"] + second["reasoning_tokens"] <= 33
        assert answer.choices[0].message.content
        assert "</think>" not in answer.choices[0].message.content
        assert answer.choices[0].message.model_extra["reasoning"]
        reasoning, content, streamed = asked.streamed(temperature=0)
        assert reasoning
        assert content
        assert "</think>" not in reasoning + content
        assert [a["role"] for a in streamed["attempts"]] == ["answer", "continuation"]


def test_low_confidence_moves_up_on_a_real_vllm(real_vllm: VllmServer):
    escalation = {"maxSteps": 1, "signals": ["LowConfidence"], "windowTokens": 8, "patienceTokens": 2}
    with on_real(real_vllm, escalation=escalation, budget=32) as router:
        asked = Asked(router.url)
        _, account = asked.whole()
        assert [(a["tier"], a.get("signal")) for a in account["attempts"]] == [("low", "LowConfidence"), ("high", None)]
        _, content, streamed = asked.streamed()
        assert content
        assert [a["tier"] for a in streamed["attempts"]] == ["low", "high"]


def test_samples_of_a_real_vllm_vote(real_vllm: VllmServer):
    with on_real(real_vllm, strategy={"type": "SelfConsistency", "samples": 3, "wave": 3}) as router:
        answer, account = Asked(router.url).whole()
        assert answer.choices[0].message.content
        assert len(account["attempts"]) >= 2
