"""Token ids of the simulated model: as many as are counted, and back to the same text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_cli.engine_sim.answers import THINK_END, THINK_START, WORDS, count_tokens
from trimtab_cli.engine_sim.vocabulary import id_of, ids_of, text_of

KNOWN = st.text(st.characters(min_codepoint=1, max_codepoint=0x7FFF))


@given(KNOWN)
def test_a_text_comes_back_from_its_tokens(text: str):
    assert text_of(ids_of(text)) == text


@given(st.text())
def test_a_text_has_as_many_tokens_as_are_counted(text: str):
    ids = ids_of(text)
    assert len(ids) == (1 if text in (THINK_START, THINK_END) else count_tokens(text))
    assert all(0 <= number < 1 << 63 for number in ids)


@pytest.mark.parametrize("token", [THINK_START, THINK_END, *(word + " " for word in WORDS[:20]), ""])
def test_a_token_is_one_id(token: str):
    assert text_of([id_of(token)]) == token
    assert ids_of(token) == ([id_of(token)] if token else [])


def test_what_has_no_id_is_a_question_mark():
    assert text_of(ids_of("a\U0001f600b")) == "a?b"


@given(st.lists(st.integers(-(1 << 70), 1 << 70)))
def test_any_numbers_have_a_text(ids: list[int]):
    assert len(text_of(ids).encode()) <= 12 * len(ids)
