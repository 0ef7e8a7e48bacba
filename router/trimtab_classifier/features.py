"""The bounded features of a query; numpy only, the same code trains the model and runs on the request path.

Text is cut before it is encoded, so the cost has a bound that the length of the prompt cannot move. Words and n-grams
are hashed with one polynomial prefix hash (Karp and Rabin, 1987): an n-gram's hash is a difference of two prefix sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier import structure

Bytes = NDArray[np.uint8]
Buckets = NDArray[np.uint16]
Hashes = NDArray[np.uint64]

HASH_BITS: Final = 16
BUCKETS: Final = 1 << HASH_BITS
HEAD_CHARS: Final = 1_100
MIDDLE_CHARS: Final = 300
TAIL_CHARS: Final = 600
SYSTEM_CHARS: Final = 300
BYTE_NGRAMS: Final = (3, 5)
LEAD_WORDS: Final = 8
TRAIL_WORDS: Final = 6
EMPHASIS: Final = 8

_MAX_BYTES: Final = 4 * (HEAD_CHARS + MIDDLE_CHARS + TAIL_CHARS + SYSTEM_CHARS) + 64
_CUT_CHARS: Final = HEAD_CHARS + MIDDLE_CHARS + TAIL_CHARS


@dataclass(frozen=True, slots=True)
class Query:
    """What the router knows of a request body."""

    text: str
    """The last user turn."""
    system: str = ""
    """The system prompt; its first 300 characters are read."""
    turns: int = 1
    """Messages in the conversation."""
    tools: bool = False
    """The request offers tools."""
    json_schema: bool = False
    """The request asks for structured output."""
    prompt_chars: int = 0
    """Characters of the whole conversation; 0 when unknown."""


def cut(text: str) -> str:
    """Head, middle and tail of `text`, at most 2,002 characters."""
    if len(text) <= _CUT_CHARS:
        return text
    middle = (len(text) - MIDDLE_CHARS) // 2
    return f"{text[:HEAD_CHARS]}\n{text[middle : middle + MIDDLE_CHARS]}\n{text[-TAIL_CHARS:]}"


def _powers(base: int, count: int) -> Hashes:
    out = np.empty(count, np.uint64)
    value = 1
    for i in range(count):
        out[i] = value
        value = value * base % (1 << 64)
    return out


_PRIME: Final = 0x100000001B3
_POWERS: Final = _powers(_PRIME, _MAX_BYTES)
_INVERSES: Final = _powers(pow(_PRIME, -1, 1 << 64), _MAX_BYTES + 1)
# Odd multipliers, one a kind of token, so that a word and a trigram of the same bytes fall into different buckets.
_MIX: Final = _powers(0x9E3779B97F4A7C15, 12)
# Undoing the position and mixing the kind in is one multiplication.
_NGRAM_INVERSES: Final = {n: _INVERSES * _MIX[n] for n in BYTE_NGRAMS}
_SHIFT: Final = np.uint64(64 - HASH_BITS)


def _is_word() -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[[*range(48, 58), *range(65, 91), *range(97, 123), *range(128, 256), ord("_")]] = True
    return table


_WORD: Final = _is_word()


def _prefix(data: Bytes) -> Hashes:
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * _POWERS[: len(data)], out=sums[1:])
    return sums


def _bucket(hashes: Hashes, kind: int) -> Buckets:
    return np.asarray((hashes * _MIX[kind]) >> _SHIFT, np.uint16)


def words(data: Bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Start and end of every run of letters, digits and non-ASCII bytes; `data` begins and ends with another byte."""
    inside = _WORD[data]
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    return edges[0::2], edges[1::2]


def _tokens(data: Bytes, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> tuple[Buckets, Buckets]:
    """Buckets of the words, and of the word pairs and byte n-grams, of lower-case `data`; repeated as they occur."""
    sums = _prefix(data)
    word = (sums[ends] - sums[starts]) * _INVERSES[starts]
    pairs = word[:-1] * _MIX[11] + word[1:]
    # What is asked stands first or last; repeated, so that a long passage between does not drown it.
    ends_of_text = (_bucket(word[:LEAD_WORDS], 6), _bucket(pairs[:LEAD_WORDS], 7), _bucket(word[-TRAIL_WORDS:], 8))
    found = [_bucket(pairs, 2), np.repeat(np.concatenate(ends_of_text), EMPHASIS)]
    for n in BYTE_NGRAMS:
        if len(data) >= n:
            grams = (sums[n:] - sums[:-n]) * _NGRAM_INVERSES[n][: len(data) - n + 1]
            found.append((grams >> _SHIFT).astype(np.uint16))
    return _bucket(word, 1), np.concatenate(found)


def _counted(buckets: Buckets) -> tuple[Buckets, NDArray[np.intp]]:
    """Distinct buckets in order, and how often each occurs."""
    ordered = np.sort(buckets)
    last = np.empty(len(ordered), np.bool_)
    last[-1:] = True
    np.not_equal(ordered[1:], ordered[:-1], out=last[:-1])
    ends = np.flatnonzero(last)
    counts = ends.copy()
    counts[1:] -= ends[:-1]
    counts[:1] += 1
    return ordered[ends], counts


def _encode_one(query: Query) -> tuple[Buckets, NDArray[np.intp], list[float]]:
    sample = f" {query.system[:SYSTEM_CHARS]} {cut(query.text)} " if query.system else f" {cut(query.text)} "
    raw = sample.encode("utf-8", "replace")
    lower = raw.lower()
    data = np.frombuffer(lower, np.uint8)
    starts, ends = words(data)
    word, rest = _tokens(data, starts, ends)
    buckets, counts = _counted(np.concatenate((word, rest)))
    distinct = len(_counted(word)[0]) / len(word) if len(word) else 1.0
    dense = structure.describe(lower, np.frombuffer(raw, np.uint8), ends - starts, distinct)
    dense += structure.request_shape(
        len(query.text), max(query.prompt_chars, len(query.text)), len(query.system), max(query.turns, 1)
    )
    dense += [float(query.tools), float(query.json_schema)]
    return buckets, counts, dense


def encode(queries: Sequence[Query]) -> dict[str, NDArray[Any]]:
    """The inputs of the ONNX model, batch first.

    `ids` int32 and `counts` float32 are [batch, longest], padded with zeros; `dense` is float32 [batch, WIDTH].
    A lone surrogate becomes "?"; the cost is bounded by the cut, not by the prompt.
    """
    encoded = [_encode_one(query) for query in queries]
    longest = max((len(buckets) for buckets, _, _ in encoded), default=0) or 1
    ids = np.zeros((len(encoded), longest), np.int32)
    counts = np.zeros((len(encoded), longest), np.float32)
    for row, (buckets, count, _) in enumerate(encoded):
        ids[row, : len(buckets)] = buckets
        counts[row, : len(buckets)] = count
    dense = np.array([dense for _, _, dense in encoded], np.float32).reshape(len(encoded), structure.WIDTH)
    return {"ids": ids, "counts": counts, "dense": dense}
