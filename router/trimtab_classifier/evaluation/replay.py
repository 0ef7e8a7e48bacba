"""Sampled answers replayed: what the router's own voting (`trimtab_router.core.voting`) would have made of them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from trimtab_router.core.answers import normalise
from trimtab_router.core.voting import Voting, lead_probability

Pattern = tuple[str, ...]
"""Which answers of a sequence are the same: each distinct one has a number as its key, a missing one has none."""

ORDERS: Final = 20
MISSING: Final = ""


def key(answer: Any) -> str:
    """The key on which votes are counted; empty for no answer."""
    return MISSING if answer is None else normalise(str(answer)).key


def pattern(answers: Iterable[str]) -> Pattern:
    """Keys renamed to numbers in the order in which they first come: equal patterns are voted on once."""
    known: dict[str, str] = {}
    return tuple(known.setdefault(answer, str(len(known))) if answer else MISSING for answer in answers)


@lru_cache(maxsize=1_000_000)
def vote(seen: Pattern, voting: Voting) -> tuple[int, str]:
    """How many answers are drawn one at a time until the voting ends, and the winning key; as `Voting.replay`."""
    drawn = 0
    while drawn < len(seen) and voting.ending(seen[:drawn]) == "Running":
        drawn += 1
    return drawn, voting.verdict(seen[:drawn]).key


@lru_cache(maxsize=1_000_000)
def accept(seen: Pattern, threshold: float) -> tuple[int, str]:
    """How many answers are drawn, and the key that is accepted; none when the query is to be escalated.

    Accepts the leader when P(it beats the second) reaches the threshold; escalates as soon as not even agreement of all
    answers still to come would be enough.
    """
    for drawn in range(1, len(seen) + 1):
        votes = sorted(((seen[:drawn].count(k), k) for k in set(seen[:drawn]) if k), reverse=True)
        first, second = ([count for count, _ in votes] + [0, 0])[:2]
        if first and lead_probability(first, second) >= threshold:
            return drawn, votes[0][1]
        if lead_probability(first + len(seen) - drawn, second) < threshold:
            return drawn, MISSING
    return len(seen), MISSING
