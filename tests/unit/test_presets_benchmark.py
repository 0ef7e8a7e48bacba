"""`python -m benchmarks presets`: its arithmetic on rows made here, and what it says without data."""

import json
from pathlib import Path

import pytest
from benchmarks import presets
from benchmarks.presets import Outcome, Row

from support import labelled
from support.routing import ladder, scores

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
ROWS = [Row(f"question number {n}", gain) for n, gain in enumerate((1.0, 0.0, 0.0, 1.0, -1.0, 1.0))]
STAYS, GOES = scores(gain=-1.0), scores(gain=1.0)


def test_every_row_gets_the_plan_of_its_score():
    found = presets.plans(ROWS[:2], [STAYS, GOES], ladder())
    assert [plan.tier for plan in found] == ["low", "high"]
    assert all(plan.reason == "Gain" and plan.facts.prompt_tokens > 0 for plan in found)


def test_a_row_that_a_threshold_decides_needs_no_score():
    on = ladder(context=[{"minPromptTokens": 50, "tier": "medium"}])
    [plan] = presets.plans([Row("long " * 100, 0.0)], [GOES], on)
    assert (plan.tier, plan.reason, plan.scores) == ("medium", "LongContext", None)


def test_every_answer_of_a_strategy_is_paid():
    single, voted = (
        presets.plans(ROWS[:1], [scores(class_name="math")], ladder(classes=[{"name": "math", "tier": "low", **more}]))
        for more in ({}, {"strategy": {"type": "SelfConsistency", "samples": 4}})
    )
    assert presets.cost(voted[0]) == pytest.approx(4 * presets.cost(single[0]))
    assert presets.cost(single[0]) > 0


def test_the_dearest_is_the_tier_that_costs_most():
    on = ladder()
    all_up, all_low = (presets.plans(ROWS, [score] * len(ROWS), on) for score in (GOES, STAYS))
    dearest = presets.dearest(all_up)
    assert dearest == pytest.approx(sum(map(presets.cost, all_up)))
    assert dearest == pytest.approx(presets.dearest(all_low))
    assert sum(map(presets.cost, all_low)) < dearest


def test_the_dearest_may_be_a_cheap_tier_on_dear_replicas():
    on = ladder({"low": {"outputTokenSeconds": 1.0}})
    found = presets.plans(ROWS, [STAYS] * len(ROWS), on)
    assert found[0].tier == "low"
    assert presets.dearest(found) == pytest.approx(sum(map(presets.cost, found)))


def test_the_dearest_may_be_a_class_line():
    plain = presets.plans(ROWS, [GOES] * len(ROWS), ladder())
    line = {"name": "math", "tier": "high", "thinkingTokens": 16000, "strategy": {"type": "SelfConsistency"}}
    lined = presets.plans(ROWS, [GOES] * len(ROWS), ladder(classes=[line]))
    assert presets.dearest(lined) > 3 * presets.dearest(plain)


@pytest.mark.parametrize(
    ("up", "part"),
    [
        ([True] * 6, 1.0),
        ([False] * 6, 0.0),
        ([True, False, False, True, False, False], 1.0),
        ([False] * 5 + [True], 0.5),
    ],
    ids=["all", "none", "the gains but one, and the loss stays below", "one of them"],
)
def test_what_is_kept_is_the_part_of_the_gain_that_goes_up(up, part):
    mean, low, high = presets.kept(ROWS, up)
    assert mean == pytest.approx(part)
    assert low <= mean <= high
    assert presets.kept(ROWS, up) == (mean, low, high), "the draws are the same every time"


def test_nothing_is_kept_where_there_is_nothing_to_gain():
    assert presets.kept([Row("x", 0.0), Row("y", 0.0)], [True, False]) == (0.0, 0.0, 0.0)


def test_a_policy_is_judged_by_its_own_pools():
    everything = presets.judge(QUICKSTART, ROWS, [scores(gain=1.0)] * len(ROWS))
    assert (everything.cost_share, everything.up) == (pytest.approx(1.0), 1.0)
    assert everything.kept is not None
    assert everything.kept[0] == 1.0
    nothing = presets.judge(QUICKSTART, ROWS, [scores(gain=-1.0)] * len(ROWS))
    assert 0 < nothing.cost_share < 1
    assert nothing.up == 0.0
    assert nothing.kept is not None
    assert nothing.kept[0] == 0.0


def test_the_table_has_a_line_for_every_policy_and_set():
    found = {"edge": {"learned": Outcome(0.5, None, 0.0)}, "batch": {"unseen": Outcome(0.25, (0.5, 0.4, 0.625), 0.1)}}
    head, edge, batch = presets.table(found, {"learned": 7, "unseen": 12}).splitlines()
    assert head.split() == ["policy", "prompts", "rows", "cost", "share", "sent", "up", "gain", "kept"]
    assert edge.split() == ["edge", "learned", "7", "0.500", "0.00", "one", "tier"]
    assert batch.split() == ["batch", "unseen", "12", "0.250", "0.10", "0.50", "[0.40,", "0.62]"]


def test_a_text_is_read_once_and_the_unseen_set_apart(tmp_path: Path):
    data = labelled.write(tmp_path)
    assert set(presets.read(data)) == {"learned"}
    file = data / presets.BBH
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": "why?", "cot_ok": 1, "direct_ok": 0}, {"question": "how?", "cot_ok": 0, "direct_ok": 1}]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    found = presets.read(data)
    assert found["unseen"] == [Row("why?", 1), Row("how?", -1)]
    texts = [row.text for row in found["learned"]]
    assert len(texts) == len(set(texts)) > 0


def test_without_data_it_says_so(capsys, monkeypatch):
    monkeypatch.delenv("TRIMTAB_DATA", raising=False)
    assert presets.main([]) == 0
    assert capsys.readouterr().out == (
        "presets: no labelled queries; give --data DIR or set TRIMTAB_DATA to their folder\n"
    )


def test_a_folder_of_something_else_is_named(capsys, tmp_path: Path):
    assert presets.main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"presets: --data {tmp_path}: none of the known files is there")
