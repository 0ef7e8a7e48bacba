import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.prompts import PROMPTS
from trimtab_classifier.features import Query
from trimtab_classifier.labels import CLASSES
from trimtab_router.shell.classifier import PACKAGED, OnnxClassifier

CLASSIFIER = OnnxClassifier()
EASY = ("hello", "thanks!", "hi there", "good morning", "¡hola!", "你好")
HARD = (
    r"Let $ABC$ be a triangle with circumcenter $O$. Find the maximum of $\frac{[OBC]}{[ABC]}$ if $AB + AC = 2BC$.",
    r"Find the number of ordered triples $(a,b,c)$ with $a,b,c < 100$ and $a^2+b^2 \equiv c^2 \pmod{7}$.",
    r"Compute $\sum_{n=1}^{\infty} \frac{n^2}{2^n} \binom{2n}{n} x^n$ for $|x| < \frac{1}{8}$ in closed form.",
)


def test_the_metadata_belong_to_the_file():
    metadata = json.loads(PACKAGED.with_suffix(".json").read_text())
    assert metadata["sha256"] == hashlib.sha256(PACKAGED.read_bytes()).hexdigest()
    assert tuple(metadata["classes"]) == CLASSES
    assert CLASSIFIER.version == metadata["version"]


def test_the_file_is_small():
    assert PACKAGED.stat().st_size < 5_000_000


def test_only_permissive_rows_were_used():
    metadata = json.loads(PACKAGED.with_suffix(".json").read_text())
    assert {entry["licence"] for entry in metadata["data"].values()} <= {"Apache-2.0", "MIT", "written for Trimtab"}


@pytest.mark.parametrize(
    ("accepted", "prompt"), [p[1:] for p in PROMPTS], ids=[f"{p[0]}-{p[1]}-{i}" for i, p in enumerate(PROMPTS)]
)
def test_prompts_land_in_sane_classes(accepted, prompt):
    assert CLASSIFIER.score([Query(prompt)])[0].class_name in accepted.split()


def test_hard_math_gains_more_than_small_talk():
    easy = [s.gain for s in CLASSIFIER.score([Query(text) for text in EASY])]
    hard = [s.gain for s in CLASSIFIER.score([Query(text) for text in HARD])]
    assert max(easy) < min(hard)
    assert max(easy) < 0.1


def test_an_essay_is_longer_than_a_greeting():
    greeting, essay = CLASSIFIER.score([Query("hi"), Query("Write an essay about the history of the bicycle.")])
    assert greeting.output_tokens_p50 < essay.output_tokens_p50


def test_tools_make_it_agentic():
    (scores,) = CLASSIFIER.score([Query("what is the weather in Oslo?", tools=True)])
    assert (scores.class_name, scores.class_probability) == ("agentic", 1.0)


def test_noise_is_less_familiar_than_a_question():
    noise, question = CLASSIFIER.score(
        [Query("zxqv 8#kk ~~ ppfw qqq &&&^ 0x00 lorem"), Query("Who was the first emperor of Rome?")]
    )
    assert noise.out_of_domain > question.out_of_domain


def test_no_queries_no_scores():
    assert CLASSIFIER.score([]) == []


def test_a_batch_beyond_one_run_scores_like_its_rows():
    queries = [Query(f"{text} {i}") for i, (_, _, text) in enumerate(PROMPTS)]
    batch = CLASSIFIER.score(queries)
    assert len(batch) == len(queries)
    for query, scores in zip(queries, batch, strict=True):
        (alone,) = CLASSIFIER.score([query])
        assert alone.class_name == scores.class_name
        assert alone.gain == pytest.approx(scores.gain, abs=1e-4)


@settings(max_examples=60)
@given(
    st.builds(
        Query,
        text=st.text(max_size=400),
        system=st.text(max_size=50),
        turns=st.integers(-1, 200),
        tools=st.booleans(),
        json_schema=st.booleans(),
        prompt_chars=st.integers(0, 10**9),
    )
)
def test_scores_are_in_range_for_any_query(query):
    (scores,) = CLASSIFIER.score([query])
    assert scores.class_name in CLASSES
    assert 0 <= scores.class_probability <= 1 + 1e-6
    assert -1 <= scores.gain <= 1
    assert 1 <= scores.output_tokens_p50 <= scores.output_tokens_p90 <= 16_384
    assert 0 <= scores.out_of_domain <= 1 + 1e-6


STORY = json.loads((Path(__file__).resolve().parents[3] / "e2e/story/prompts.json").read_text())


@pytest.mark.parametrize("prompt", STORY["math"]["prompts"])
def test_the_storys_hard_prompts_gain(prompt):
    assert CLASSIFIER.score([Query(prompt)])[0].gain > 0.17


@pytest.mark.parametrize("prompt", STORY["plain"]["prompts"])
def test_the_storys_plain_prompts_do_not(prompt):
    assert CLASSIFIER.score([Query(prompt)])[0].gain < 0.1
