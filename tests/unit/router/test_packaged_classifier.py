"""Where the packaged classifier puts queries that it was not made from, in other languages and in code."""

import tomllib
from pathlib import Path

import pytest

import support
from trimtab_classifier.features import Query
from trimtab_router.shell.classifier import OnnxClassifier

QUERIES = tomllib.loads(Path(support.__path__[0], "languages.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def packaged() -> OnnxClassifier:
    return OnnxClassifier()


def classes(packaged: OnnxClassifier, texts: list[str]) -> list[str]:
    return [found.class_name for found in packaged.score([Query(text) for text in texts])]


@pytest.mark.parametrize("language", QUERIES["prose"])
def test_other_languages_land_in_the_classes_of_english(packaged: OnnxClassifier, language: str):
    wanted = QUERIES["prose"][language]
    assert classes(packaged, list(wanted.values())) == list(wanted)


def test_code_is_code_in_more_than_ten_languages(packaged: OnnxClassifier):
    code = QUERIES["code"]
    found = dict(zip(code, classes(packaged, list(code.values())), strict=True))
    missed = {language: name for language, name in found.items() if name != "code"}
    assert len(code) - len(missed) >= 13
    # Formulas and terse code look alike; nothing of it may be taken for small talk, which the smallest model answers.
    assert set(missed.values()) <= {"math", "writing"}
