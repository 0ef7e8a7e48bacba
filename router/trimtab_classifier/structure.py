"""Dense features of a query: shape, script, code, math and byte entropy, all near 0..1; numpy only."""

import math
import re
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
    "log-lines", "line-length", "log-words", "word-length", "entropy", "distinct-words", "log-questions", "log-digits",
    "long-words", "options", "log-stem", "log-longest-option", "log-shortest-option", "option-spread",
    "numeric-options", "catch-all-option", "negated", "blank", "asks-following", "stem-asks",
    "log-chars", "log-prompt", "log-system", "log-turns", "tools", "json-schema",
)  # fmt: skip

NAMES: Final = tuple(name for name, _ in _GROUPS) + _SHAPE
WIDTH: Final = len(NAMES)
_OPTION: Final = re.compile(rb"\n *\(?[a-j](?:[.):] )")
_CATCH_ALL: Final = (b"all of", b"none of", b"both ", b"neither ")
_MAX_OPTIONS: Final = 10


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


def _choices(lower: bytes) -> list[float]:
    """The question of a multiple-choice prompt and its options; long or numeric options are a sign of difficulty."""
    stem, *options = _OPTION.split(lower, _MAX_OPTIONS)
    stem = stem.rstrip()
    lengths = [len(option) for option in options] or [0]
    return [
        float(len(options) > 1),
        _log(len(stem), 2_000),
        _log(max(lengths), 400),
        _log(min(lengths), 400),
        (max(lengths) - min(lengths)) / (1.0 + max(lengths)),
        sum(not option.strip(b" \n.,-%$").translate(None, b"0123456789.,/ ") for option in options) / _MAX_OPTIONS,
        float(any(mark in option for option in options for mark in _CATCH_ALL)),
        float(b" not " in stem or b"except" in stem),
        float(b"__" in stem),
        float(b"following" in stem),
        float(stem.endswith(b"?")),
    ]


def describe(lower: bytes, data: Bytes, word_lengths: NDArray[np.intp], distinct: float) -> list[float]:
    """Shares of byte groups and the shape of the text; `lower` is its lower-case form, `data` its own bytes."""
    counts = np.bincount(data, minlength=256)
    total = max(len(data), 1)
    groups = np.sqrt((counts @ _MEMBERSHIP) / total)
    lines = int(counts[10]) + 1
    words = max(len(word_lengths), 1)
    return [
        *groups.tolist(),
        _log(lines, 200),
        _log(total / lines, 2_000),
        _log(len(word_lengths), 400),
        int(word_lengths.sum()) / words / 10.0,
        _entropy(counts, total),
        distinct,
        _log(int(counts[63]), 10),
        _log(int(counts[48:58].sum()), 200),
        int(np.count_nonzero(word_lengths > 8)) / words,
        *_choices(lower),
    ]


def request_shape(text_chars: int, prompt_chars: int, system_chars: int, turns: int) -> list[float]:
    """Lengths that the cut does not show."""
    return [_log(text_chars, 20_000), _log(prompt_chars, 200_000), _log(system_chars, 20_000), _log(turns - 1, 50)]
