"""The document that operator and router meet in: consistent names, and bytes that are equal when it is."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from trimtab_crds.wire import PoolConfig, RouterConfig


def document(**changes: Any) -> dict[str, Any]:
    whole = {
        "policy": "default/chat",
        "models": ["auto"],
        "tiers": [{"name": "low", "pool": "small"}, {"name": "high", "pool": "large", "thinkingTokens": 4096}],
        "pools": [
            {"name": "small", "servedName": "small", "host": "small-engine.default.svc"},
            {"name": "large", "servedName": "large", "addresses": ["127.0.0.1:8001"], "reasoning": True},
        ],
        "classifier": {"defaultTier": "high"},
    }
    return whole | changes


def test_it_survives_the_way_to_the_router_and_back():
    config = RouterConfig.model_validate(document())
    assert RouterConfig.model_validate_json(config.document()) == config
    assert config.pool("large").addresses == ["127.0.0.1:8001"]
    assert config.tiers[1].thinking_tokens == 4096


def test_equal_configurations_are_equal_bytes_whatever_the_order_of_keys():
    turned = dict(reversed(list(document().items())))
    first, second = RouterConfig.model_validate(document()), RouterConfig.model_validate(turned)
    assert first.document() == second.document()
    assert first.digest() == second.digest()
    assert len(first.digest()) == 16


def test_the_digest_tells_a_change():
    first = RouterConfig.model_validate(document())
    assert RouterConfig.model_validate(document(quality=51)).digest() != first.digest()


def test_what_is_absent_is_not_written():
    pools = json.loads(RouterConfig.model_validate(document()).document())["pools"]
    assert "host" not in pools[1]
    assert "contextTokens" not in pools[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"classes": [{"name": "math", "tier": "medium"}]},
            "classes names tier 'medium', which is not in tiers: high, low",
        ),
        (
            {"context": [{"minPromptTokens": 1, "tier": "long"}]},
            "context names tier 'long', which is not in tiers: high, low",
        ),
        (
            {"classifier": {"defaultTier": "best"}},
            "classifier.defaultTier names tier 'best', which is not in tiers: high, low",
        ),
        ({"pools": []}, "tiers: low names pool 'small', which is not in pools"),
        ({"tiers": []}, "tiers\n  List should have at least 1 item"),
        ({"format": 2}, "format\n  Input should be 1"),
        ({"colour": "red"}, "colour\n  Extra inputs are not permitted"),
    ],
    ids=["class", "context", "default tier", "pool", "no tiers", "a later format", "an unknown field"],
)
def test_a_document_that_does_not_hang_together_is_refused(change: dict[str, Any], sentence: str):
    with pytest.raises(ValidationError) as refused:
        RouterConfig.model_validate(document(**change))
    assert sentence in str(refused.value)


def test_a_pool_has_a_name_or_addresses_and_not_both():
    with pytest.raises(ValidationError, match="pool small: give host or addresses, not both"):
        PoolConfig.model_validate({"name": "small", "servedName": "s", "host": "h", "addresses": ["127.0.0.1:1"]})
