"""Equal answers are equal however they are written, and different ones stay different."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_router.core.answers import MAX_CHARS, NO_ANSWER, Answer, medoid, normalise

NUMBERS = {
    "42": "42",
    "The answer is 42.": "42",
    "the final answer: $1,234.50": "2469/2",
    "1 234 567 km": "1234567",
    "18 eggs": "18",
    "Answer: 50%": "50",
    "-3.": "-3",
    "\u22127": "-7",
    ".5": "1/2",
    "1e3": "1000",
    "#### 72": "72",
    "3 / 4": "3/4",
    r"\boxed{\frac{3}{4}}": "3/4",
    r"We get $\boxed{\dfrac{6}{8}}$.": "3/4",
    r"\boxed{\frac12}": "1/2",
    r"\boxed{x = 5}": "5",
    r"\boxed{90^\circ}": "90",
    r"\boxed{12\text{ cm}}": "12",
    r"first \boxed{1}, no: \boxed{2}": "2",
    "<think>The answer is 9.</think>The answer is 10.": "10",
    "Bob has 2 and gets 3.\nSo he has 2 + 3 = 5 apples.": "5",
    "Two and three.\nTherefore 5 apples.": "5",
}


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers(text):
    assert normalise(text) == Answer("number", NUMBERS[text])


@pytest.mark.parametrize(
    "text", ["B", "(B)", "B.", "**B**", "The answer is (b).", "(B) because", r"\boxed{\text{(B)}}"]
)
def test_choices(text):
    assert normalise(text) == Answer("choice", "B")


@pytest.mark.parametrize(
    "text", ['{"b": 1.0, "a": [2]}', '```json\n{"a":[2.0],\n "b":1}\n```', 'See:\n```\n{"a": [2], "b": 1}\n```\ndone']
)
def test_json_is_canonical(text):
    assert normalise(text) == Answer("json", '{"a":[2],"b":1}')


def test_code_without_comments_and_empty_lines():
    one = "```python\n# adds\ndef f(a):\n    return a + 1   \n\n```"
    other = "Here:\n```py\ndef f(a):\n    return a + 1\n```\nIt adds one."
    assert normalise(one) == normalise(other) == Answer("code", "def f(a):\n    return a + 1")


def test_indented_code_differs():
    assert normalise("```\nif a:\n    b()\nc()\n```") != normalise("```\nif a:\n    b()\n    c()\n```")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Paris", "paris"),
        ("The answer is  Paris.", "paris"),
        ("05/23/1943", "05/23/1943"),
        ("12 and 13", "12 and 13"),
        ("1e999999", "1e999999"),
        ("I think so", "i think so"),
        ("A cat", "a cat"),
    ],
)
def test_words_stay_words(text, key):
    assert normalise(text) == Answer("text", key)


@pytest.mark.parametrize("text", ["", "  ", "<think>hm</think>", r"\boxed{}", "```\n\n```"])
def test_nothing_is_no_answer(text):
    assert normalise(text) == NO_ANSWER


def test_only_the_end_of_a_long_text_is_read():
    assert normalise(r"\boxed{1}" + "x" * MAX_CHARS).kind == "text"


@given(st.text(max_size=200))
def test_any_text_has_an_answer_and_only_no_answer_has_no_key(text):
    answer = normalise(text)
    assert (answer.key == "") == (answer.kind == "none")


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "The answer is {}.", r"\boxed{{{}}}", "{} km"]))
def test_a_number_is_itself_in_every_form(number, form):
    assert normalise(form.format(number)) == Answer("number", str(number))


def test_medoid_is_the_text_in_the_middle():
    texts = ["the cat sat on the mat", "a dog barked", "the cat sat on a mat", "the cat is on the mat"]
    assert medoid(texts) == 0
    assert medoid(["same", "same"]) == 0
    assert medoid(["one"]) == 0
    with pytest.raises(ValueError, match="texts: empty"):
        medoid([])


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_the_medoid_is_one_of_the_texts_and_what_all_say_wins(texts):
    assert 0 <= medoid(texts) < len(texts)
    many = [*texts, *(["what most samples say"] * (len(texts) + 1))]
    assert many[medoid(many)] == "what most samples say"
