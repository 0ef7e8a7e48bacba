"""One training example, and how text decides to which part of a split it belongs."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_classifier.features import Query

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Example:
    """A query with what is known about it; each head learns from the examples that know its target."""

    query: Query
    source: str
    """Where the row is from, `synthetic` included."""
    label: str | None = None
    """One of `labels.CLASSES`."""
    gain: float | None = None
    """Accuracy of the strong models minus accuracy of the weak ones, -1..1."""
    tokens: tuple[float, ...] = ()
    """Observed answer lengths, tokens."""
    weight: float = 1.0
    group: str = ""
    """What must stay together in a split, the template of a synthetic prompt; the text itself when empty."""


def part(example: Example, parts: int, salt: str = "") -> int:
    """Which of `parts` an example belongs to, the same for all that share its group."""
    return bucket(example.group or example.query.text, parts, salt)


def bucket(text: str, buckets: int, salt: str = "") -> int:
    """Which of `buckets` parts a text falls into: the same for every copy of it, wherever it comes from."""
    normal = _SPACE.sub(" ", text).strip().lower()
    digest = hashlib.blake2b(f"{salt}\x00{normal}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


def quantiles(values: Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
    """Values at the given shares, nearest rank; nothing for nothing."""
    ordered = sorted(values)
    return tuple(ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares) if ordered else ()
