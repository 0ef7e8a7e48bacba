"""Lines of a decision log for tests: a small world where it is known how often every arm is right."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Right = Callable[[str, str, float], float]
"""Class, tier and hardness (0..1) to the chance of a right answer."""
COSTS = {"low": 1e-6, "medium": 4e-6, "high": 1e-5}


def decision_line(request_id: str, **changes: Any) -> dict[str, Any]:
    """A record as the router writes it."""
    return {
        "kind": "decision",
        "time": 1.0,
        "request_id": request_id,
        "policy": "default/chat",
        "config": "0" * 16,
        "query": "0" * 16,
        "class": "math",
        "class_probability": 0.9,
        "gain": 0.1,
        "out_of_domain": 0.5,
        "prompt_tokens": 100,
        "tier": "low",
        "pool": "pool-low",
        "thinking_tokens": 0,
        "output_tokens": 1024,
        "strategy": "single",
        "reason": "Gain",
        "planned_tier": "low",
        "outcome": "ok",
        "attempts": 1,
        "used_tokens": 50,
        "seconds": 1.0,
        "cost": 1e-6,
        **changes,
    }


def told(request_id: str, score: float) -> dict[str, Any]:
    """A client's word."""
    return {"kind": "feedback", "time": 2.0, "request_id": request_id, "score": score}


def logged(
    count: int,
    right: Right,
    *,
    classes: tuple[str, ...] = ("math", "chat"),
    explored: float = 0.3,
    judged: float = 1.0,
    tiers: Mapping[str, int] = {"low": 0, "high": 4096},
    seed: int = 1,
) -> Iterator[str]:
    """A log of a router that sends the harder half of every class up, and a share `explored` by chance."""
    draw, names = random.Random(seed), list(tiers)
    for number in range(count):
        name, hardness = draw.choice(classes), draw.random()
        tier = draw.choice(names) if draw.random() < explored else names[-1 if hardness > 0.5 else 0]
        score = float(draw.random() < right(name, tier, hardness))
        line = decision_line(
            f"r{number}",
            **{"class": name, "gain": round(hardness * 0.2, 4), "tier": tier, "thinking_tokens": tiers[tier]},
            cost=COSTS[tier] * draw.uniform(0.5, 1.5),
        )
        yield json.dumps(line)
        if draw.random() < judged:
            yield json.dumps(told(f"r{number}", score))
