"""Builders for the router's tests: documents, facts, scores, a scorer that says what it is told."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab_classifier.features import Query
from trimtab_crds.wire import RouterConfig
from trimtab_router.core.facts import Facts
from trimtab_router.core.ladder import Ladder, compile_ladder
from trimtab_router.core.parse import Ask, understand
from trimtab_router.core.plan import Plan
from trimtab_router.core.planner import plan_on
from trimtab_router.core.scores import Scores

TIERS = {"low": 0, "medium": 1000, "high": 4000}


def pool(name: str, **changes: Any) -> dict[str, Any]:
    """A pool of a document; it has no replica unless `addresses` says so."""
    return {
        "name": f"pool-{name}",
        "servedName": f"model-{name}",
        "reasoning": True,
        "contextTokens": 32768,
        "promptTokenSeconds": 0.0001,
        "outputTokenSeconds": 0.001,
        "outputTokenLatencySeconds": 0.01,
        **changes,
    }


def document(pools: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """A document with the tiers low, medium and high; `pools` changes the pool of a tier."""
    pools = pools or {}
    return {
        "policy": "default/chat",
        "models": ["auto"],
        "tiers": [
            {"name": n, "pool": f"pool-{n}", "thinkingTokens": t, "outputTokens": 1000} for n, t in TIERS.items()
        ],
        "pools": [pool(n, **pools.get(n, {})) for n in TIERS],
        "classifier": {"defaultTier": "high"},
        **changes,
    }


def config(pools: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any) -> RouterConfig:
    """The document, validated."""
    return RouterConfig.model_validate(document(pools, **changes))


def ladder(pools: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any) -> Ladder:
    """The document, compiled."""
    return compile_ladder(config(pools, **changes))


def facts(**changes: Any) -> Facts:
    """A short question to the policy."""
    return Facts(**{"model": "auto", "prompt_tokens": 100, **changes})


def scores(**changes: Any) -> Scores:
    """A familiar query of class chat for which nothing is to be gained."""
    standard = {
        "class_name": "chat",
        "class_probability": 0.9,
        "gain": 0.0,
        "output_tokens_p50": 200,
        "output_tokens_p90": 600,
        "out_of_domain": 0.5,
    }
    return Scores(**{**standard, **changes})


def chat(text: str = "hello", **changes: Any) -> dict[str, Any]:
    """A chat body."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **changes}


def asked(body: dict[str, Any], on: Ladder | None = None, **headers: str) -> Ask:
    """The request understood; header names with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return understand(body, named, on or ladder(), route="completions" if "prompt" in body else "chat")


def planned(body: dict[str, Any], on: Ladder | None = None, score: Scores | None = None, **headers: str) -> Plan:
    """The plan of a request; by default it is scored as nothing to be gained."""
    on = on or ladder()
    return plan_on(asked(body, on, **headers).facts, score or scores(), on)


class FixedScorer:
    """Gives the same scores to every query, and remembers the batches."""

    def __init__(self, score: Scores | None = None) -> None:
        self.answer = score or scores()
        self.batches: list[int] = []

    def score(self, queries: Sequence[Query]) -> list[Scores]:
        self.batches.append(len(queries))
        return [self.answer] * len(queries)


class BrokenScorer:
    """Raises."""

    def score(self, queries: Sequence[Query]) -> list[Scores]:
        raise RuntimeError("broken on purpose")
