"""Accuracy as a function of spent compute, class by class, from labelled rows that say both.

Rows with one answer a question are replayed under a cap: a longer thought is cut, and what follows is what the rows
know of it, the direct answer to the same question or none. A cut that loses the answer is harsher than an engine's,
which closes the thought and lets the model answer: those curves say at most what more budget is worth, and are not
packaged.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from trimtab_classifier.evaluation import replay
from trimtab_classifier.sources import CHARS_PER_TOKEN, Row, rows
from trimtab_router.core.curve import LITTLE_SAMPLES, LITTLE_THINKING, Curve, Point, Value, fit
from trimtab_router.core.voting import AllSamples, Voting

CAPS: Final = (0, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 6144, 8192, 12288, 16384)
SAMPLES: Final = (1, 2, 3, 5, 8, 12, 20, 40)
COVERED: Final = 0.95
"""Caps up to the length that this share of the answers keeps; beyond it hardly anything is cut."""
UNSTATED: Final = "none stated"
Axis = Literal["thinking tokens", "samples", "forced continuations"]
_LITTLE: Final[dict[Axis, float]] = {
    "thinking tokens": LITTLE_THINKING,
    "samples": LITTLE_SAMPLES,
    "forced continuations": LITTLE_SAMPLES,
}
_COMMONSENSE: Final = frozenset(
    {
        "causal_judgement",
        "disambiguation_qa",
        "hyperbaton",
        "movie_recommendation",
        "ruin_names",
        "snarks",
        "sports_understanding",
    }
)


@dataclass(frozen=True, slots=True)
class Study:
    """Points of one source for one class."""

    source: str
    class_name: str
    axis: Axis
    licence: str
    upstream: str
    method: str
    points: tuple[Point, ...]
    answers_when_cut: bool = True
    """A budget ends as the engine ends it: with an answer."""

    @property
    def curve(self) -> Curve | None:
        """The form that the points support."""
        return fit(self.points, _LITTLE[self.axis])

    @property
    def ships(self) -> bool:
        """It may be packaged, and says of a thinking budget what the engine does with it."""
        stated = self.licence != UNSTATED
        return stated and self.answers_when_cut and self.axis == "thinking tokens" and self.curve is not None


@dataclass(frozen=True, slots=True)
class _Answer:
    right: float
    tokens: float
    cut: float
    """Share of right answers where the thought is cut."""


def studies(data: Path) -> list[Study]:
    """Every study whose rows the folder has; raises ValueError when it has none."""
    found = [*_bbh(data), *_zeroeval(data), *_aime(data), *_waits(data), *_letters(data)]
    if not found:
        raise ValueError(
            f"--data {data}: no rows with compute and correctness; it should hold some of {', '.join(FILES)}"
        )
    return found


BBH: Final = "bbh/direct_vs_cot.jsonl"
ZEROEVAL: Final = {
    "zeroeval/matrix_gsm.csv": "math",
    "zeroeval/matrix_math-l5.csv": "math",
    "zeroeval/matrix_crux.csv": "code",
}
AIME: Final = "aime_r1_distill_1p5b/samples.csv"
WAITS: Final = "s1_budget_forcing/math500_waits.jsonl"
LETTERS: Final = "esc_last_letters/gpt35_t07.jsonl"
FILES: Final = (BBH, *ZEROEVAL, AIME, WAITS, LETTERS)


def _read(data: Path, file: str) -> list[Row]:
    return list(rows(data / file)) if (data / file).is_file() else []


def capped(answers: Sequence[_Answer], questions: int) -> tuple[Point, ...]:
    """Accuracy under every cap that still cuts something; answers to one question count as one judgement."""
    right, tokens, cut = (np.array([getattr(a, name) for a in answers]) for name in ("right", "tokens", "cut"))
    most = float(np.quantile(tokens, COVERED))
    shares = [(cap, float(np.where(tokens <= cap, right, cut).mean())) for cap in CAPS if cap <= most]
    return tuple(Point(cap, share * questions, questions) for cap, share in shares)


def _bbh(data: Path) -> Iterator[Study]:
    groups: dict[str, list[_Answer]] = defaultdict(list)
    for row in _read(data, BBH):
        answer = _Answer(float(row["cot_ok"]), row["cot_chars"] / CHARS_PER_TOKEN, float(row["direct_ok"]))
        groups["commonsense" if row["task"] in _COMMONSENSE else "reasoning"].append(answer)
    for name, answers in sorted(groups.items()):
        yield Study(
            "bbh",
            name,
            "thinking tokens",
            "MIT",
            "suzgunmirac/BIG-Bench-Hard",
            "chain of thought of code-davinci-002; a thought beyond the budget gives the direct answer",
            capped(answers, len(answers)),
        )


def _zeroeval(data: Path) -> Iterator[Study]:
    for file, name in ZEROEVAL.items():
        found = _read(data, file)
        # The o1 models' thoughts are hidden: their lengths are not those of what they spent.
        models = [k.removesuffix("|ok") for k in (found or [{}])[0] if k.endswith("|ok") and not k.startswith("o1")]
        answers = [
            _Answer(float(row[f"{m}|ok"]), float(row[f"{m}|chars"]) / CHARS_PER_TOKEN, 0.0)
            for row in found
            for m in models
            if row[f"{m}|ok"] and row[f"{m}|chars"]
        ]
        if answers:
            yield Study(
                file.split("_")[-1].removesuffix(".csv"),
                name,
                "thinking tokens",
                "Apache-2.0",
                "WildEval/ZeroEval",
                f"answers of {len(models)} models; one beyond the budget counts as wrong",
                capped(answers, len(found)),
                answers_when_cut=False,
            )


def _aime(data: Path) -> Iterator[Study]:
    found = _read(data, AIME)
    answers = [_Answer(float(row["correct"]), float(row["tokens"]), 0.0) for row in found]
    if answers:
        questions = len({(row["year"], row["problem"]) for row in found})
        method = "samples of R1-Distill-Qwen-1.5B; one beyond the budget counts as wrong"
        points = tuple(p for p in capped(answers, questions) if p.right)
        yield Study(
            *("aime", "math", "thinking tokens", UNSTATED, "zacksifakis/task-hardness-analysis", method),
            points,
            answers_when_cut=False,
        )


def _waits(data: Path) -> Iterator[Study]:
    found = [row["ok"] for row in _read(data, WAITS)]
    if found:
        points = tuple(Point(k, sum(ok[f"default_{k}"] for ok in found), len(found)) for k in range(11))
        method = "s1.1-1.5B on MATH-500, forced to think on that often"
        yield Study(
            "waits", "math", "forced continuations", UNSTATED, "alexander-brady/guided-selfrevision", method, points
        )


def _letters(data: Path) -> Iterator[Study]:
    right: dict[int, float] = defaultdict(float)
    found = _read(data, LETTERS)
    for row in found:
        keys, gold = [replay.key(answer) for answer in row["answers"]], replay.key(row["gold"])
        for count in SAMPLES:
            parts = [replay.pattern([*keys[k : k + count], gold]) for k in range(0, len(keys) - count + 1, count)]
            voting = Voting(AllSamples(), count)
            right[count] += sum(replay.vote(part[:-1], voting)[1] == part[-1] for part in parts) / max(1, len(parts))
    if found:
        points = tuple(Point(count, right[count], len(found)) for count in SAMPLES)
        yield Study(
            *("letters", "reasoning", "samples", UNSTATED, "Yiwei98/ESC", "votes of GPT-3.5 on last letters"), points
        )


def packaged(found: Sequence[Study]) -> list[dict[str, Any]]:
    """What is packaged: points, so that whoever reads them fits them, and where they are from."""
    return [
        {
            "class": study.class_name,
            "points": [[p.compute, round(p.right, 2), p.judged] for p in study.points],
            "provenance": f"{study.upstream} ({study.licence}): {study.method}",
        }
        for study in found
        if study.ships
    ]


def as_dict(study: Study) -> dict[str, Any]:
    """A study with its curve and what twice the compute is worth at every point."""
    curve = study.curve
    return {
        "source": study.source,
        "class": study.class_name,
        "axis": study.axis,
        "licence": study.licence,
        "method": study.method,
        "packaged": study.ships,
        "points": [{"compute": p.compute, "accuracy": round(p.share, 4), "questions": p.judged} for p in study.points],
        "form": None if curve is None else curve.form,
        "range": None if curve is None else [curve.low, curve.high],
        "doubling": {}
        if curve is None
        else {f"{p.compute:g}": _value(curve.doubling(p.compute)) for p in study.points},
    }


def _value(value: Value | None) -> Mapping[str, float] | None:
    return None if value is None else {k: round(getattr(value, k), 4) for k in ("mean", "low", "high")}


def table(found: Sequence[Study]) -> str:
    """One line a study: form, measured range, and the worth of doubling from the least and to the most compute."""
    form = "{:12} {:9} {:21} {:11} {:>11}  {:36} {}"
    lines = [form.format("class", "source", "compute", "form", "range", "doubling, points of accuracy", "packaged")]
    for study in found:
        curve = study.curve
        if curve is None:
            cells = ("none", "", "")
        else:
            ends = [curve.doubling(c) for c in (max(curve.low, 1.0), curve.high / 2)]
            worth = " .. ".join(f"{100 * v.mean:+.1f} [{100 * v.low:+.1f},{100 * v.high:+.1f}]" for v in ends if v)
            cells = (curve.form, f"{curve.low:g}-{curve.high:g}", worth)
        lines.append(
            form.format(study.class_name, study.source, study.axis, *cells, "yes" if study.ships else "no").rstrip()
        )
    return "\n".join(lines)


def run(data: Path, out: Path | None, figures: Path | None) -> str:
    """The table; writes the packaged document and the figures where asked."""
    found = studies(data)
    if out is not None:
        entries = ",\n  ".join(json.dumps(entry) for entry in packaged(found))
        out.write_text(f'{{"curves": [\n  {entries}\n]}}\n', "utf-8")
    if figures is not None:
        figures.write_text(json.dumps({"studies": [as_dict(study) for study in found]}, indent=1) + "\n", "utf-8")
    return table(found)
