"""The labelled sources the packaged model may learn from, each with its licence, read from a data folder.

Only rows whose repository states a permissive licence are here; BIG-Bench Hard is left out because of its canary.
"""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab_classifier.examples import Example, quantiles
from trimtab_classifier.features import Query

CHARS_PER_TOKEN: Final = 4.0
_SHARES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
Row = dict[str, Any]

_MATH_DOMAINS: Final = frozenset(
    {
        "abstract_algebra",
        "college_mathematics",
        "elementary_mathematics",
        "high_school_mathematics",
        "high_school_statistics",
    }
)
_OTHER_DOMAINS: Final = {"formal_logic": "reasoning", "moral_scenarios": "commonsense"}

_LLMROUTER_CLASSES: Final = {
    "agentverse-logicgrid": "reasoning",
    "agentverse-mgsm": "math",
    "arc_challenge": "knowledge",
    "commongen": "writing",
    "commonsense_qa": "commonsense",
    "gpqa": "knowledge",
    "gsm8k": "math",
    "human_eval": "code",
    "math": "math",
    "mbpp": "code",
    "mmlu": "knowledge",
    "natural_qa": "knowledge",
    "openbook_qa": "commonsense",
    "trivia_qa": "knowledge",
}
_WEAK: Final = ("qwen2.5-7b-instruct", "gemma-2-9b-it", "llama-3.1-8b-instruct")
_STRONG: Final = ("llama-3.1-nemotron-51b-instruct", "llama-3.3-nemotron-super-49b-v1")

_ARENA_CLASSES: Final = (
    (
        "math",
        "AIME GSM8K MATH MathQA AsDiv FinQA MMLUPro_math",
    ),
    ("code", "LiveCodeBench"),
    ("extraction", "NarrativeQA PubMedQA SuperGLUE-RC SuperGLUE-QA SuperGLUE-ClozeTest WMT19"),
    ("commonsense", "SuperGLUE-Wic SuperGLUE-Wsc SuperGLUE-CausalReasoning SocialiQA Ethics"),
    ("reasoning", "MMLU_formal_logic ChessInstruct SuperGLUE-Entailment"),
)
_ARENA_QUESTION: Final = re.compile(
    r"(?:Context: (?P<context>.*?)\n\n)?Question: (?P<question>.*?)(?:\n\nProvide |\Z)", re.DOTALL
)

_MT_BENCH_CLASSES: Final = {
    "writing": "writing",
    "roleplay": "writing",
    "coding": "code",
    "math": "math",
    "reasoning": "reasoning",
    "extraction": "extraction",
    "stem": "knowledge",
    "humanities": "knowledge",
}

_LADDER_WEAK: Final = (
    "Qwen2-7B-Instruct",
    "Qwen2.5-7B-Instruct",
    "Meta-Llama-3-8B-Instruct",
    "Meta-Llama-3.1-8B-Instruct",
    "gemma-2-9b-it",
    "Yi-1.5-9B-Chat",
    "Mixtral-8x7B-Instruct-v0.1",
)
_LADDER_STRONG: Final = (
    "Qwen2-72B-Instruct",
    "Qwen2.5-72B-Instruct",
    "Meta-Llama-3.1-70B-Instruct",
    "Mistral-Large-2",
    "gpt-4o-2024-08-06",
    "claude-3-5-sonnet-20241022",
)


@dataclass(frozen=True, slots=True)
class Source:
    """A set of files with one licence."""

    name: str
    files: tuple[str, ...]
    licence: str
    upstream: str
    read: Callable[[Row, str], Iterator[Example]]
    gain_weight: float = 1.0
    """Weight of its gains: about the number of models on the side with fewer, as the noise falls with it."""


def rows(path: Path) -> Iterator[Row]:
    """Rows of a CSV or JSON-lines file."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as handle:
        if path.suffix == ".csv":
            yield from csv.DictReader(handle)
        else:
            yield from (json.loads(line) for line in handle if line.strip())


def _mean(row: Row, names: tuple[str, ...], suffix: str = "") -> float | None:
    values = [float(row[name + suffix]) for name in names if row.get(name + suffix) not in (None, "")]
    return sum(values) / len(values) if values else None


def _difference(strong: float | None, weak: float | None) -> float | None:
    return None if strong is None or weak is None else strong - weak


def mmlu_label(domain: str) -> str:
    """The class of an MMLU domain."""
    return "math" if domain in _MATH_DOMAINS else _OTHER_DOMAINS.get(domain, "knowledge")


def _mmlu(row: Row, source: str) -> Iterator[Example]:
    gain = float(row["gpt4_correct"] == "True") - float(row["mixtral_correct"] == "True")
    text = row["prompt"].removesuffix("Answer:").rstrip()
    yield Example(Query(text), source, label=mmlu_label(row["domain"]), gain=gain)


def _routellm_gsm8k(row: Row, source: str) -> Iterator[Example]:
    weak, strong = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
    gain = float(row[strong] == "True") - float(row[weak] == "True")
    tokens = tuple(len(row[f"{model}_response"]) / CHARS_PER_TOKEN for model in (weak, strong))
    yield Example(Query(row["prompt"]), source, label="math", gain=gain, tokens=tokens)


def _mt_bench(row: Row, source: str) -> Iterator[Example]:
    for number, turn in enumerate(row["turns"]):
        label = _MT_BENCH_CLASSES[row["category"]]
        yield Example(Query(turn, turns=2 * number + 1), source, label=label, weight=4.0 if number == 0 else 1.0)


def _llmrouter(row: Row, source: str) -> Iterator[Example]:
    gain = _difference(_mean(row, _STRONG), _mean(row, _WEAK))
    yield Example(Query(row["query"]), source, label=_LLMROUTER_CLASSES[row["task"]], gain=gain)


def arena_label(dataset: str) -> str:
    """The class of one of RouterArena's source data sets."""
    for label, names in _ARENA_CLASSES:
        if dataset.startswith(tuple(names.split())):
            return label
    return "knowledge"


def _routerarena(row: Row, source: str) -> Iterator[Example]:
    label = arena_label(row["dataset"])
    lengths = [
        float(row[f"{model}_out_tok"]) for model in ("claude3haiku", "gemini2flash") if row.get(f"{model}_out_tok")
    ]
    tokens = tuple(length for length in lengths if length > 0)
    yield Example(Query(row["question"]), source, label=label, tokens=tokens)
    found = _ARENA_QUESTION.search(row["question"])
    if found:
        context = found["context"] or ""
        text = found["question"] if context in {"", "None"} else f"{context}\n\n{found['question']}"
        yield Example(Query(text.strip()), source, label=label, weight=2.0)


def _ladder(label: str) -> Callable[[Row, str], Iterator[Example]]:
    def read(row: Row, source: str) -> Iterator[Example]:
        gain = _difference(_mean(row, _LADDER_STRONG, "|ok"), _mean(row, _LADDER_WEAK, "|ok"))
        lengths = [float(v) / CHARS_PER_TOKEN for k, v in row.items() if k.endswith("|chars") and v not in (None, "")]
        tokens = quantiles([length for length in lengths if length > 0], _SHARES)
        yield Example(Query(row["question"]), source, label=label, gain=gain, tokens=tokens)

    return read


def _math_problem(row: Row, source: str) -> Iterator[Example]:
    solution = str(row.get("solution") or row.get("answer") or "")
    tokens = (len(solution) / CHARS_PER_TOKEN,) if len(solution) > 40 else ()
    yield Example(Query(row.get("problem") or row["question"]), source, label="math", tokens=tokens)


SOURCES: Final[tuple[Source, ...]] = (
    Source(
        "routellm-mmlu",
        ("routellm/mmlu_responses_1.csv", "routellm/mmlu_responses_2.csv"),
        "Apache-2.0",
        "lm-sys/RouteLLM",
        _mmlu,
    ),
    Source("routellm-gsm8k", ("routellm/gsm8k_responses.csv",), "Apache-2.0", "lm-sys/RouteLLM", _routellm_gsm8k),
    Source("mt-bench", ("routellm/mt_bench_questions.jsonl",), "Apache-2.0", "lm-sys/RouteLLM", _mt_bench),
    Source("gsm8k", ("gsm8k/train.jsonl",), "MIT", "openai/grade-school-math", _math_problem),
    Source(
        "math-mit",
        ("math/math500.jsonl", "math/aime24.jsonl", "math/amc23.jsonl"),
        "MIT",
        "hao-ai-lab/Dynasor",
        _math_problem,
    ),
    Source(
        "llmrouter",
        ("llmrouter/scores_1.jsonl", "llmrouter/scores_2.jsonl"),
        "MIT",
        "ulab-uiuc/LLMRouter",
        _llmrouter,
        2.0,
    ),
    Source(
        "routerarena", ("routerarena/sub10_two_models.jsonl",), "Apache-2.0", "RouteWorks/RouterArena", _routerarena
    ),
    Source("zeroeval-gsm", ("zeroeval/matrix_gsm.csv",), "Apache-2.0", "WildEval/ZeroEval", _ladder("math"), 5.0),
    Source("zeroeval-math", ("zeroeval/matrix_math-l5.csv",), "Apache-2.0", "WildEval/ZeroEval", _ladder("math"), 5.0),
    Source("zeroeval-crux", ("zeroeval/matrix_crux.csv",), "Apache-2.0", "WildEval/ZeroEval", _ladder("code"), 5.0),
)


def load(data: Path) -> list[Example]:
    """All examples of the folder, in a fixed order; raises ValueError when it holds none of the files."""
    found: list[Example] = []
    for source in SOURCES:
        for file in source.files:
            if (data / file).is_file():
                found += (example for row in rows(data / file) for example in source.read(row, source.name))
    if not found:
        wanted = ", ".join(file for source in SOURCES for file in source.files)
        raise ValueError(f"--data {data}: none of the known files is there; it should hold some of {wanted}")
    return sorted(found, key=lambda e: (e.source, e.query.text, e.query.turns, e.gain or 0.0))
