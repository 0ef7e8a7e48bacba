"""Dense features of a query: shape, script, code, math and byte entropy, all near 0..1; numpy only."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_GROUPS: Final[tuple[tuple[str, bytes], ...]] = (
    ("lower", bytes(range(97, 123))),
    ("upper", bytes(range(65, 91))),
    ("digit", bytes(range(48, 58))),
    ("space", b" \t"),
    ("newline", b"\n\r"),
    ("period", b"."),
    ("comma", b","),
    ("question", b"?"),
    ("exclamation", b"!"),
    ("colon", b":"),
    ("semicolon", b";"),
    ("quote", b"\"'`"),
    ("round", b"()"),
    ("square", b"[]"),
    ("curly", b"{}"),
    ("angle", b"<>"),
    ("equals", b"="),
    ("arithmetic", b"+-*/%"),
    ("backslash", b"\\"),
    ("dollar", b"$"),
    ("caret", b"^"),
    ("underscore", b"_"),
    ("hash", b"#@&|~"),
    ("latin", bytes(range(0xC2, 0xC5))),
    ("greek-cyrillic", bytes(range(0xCD, 0xD4))),
    ("semitic", bytes(range(0xD6, 0xDE))),
    ("indic-thai", b"\xe0\xe1"),
    ("symbols", b"\xe2"),
    ("kana", b"\xe3"),
    ("han", bytes(range(0xE4, 0xEA))),
    ("hangul", bytes(range(0xEA, 0xEE))),
    ("emoji", b"\xf0"),
)
"""Leading UTF-8 bytes tell the script; a group's feature is the square root of its share, so that rare bytes count."""

_SHAPE: Final = (
    "log-lines", "line-length", "log-words", "word-length", "entropy", "distinct-words", "options", "log-questions",
    "log-digits", "long-words", "log-chars", "log-prompt", "log-system", "log-turns", "tools", "json-schema",
)  # fmt: skip

NAMES: Final = tuple(name for name, _ in _GROUPS) + _SHAPE
WIDTH: Final = len(NAMES)
_OPTIONS: Final = (b"\na. ", b"\nb. ", b"\n(a)", b"\n(b)", b"\na)", b"\nb)", b"\nb:")


def _membership() -> Floats:
    table = np.zeros((256, len(_GROUPS)), np.float32)
    for column, (_, members) in enumerate(_GROUPS):
        table[list(members), column] = 1.0
    return table


_MEMBERSHIP: Final = _membership()


def _log(count: float, full: float) -> float:
    """0 at nothing, 1 at `full`, logarithmic."""
    return math.log1p(count) / math.log1p(full)


def _entropy(counts: NDArray[np.intp], total: int) -> float:
    """Bits per byte over 8: low for repetition, high for dense formulas; a cheap sign of difficulty."""
    share = counts[counts > 0] / total
    return float(-(share * np.log2(share)).sum()) / 8.0


def describe(lower: bytes, data: Bytes, word_lengths: NDArray[np.intp], distinct: float) -> list[float]:
    """Shares of byte groups and the shape of the text; `lower` is its lower-case form, `data` its own bytes."""
    counts = np.bincount(data, minlength=256)
    total = max(len(data), 1)
    groups = np.sqrt((counts @ _MEMBERSHIP) / total)
    lines = int(counts[10]) + 1
    words = len(word_lengths)
    return [
        *groups.tolist(),
        _log(lines, 200),
        _log(total / lines, 2_000),
        _log(words, 400),
        float(word_lengths.mean()) / 10.0 if words else 0.0,
        _entropy(counts, total),
        distinct,
        float(sum(lower.count(mark) > 0 for mark in _OPTIONS) >= 2),
        _log(int(counts[63]), 10),
        _log(int(counts[48:58].sum()), 200),
        float((word_lengths > 8).mean()) if words else 0.0,
    ]


def request_shape(text_chars: int, prompt_chars: int, system_chars: int, turns: int) -> list[float]:
    """Lengths that the cut does not show."""
    return [_log(text_chars, 20_000), _log(prompt_chars, 200_000), _log(system_chars, 20_000), _log(turns - 1, 50)]
