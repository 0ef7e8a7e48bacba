import random
import re
from collections import Counter

import pytest

from trimtab_classifier import synthetic
from trimtab_classifier.examples import Example, bucket, part, quantiles
from trimtab_classifier.features import Query
from trimtab_classifier.labels import CLASSES

SAMPLE = synthetic.generate(per_class=150)


def test_the_seed_decides():
    assert synthetic.generate(per_class=20) == synthetic.generate(per_class=20)
    assert synthetic.generate(per_class=20) != synthetic.generate(seed=1, per_class=20)


def test_every_class_but_agentic_is_there():
    counts = Counter(example.label for example in SAMPLE)
    assert set(counts) == set(CLASSES) - {"agentic"}
    assert min(counts.values()) == 150


def test_no_known_slot_is_left():
    slots = set(synthetic.templates()["slots"]) | {"code", "lang", "other", "tag"}
    left = {name for example in SAMPLE for name in re.findall(r"\{(\w+)\}", example.query.text)} & slots
    # A snippet may keep `{n}` and the like as part of a language's own syntax.
    assert not left - {"a", "f", "n", "m"}


@pytest.mark.parametrize("language", ["en", "es", "de", "zh", "ja"])
@pytest.mark.parametrize("label", sorted(synthetic.PRIORS))
def test_every_class_has_templates_in_the_main_languages(label, language):
    assert len(synthetic.templates()[label][language]) >= 3


def test_there_is_code_in_at_least_ten_languages():
    assert len(synthetic.templates()["snippets"]) >= 10


def test_no_hand_written_prompt_of_the_tests_is_a_template():
    from support.prompts import PROMPTS

    tables = synthetic.templates()
    written = {text for name in tables for group in tables[name].values() for text in group}
    assert not written & {text for _, _, text in PROMPTS}


def test_slots_inside_slots_are_filled():
    assert "{" not in synthetic.fill("{passage}", random.Random(3))


def test_an_unknown_slot_stays():
    assert synthetic.fill("{no-such-slot}", random.Random(3)) == "{no-such-slot}"


def test_copies_of_a_text_share_a_part():
    assert bucket("What is  2+2?\n", 10) == bucket("what is 2+2?", 10)
    assert {bucket(str(i), 4) for i in range(100)} == {0, 1, 2, 3}


def test_prompts_of_a_template_share_a_part():
    first, second = (Example(Query(text), "synthetic", group="template") for text in ("one", "two"))
    assert part(first, 1_000) == part(second, 1_000)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), ()), ((5.0,), (5.0, 5.0)), ((3.0, 1.0, 2.0, 4.0), (3.0, 4.0))],
    ids=["none", "one", "four"],
)
def test_quantiles_are_nearest_ranks(values, expected):
    assert quantiles(values, (0.5, 0.9)) == expected
