import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_classifier import features, structure
from trimtab_classifier.features import Query, cut, encode

# Every cut character may end a word, a pair and three n-grams of up to four bytes each, plus the repeated ends.
WIDTH_LIMIT = 5 * 4 * 2_310


def dense(query: Query) -> dict[str, float]:
    return dict(zip(structure.NAMES, encode([query])["dense"][0].tolist(), strict=True))


def buckets(text: str) -> dict[int, float]:
    row = encode([Query(text)])
    return dict(zip(row["ids"][0].tolist(), row["counts"][0].tolist(), strict=True))


def test_inputs_are_batch_first_and_typed():
    row = encode([Query("one"), Query("one two three")])
    assert row["ids"].dtype == np.int32
    assert row["counts"].dtype == np.float32
    assert row["dense"].dtype == np.float32
    assert row["ids"].shape == row["counts"].shape
    assert row["dense"].shape == (2, structure.WIDTH)


def test_no_queries_give_an_empty_batch():
    row = encode([])
    assert row["ids"].shape == (0, 1)
    assert row["dense"].shape == (0, structure.WIDTH)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "\ud800", "\x00", "🙂", "你", "a" * 50_000, "🙂" * 50_000, "\n" * 50_000],
    ids=["empty", "space", "letter", "surrogate", "nul", "emoji", "han", "long", "long-emoji", "long-newlines"],
)
def test_odd_text_is_encoded_within_the_bound(text):
    row = encode([Query(text)])
    assert row["ids"].shape[1] <= WIDTH_LIMIT
    assert np.isfinite(row["dense"]).all()
    assert (row["ids"] >= 0).all()
    assert (row["ids"] < features.BUCKETS).all()


def test_short_text_is_not_cut():
    assert cut("x" * 2_000) == "x" * 2_000


def test_long_text_keeps_head_middle_and_tail():
    text = "H" * 10_000 + "M" * 1_000 + "T" * 10_000
    sample = cut(text)
    assert len(sample) == 2_002
    assert sample.startswith("H" * 1_100 + "\n")
    assert "M" * 300 in sample
    assert sample.endswith("\n" + "T" * 600)


def test_text_beyond_the_cut_changes_only_the_lengths():
    short, long = (encode([Query("a b c " * 400 + "x" * n + " end of it" * 100)]) for n in (20_000, 20_001))
    changed = [n for n, a, b in zip(structure.NAMES, short["dense"][0], long["dense"][0], strict=True) if a != b]
    assert set(changed) <= {"log-chars", "log-prompt"}


def test_case_does_not_change_the_tokens():
    assert buckets("Solve THIS Equation") == buckets("solve this equation")


def test_a_token_has_the_same_bucket_wherever_it_stands():
    inner = set(buckets("zebra"))
    assert (
        len(inner & set(buckets("the quick brown fox and a zebra in the middle of many other words"))) >= len(inner) - 6
    )


def test_repetition_is_counted():
    assert max(buckets("spam spam spam spam").values()) > max(buckets("spam").values())


def test_padding_is_zero():
    row = encode([Query("a"), Query("a much longer text than the other")])
    used = int((row["counts"][0] > 0).sum())
    assert used < row["counts"].shape[1]
    assert not row["counts"][0, used:].any()
    assert not row["ids"][0, used:].any()


@settings(max_examples=40)
@given(st.lists(st.text(max_size=300), min_size=1, max_size=5))
def test_a_batch_is_its_rows(texts):
    batch = encode([Query(text) for text in texts])
    for position, text in enumerate(texts):
        alone = encode([Query(text)])
        width = alone["ids"].shape[1]
        assert (batch["ids"][position, :width] == alone["ids"][0]).all()
        assert (batch["counts"][position, :width] == alone["counts"][0]).all()
        assert not batch["counts"][position, width:].any()
        assert (batch["dense"][position] == alone["dense"][0]).all()


@settings(max_examples=60)
@given(st.text(max_size=500))
def test_hashed_ngrams_are_those_of_a_plain_loop(text):
    raw = f" {text} ".encode("utf-8", "replace").lower()
    data = np.frombuffer(raw, np.uint8)
    n = 3
    hashes = [
        sum((byte + 1) * pow(0x100000001B3, i, 1 << 64) for i, byte in enumerate(raw[s : s + n]))
        for s in range(len(raw) - n + 1)
    ]
    multiplier = pow(0x9E3779B97F4A7C15, n, 1 << 64)
    plain = {((h * multiplier) % (1 << 64)) >> (64 - features.HASH_BITS) for h in hashes}
    assert plain <= set(encode([Query(text)])["ids"][0].tolist()) or len(data) < n


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        (Query("x", tools=True), "tools", 1.0),
        (Query("x"), "tools", 0.0),
        (Query("x", json_schema=True), "json-schema", 1.0),
        (Query("x", turns=1), "log-turns", 0.0),
        (Query("x", turns=0), "log-turns", 0.0),
        (Query("Pick one.\nA. yes\nB. no"), "options", 1.0),
        (Query("Pick one."), "options", 0.0),
        (Query("Pick one.\n(A) yes\n(B) no"), "options", 1.0),
        (Query("How many?\nA. 12\nB. 1,300\nC. no"), "numeric-options", 0.2),
        (Query("Which is it?\nA. x\nB. all of the above"), "catch-all-option", 1.0),
        (Query("Which is not true?\nA. x\nB. y"), "negated", 1.0),
        (Query("Which is it?\nA. x\nB. y"), "stem-asks", 1.0),
        (Query("The sky is __.\nA. x\nB. y"), "blank", 1.0),
        (Query(""), "distinct-words", 1.0),
    ],
    ids=[
        "tools",
        "no-tools",
        "schema",
        "one-turn",
        "no-turn",
        "options",
        "no-options",
        "round-options",
        "numbers",
        "catch-all",
        "negated",
        "asks",
        "blank",
        "no-words",
    ],
)
def test_structure_says(query, name, value):
    assert dense(query)[name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (Query("hello there friend"), Query("f(x) = { y * (z + 3) }"), "curly"),
        (Query("hello there friend"), Query(r"\frac{1}{2} + \sqrt{3}"), "backslash"),
        (Query("hello there friend"), Query("你好，世界"), "han"),
        (Query("hello there friend"), Query("こんにちは"), "kana"),
        (Query("hello there friend"), Query("привет"), "greek-cyrillic"),
        (Query("hello there friend"), Query("안녕하세요"), "hangul"),
        (Query("aaaa aaaa aaaa aaaa"), Query("k3#Zq!9 vB$x 7pL@ w"), "entropy"),
        (Query("spam spam spam"), Query("three different words"), "distinct-words"),
        (Query("x", turns=2), Query("x", turns=9), "log-turns"),
        (Query("x", prompt_chars=10), Query("x", prompt_chars=90_000), "log-prompt"),
        (Query("x"), Query("x", system="You are terse."), "log-system"),
    ],
    ids=["code", "latex", "han", "kana", "cyrillic", "hangul", "entropy", "variety", "turns", "prompt", "system"],
)
def test_structure_grows(low, high, name):
    assert dense(low)[name] < dense(high)[name]
