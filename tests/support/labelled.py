"""A tiny folder of labelled queries in the layout of the public sources."""

import csv
import json
from pathlib import Path
from typing import Any

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
DOMAINS = ("abstract_algebra", "anatomy", "formal_logic", "marketing", "moral_scenarios", "virology")

SMALL = ("qwen2.5-7b-instruct", "gemma-2-9b-it", "llama-3.1-8b-instruct")
LARGE = ("llama-3.1-nemotron-51b-instruct", "llama-3.3-nemotron-super-49b-v1")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows under a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def mmlu(count: int = 120) -> list[dict[str, Any]]:
    """Questions whose gain depends on the domain."""
    return [
        {
            "domain": DOMAINS[i % 6],
            "prompt": f"In {DOMAINS[i % 6]}, what is item {i * 37 % 101}?\nA. {i}\nB. {i + 1}\nC. no\nD. yes\nAnswer:",
            "mixtral_correct": str(i % 6 not in {0, 2}),
            "gpt4_correct": str(i % 7 != 0),
        }
        for i in range(count)
    ]


def gsm8k(count: int = 40) -> list[dict[str, Any]]:
    """Word problems with two models' answers."""
    return [
        {
            "prompt": f"Ana has {i} apples and buys {i + 3} more for {i % 5} coins each. How many apples has she?",
            WEAK: str(i % 3 == 0),
            STRONG: "True",
            f"{WEAK}_response": "x" * (80 + i),
            f"{STRONG}_response": "y" * (160 + i),
        }
        for i in range(count)
    ]


def llmrouter(count: int = 90) -> list[dict[str, Any]]:
    """Three tasks; only the strong models solve the grid."""
    prompts = {
        "mbpp": "Write a function to add {i} to every item of a list.",
        "agentverse-logicgrid": "There are {i} houses in a row. Who lives in house {i}?",
        "trivia_qa": "Which town has {i} bridges?",
    }
    tasks = list(prompts)
    return [
        {
            "task": tasks[i % 3],
            "orig_split": "train",
            "query": prompts[tasks[i % 3]].format(i=i),
            **{name: float(i % 3 != 1) for name in SMALL},
            **dict.fromkeys(LARGE, 1.0),
        }
        for i in range(count)
    ]


def write(folder: Path) -> Path:
    """The whole folder."""
    write_csv(folder / "routellm/mmlu_responses_1.csv", mmlu())
    write_csv(folder / "routellm/gsm8k_responses.csv", gsm8k())
    write_jsonl(folder / "llmrouter/scores_1.jsonl", llmrouter())
    return folder


def math_levels(count: int = 80) -> list[dict[str, Any]]:
    """Hard problems are long and full of LaTeX."""
    easy, hard = (
        "What is {i} plus {i}?",
        r"Evaluate $\sum_{{k=1}}^{{{i}}} \binom{{{i}}}{{k}} \frac{{1}}{{k}}$ modulo {i}.",
    )
    return [
        {"problem": (hard if i % 2 else easy).format(i=i + 2), "answer": str(i), "level": 5 if i % 2 else 1}
        for i in range(count)
    ]


def bbh(count: int = 80) -> list[dict[str, Any]]:
    """One task needs the chain of thought, the other does not."""
    return [
        {
            "task": "count" if i % 2 else "name",
            "question": f"Count the {i} objects on the table." if i % 2 else f"Name a movie like number {i}.",
            "direct_ok": 0 if i % 2 else 1,
            "cot_ok": 1,
            "direct_chars": 5,
            "cot_chars": 500,
        }
        for i in range(count)
    ]


def letters(count: int = 60, first: int = 0) -> list[dict[str, Any]]:
    """Forty answers a question: unanimous for most, a lesser majority for every fifth, a wrong one for every tenth."""
    found = []
    for i in range(first, first + count):
        right, wrong = f"abc{i}", f"xyz{i}"
        votes = 40 if i % 5 else 33
        answers = [right] * votes + [wrong] * (40 - votes)
        gold = wrong if i % 10 == 1 else right
        found.append({"question": f"Last letters of name {i}?", "gold": gold, "answers": answers, "chars": [9] * 40})
    return found


def _sampled(model: str, run: str, idx: int, gold: str, answers: list[str]) -> dict[str, Any]:
    head = {"task": "date", "model": model, "run": f"date_{run}", "idx": idx, "n": len(answers), "gold": gold}
    question = f"What is the date {idx} days after 01/01/2021?"
    chars = [90 + 10 * (k % 3) for k in range(len(answers))]
    return head | {"question": question, "answers": answers, "chars": chars}


def cascade(folder: Path, count: int = 60, first: int = 0) -> None:
    """The weak model's two forms agree where it is right; where it is wrong, each errs in its own way, always the same.

    So one form alone is sure of itself and wrong, and only the other form gives it away.
    """
    weak, strong = [], []
    for i in range(first, first + count):
        gold = f"01/{i:03}/2021"
        for form in ("cot1", "pot1"):
            answer = gold if i % 3 else f"{form} says {i}"
            weak.append(_sampled("gpt-3.5-turbo", form, i, gold, [answer] * 20))
            strong.append(_sampled("gpt-4", f"greedy_{form}", i, gold, [gold if i % 20 else "no"]))
    write_jsonl(folder / "mot_cascade/date_gpt-3.5-turbo.jsonl", weak)
    write_jsonl(folder / "mot_cascade/date_gpt-4.jsonl", strong)


def write_for_evaluation(folder: Path) -> Path:
    """The training folder and what only the evaluation reads."""
    write(folder)
    write_jsonl(folder / "math/math_test_levels.jsonl", math_levels())
    write_jsonl(folder / "bbh/direct_vs_cot.jsonl", bbh())
    write_jsonl(folder / "esc_last_letters/gpt35_t07.jsonl", letters())
    cascade(folder)
    prices = {"qwen2.5-7b-instruct": 0.2, "gemma-2-9b-it": 0.1, "llama-3.1-8b-instruct": 0.2}
    prices |= {"llama-3.1-nemotron-51b-instruct": 0.9, "llama-3.3-nemotron-super-49b-v1": 0.9}
    meta = {name: {"output_price": price} for name, price in prices.items()}
    (folder / "llmrouter/model_meta.json").write_text(json.dumps(meta))
    return folder
