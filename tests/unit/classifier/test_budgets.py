"""`trimtab classifier curves`: labelled rows to points, and what of them may be packaged."""

import json
from pathlib import Path

import pytest

from support.labelled import write_csv, write_jsonl
from trimtab_classifier.__main__ import main
from trimtab_classifier.evaluation import budgets
from trimtab_router.shell.curves import packaged_curves


def bbh(count: int = 400) -> list[dict]:
    """Every fourth direct answer is right, every thought; thoughts have 10 to 409 tokens."""
    return [
        {
            "task": "snarks" if i % 2 else "navigate",
            "question": f"q{i}",
            "cot_ok": 1,
            "cot_chars": 4 * (10 + i),
            "direct_ok": int(i % 8 in {0, 1}),
            "direct_chars": 4,
        }
        for i in range(count)
    ]


def study(found: list[budgets.Study], source: str, name: str) -> budgets.Study:
    return next(s for s in found if (s.source, s.class_name) == (source, name))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / budgets.BBH, bbh())
    write_jsonl(
        tmp_path / budgets.WAITS,
        [{"ok": {f"default_{k}": int((i * 7 + k * 3) % 10 < 5) for k in range(11)}} for i in range(100)],
    )
    write_jsonl(
        tmp_path / budgets.LETTERS,
        [{"gold": "b", "answers": ["b" if (i + k) % 3 else "a" for k in range(40)]} for i in range(60)],
    )
    write_csv(
        tmp_path / "zeroeval/matrix_gsm.csv",
        [
            {"question": f"q{i}", "m|ok": 1, "m|chars": 4 * (i + 1), "o1-mini|ok": 1, "o1-mini|chars": 4}
            for i in range(300)
        ],
    )
    return tmp_path


def test_a_cut_thought_gives_the_direct_answer(data: Path):
    points = study(budgets.studies(data), "bbh", "reasoning").points
    shares = {p.compute: p.share for p in points}
    assert shares[0] == pytest.approx(0.25)
    assert shares[32] == pytest.approx((12 + 188 / 4) / 200, abs=0.01)
    assert max(shares) == 384, "the next cap is beyond what 95 % of the thoughts need"


def test_a_cut_answer_is_wrong_and_hidden_thoughts_are_left_out(data: Path):
    found = study(budgets.studies(data), "gsm", "math")
    assert {p.compute: p.share for p in found.points}[128] == pytest.approx(128 / 300)
    assert {p.judged for p in found.points} == {300}
    assert "1 models" in found.method


def test_only_licensed_rows_whose_budget_ends_with_an_answer_are_packaged(data: Path):
    found = budgets.studies(data)
    assert {s.source for s in found if s.ships} == {"bbh"}
    assert {s.source for s in found} == {"bbh", "waits", "letters", "gsm"}
    assert all("MIT" in entry["provenance"] for entry in budgets.packaged(found))


def test_flat_continuations_are_constant_and_votes_are_counted(data: Path):
    found = budgets.studies(data)
    assert study(found, "waits", "math").curve.form == "constant"
    votes = study(found, "letters", "reasoning").points
    assert [p.compute for p in votes] == list(budgets.SAMPLES)
    assert votes[-1].share == 1.0 > votes[0].share


def test_the_command_prints_and_writes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, figures = tmp_path / "curves.json", tmp_path / "figures.json"
    assert main(["curves", "--data", str(data), "--out", str(out), "--json", str(figures)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 6
    assert [line.split()[-1] for line in shown if " bbh " in line] == ["yes", "yes"]
    assert {e["class"] for e in json.loads(out.read_text())["curves"]} == {"commonsense", "reasoning"}
    studies = json.loads(figures.read_text())["studies"]
    assert {s["form"] for s in studies if s["source"] == "waits"} == {"constant"}


def test_a_folder_without_such_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["curves", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: --data {tmp_path}: no rows with compute and correctness")


def test_what_is_packaged_is_flat_for_common_sense_and_rises_for_reasoning():
    found = packaged_curves()
    assert {name: curve.form for name, curve in found.items()} == {"commonsense": "constant", "reasoning": "log-linear"}
    assert found["commonsense"].doubling(64).mean == 0
    assert found["reasoning"].doubling(128).low > 0
    assert found["reasoning"].doubling(1024) is None
