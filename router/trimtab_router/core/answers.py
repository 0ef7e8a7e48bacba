r"""Answers in a form in which equal answers are equal: what votes are counted on.

What is taken as the answer, first match: the last `\boxed{}`, a fenced block (JSON or code), a text that is JSON, what
follows "the answer is" or `####`, a closing line with one number, else the whole text. Units and the percent sign are
left out: samples of one question name the same unit or none (the practice of MATH and GSM8K graders).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, Literal

import orjson

Kind = Literal["none", "number", "choice", "json", "code", "text"]
MAX_CHARS: Final = 65536
"""Only the end of a longer text is looked at."""
MAX_WORDS: Final = 2000
_SHORT_WORDS: Final = 12
_MAX_EXPONENT: Final = 30

_FENCE: Final = re.compile(r"```([\w+#.-]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_SAID: Final = re.compile(
    r"(?:####|\b(?:final\s+)?answer\s*(?:is|are|=|:)(?:\s*:)?|\bans\s*:)\s*(?:\*\*)?\s*([^\n]+)", re.IGNORECASE
)
_CLOSING: Final = re.compile(r"\b(?:so|therefore|thus|hence|total|altogether|result)\b|=", re.IGNORECASE)
_LATEX: Final = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}"), r"\1/\2"),
    (re.compile(r"\\frac(\d)(\d)"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle|,|!|;|:|\s)|\^\{?\\circ\}?|\\(?=[$%])"), ""),
)
_NUMBER: Final = re.compile(
    r"[-+\u2212]?\s*[$\u20ac\u00a3\u00a5]?\s*"
    r"(?:\d{1,3}(?:[,\u00a0\u202f ]\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d)\.(?!\d))?(?:e[-+]?\d+)?",
    re.IGNORECASE,
)
_CHOICE: Final = re.compile(r"(?:option|choice|answer)?\s*(?:\(([A-Ja-j])\)|\[([A-Ja-j])\]|([A-J])(?![\w']))", re.ASCII)
_UNIT: Final = re.compile(r"\s*(?:%|[^\W\d_][\w\u00b0/^\u00b2\u00b3'-]*\.?(?:\s+[^\W\d_][\w/'-]*\.?){0,3})?\s*\.?")
_COMMENT: Final = re.compile(r"^\s*(?:#\s|//|--\s).*$")
_WORD: Final = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Answer:
    """One sample's answer; answers with equal `key` are the same answer."""

    kind: Kind
    key: str
    """Empty for kind none."""


NO_ANSWER: Final = Answer("none", "")


def normalise(text: str) -> Answer:
    """The answer of one sample; NO_ANSWER where it says nothing."""
    text = text[-MAX_CHARS:].rsplit("</think>", 1)[-1].strip()
    if not text:
        return NO_ANSWER
    boxed = _last_boxed(text)
    if boxed is not None:
        return _value(boxed)
    fenced = _FENCE.findall(text)
    if fenced:
        return _block(*fenced[-1])
    if text[0] in "{[" and (found := _json(text)) is not None:
        return found
    said = _SAID.findall(text)
    if said:
        return _value(said[-1])
    return _closing(text) or _value(text)


def medoid(texts: Sequence[str]) -> int:
    """Index of the text that is most like all others: mean Dice coefficient of words and word pairs; first of equals.

    The usual choice among free texts, where no vote can be counted (minimum Bayes risk decoding). Raises ValueError on
    an empty sequence.
    """
    if not texts:
        raise ValueError("texts: empty; give one or more")
    bags = [_bag(t) for t in texts]
    sizes = [sum(b.values()) for b in bags]
    scores = [
        sum(_dice(one, other, sizes[i] + sizes[j]) for j, other in enumerate(bags) if i != j)
        for i, one in enumerate(bags)
    ]
    return max(range(len(texts)), key=lambda i: (scores[i], -i))


def _bag(text: str) -> Counter[str]:
    words = _WORD.findall(text.casefold())[:MAX_WORDS]
    return Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def _dice(one: Counter[str], other: Counter[str], sizes: int) -> float:
    return 2 * sum((one & other).values()) / sizes if sizes else 1.0


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for i in range(begin, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[begin:i]
    return None


def _block(language: str, body: str) -> Answer:
    if language.lower() in ("", "json") and (found := _json(body)) is not None:
        return found
    lines = (line.rstrip() for line in body.splitlines())
    code = "\n".join(line for line in lines if line and not _COMMENT.match(line))
    return Answer("code", code) if code else NO_ANSWER


def _json(text: str) -> Answer | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return Answer("json", orjson.dumps(_whole(value), option=orjson.OPT_SORT_KEYS).decode())


def _whole(value: Any) -> Any:
    """1.0 is 1."""
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _closing(text: str) -> Answer | None:
    """The one number of a last line that draws a conclusion, where there is more than that line."""
    line = text.rsplit("\n", 1)[-1]
    if line == text and len(text.split()) <= _SHORT_WORDS:
        return None
    last = re.split(r"(?<=[.!?])\s+", line.strip())[-1]
    if not _CLOSING.search(last):
        return None
    after = last.rsplit("=", 1)[-1]
    numbers = {n for m in _NUMBER.finditer(after) if (n := _fraction(m.group())) is not None}
    return Answer("number", str(numbers.pop())) if len(numbers) == 1 else None


def _value(text: str) -> Answer:
    """A short answer: a number with or without unit, a choice, else words."""
    text = _plain(text)
    if not text:
        return NO_ANSWER
    number = _number(text)
    if number is not None:
        return Answer("number", str(number))
    choice = _CHOICE.match(text)
    if choice and (choice.end() == len(text) or text[choice.end()] in ".):,;" or choice.group(1) or choice.group(2)):
        return Answer("choice", next(g for g in choice.groups() if g).upper())
    return Answer("text", " ".join(text.casefold().split()))


def _plain(text: str) -> str:
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = text.strip().strip("$*`\"' \t").rstrip(".").strip().strip("$*`\"' ")
    return re.sub(r"^[a-zA-Z]\s*=\s*", "", text)


def _number(text: str) -> Fraction | None:
    match = _NUMBER.match(text)
    if match is None or (value := _fraction(match.group())) is None:
        return None
    rest = text[match.end() :]
    over = re.match(r"\s*/\s*(\d{1,12})(?![\d/])", rest)
    if over is not None and int(over.group(1)):
        value, rest = value / int(over.group(1)), rest[over.end() :]
    return value if _UNIT.fullmatch(rest) else None


def _fraction(text: str) -> Fraction | None:
    digits = re.sub(r"[^\d.eE+-]", "", text.replace("\u2212", "-")).rstrip(".")
    if not any(c.isdigit() for c in digits):
        return None
    exponent = re.search(r"e([-+]?\d+)$", digits, re.IGNORECASE)
    if exponent is not None and (len(exponent.group(1)) > 4 or abs(int(exponent.group(1))) > _MAX_EXPONENT):
        return None
    try:
        return Fraction(digits)
    except ValueError:
        return None
