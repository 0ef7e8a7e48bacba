"""Token ids of the simulated model: a token is up to four characters, and its id says which.

So ids can be turned into the same text again without a table: seven bits a character where all are ASCII, else fifteen.
The marks around reasoning are one token each where they stand alone, as in real vocabularies.
"""

from collections.abc import Iterable, Iterator

from trimtab_cli.engine_sim.answers import CHARACTERS_PER_TOKEN, THINK_END, THINK_START

_WIDE = 1 << 60
_MARKS = {THINK_START: 1 << 30, THINK_END: (1 << 30) + 1}
_TEXTS = {number: mark for mark, number in _MARKS.items()}


def ids_of(text: str) -> list[int]:
    """The tokens of a text, as many as `count_tokens` counts, of a mark alone one."""
    if text in _MARKS:
        return [_MARKS[text]]
    return [_packed(text[at : at + CHARACTERS_PER_TOKEN]) for at in range(0, len(text), CHARACTERS_PER_TOKEN)]


def id_of(token: str) -> int:
    """One token; 0 where nothing is left of its text."""
    return _MARKS.get(token) or _packed(token)


def text_of(ids: Iterable[int]) -> str:
    """The text of tokens."""
    return "".join(map(_text, ids))


def _packed(piece: str) -> int:
    bits, wide = (7, 0) if piece.isascii() else (15, _WIDE)
    return wide | sum(_code(character, bits) << bits * place for place, character in enumerate(piece))


def _code(character: str, bits: int) -> int:
    """What does not fit is a question mark: ids are for prompts that go on, not for archives."""
    code = ord(character)
    return code if code < 1 << bits else ord("?")


def _text(number: int) -> str:
    if number in _TEXTS:
        return _TEXTS[number]
    bits, left = (15, number ^ _WIDE) if number & _WIDE else (7, number)
    return "".join(_characters(left, bits))


def _characters(left: int, bits: int) -> Iterator[str]:
    for _ in range(CHARACTERS_PER_TOKEN):
        if left <= 0:
            return
        yield chr(left & ((1 << bits) - 1))
        left >>= bits
