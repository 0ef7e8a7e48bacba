import pytest

from support import labelled
from trimtab_classifier import sources
from trimtab_classifier.labels import CLASSES

PERMISSIVE = {"Apache-2.0", "MIT"}


def read(name: str, row: dict) -> list:
    source = next(source for source in sources.SOURCES if source.name == name)
    return list(source.read(row, source.name))


def test_every_source_states_a_permissive_licence_and_an_upstream():
    assert {source.licence for source in sources.SOURCES} <= PERMISSIVE
    assert all(source.upstream.count("/") == 1 for source in sources.SOURCES)


@pytest.mark.parametrize("folder", ["bbh", "alpaca_eval", "routerdc", "routerbench", "mot_cascade", "livecodebench"])
def test_sources_without_a_licence_or_with_a_canary_are_not_read(folder):
    assert not [file for source in sources.SOURCES for file in source.files if file.startswith(folder)]


def test_a_folder_is_read_in_a_fixed_order(tmp_path):
    folder = labelled.write(tmp_path)
    found = sources.load(folder)
    assert [e.query.text for e in found] == [e.query.text for e in sources.load(folder)]
    assert {e.source for e in found} == {"routellm-mmlu", "routellm-gsm8k", "llmrouter"}
    assert {e.label for e in found} <= set(CLASSES)


def test_an_empty_folder_names_what_should_be_there(tmp_path):
    with pytest.raises(ValueError, match=r"none of the known files is there; it should hold some of routellm/mmlu"):
        sources.load(tmp_path)


@pytest.mark.parametrize(
    ("weak", "strong", "gain"),
    [("True", "True", 0.0), ("False", "True", 1.0), ("True", "False", -1.0), ("False", "False", 0.0)],
    ids=["both", "strong-only", "weak-only", "none"],
)
def test_gain_is_strong_minus_weak(weak, strong, gain):
    row = {"domain": "anatomy", "prompt": "Q\nAnswer:", "mixtral_correct": weak, "gpt4_correct": strong}
    (example,) = read("routellm-mmlu", row)
    assert example.gain == gain
    assert example.query.text == "Q"


@pytest.mark.parametrize(
    ("domain", "label"),
    [
        ("college_mathematics", "math"),
        ("formal_logic", "reasoning"),
        ("moral_scenarios", "commonsense"),
        ("virology", "knowledge"),
    ],
)
def test_mmlu_domains(domain, label):
    assert sources.mmlu_label(domain) == label


@pytest.mark.parametrize(
    ("dataset", "label"),
    [
        ("AIME", "math"),
        ("MMLUPro_math", "math"),
        ("LiveCodeBench", "code"),
        ("WMT19-zh-en", "extraction"),
        ("SuperGLUE-Wsc", "commonsense"),
        ("MMLU_formal_logic", "reasoning"),
        ("OpenTDB_Science: Mathematics", "knowledge"),
    ],
)
def test_router_arena_data_sets(dataset, label):
    assert sources.arena_label(dataset) == label


def test_response_lengths_become_tokens():
    (example,) = read("routellm-gsm8k", labelled.gsm8k(1)[0])
    assert example.tokens == (20.0, 40.0)
    assert example.label == "math"


def test_mt_bench_turns_are_two_examples():
    first, second = read("mt-bench", {"category": "coding", "turns": ["write it", "now faster"]})
    assert (first.label, first.query.turns, second.query.turns) == ("code", 1, 3)


def test_router_arena_prompts_are_read_with_and_without_their_frame():
    question = "Please read.\n\nContext: Ann ran.\n\nQuestion: Who ran?\n\nProvide the answer."
    row = {"dataset": "SuperGLUE-RC", "question": question, "claude3haiku_out_tok": 7, "gemini2flash_out_tok": 0}
    framed, bare = read("routerarena", row)
    assert framed.tokens == (7.0,)
    assert bare.query.text == "Ann ran.\n\nWho ran?"


def test_the_ladder_compares_large_and_small_models_and_summarises_lengths():
    row = {"question": "q", "Qwen2-7B-Instruct|ok": "0", "gemma-2-9b-it|ok": "1", "Qwen2-72B-Instruct|ok": "1"}
    row |= {f"model{i}|chars": str(40 * i) for i in range(1, 11)}
    (example,) = read("zeroeval-math", row)
    assert example.gain == pytest.approx(0.5)
    assert example.tokens == (20.0, 40.0, 60.0, 80.0, 100.0)


@pytest.mark.parametrize(
    ("row", "text", "tokens"),
    [
        ({"problem": "p", "solution": "s" * 100, "answer": "4"}, "p", (25.0,)),
        ({"question": "q", "answer": "a" * 80}, "q", (20.0,)),
        ({"problem": "p", "answer": 27.0}, "p", ()),
    ],
    ids=["solution", "worked-answer", "bare-number"],
)
def test_math_problems(row, text, tokens):
    (example,) = read("math-mit", row)
    assert (example.query.text, example.tokens, example.label) == (text, tokens, "math")
