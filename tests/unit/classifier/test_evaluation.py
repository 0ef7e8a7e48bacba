import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from support import labelled, shuffled
from trimtab_classifier import __main__ as command
from trimtab_classifier.evaluation import difficulty, familiar, ladder, ladders, rivals, run, splits, two_tier
from trimtab_classifier.evaluation.learners import by_length, class_table, encode
from trimtab_classifier.evaluation.splits import Folders, Split
from trimtab_classifier.network import Recipe

PUBLISHED = (rivals.SIMILARITY, rivals.FACTORS, rivals.CLUSTERS, rivals.HYBRID)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return labelled.write_for_evaluation(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A test folder with more of everything, the rows of the training folder among them."""
    where = tmp_path_factory.mktemp("test")
    labelled.write_jsonl(where / "math/math_test_levels.jsonl", labelled.math_levels(160))
    labelled.write_jsonl(where / "bbh/direct_vs_cot.jsonl", labelled.bbh(160))
    labelled.write_jsonl(where / "llmrouter/scores_1.jsonl", labelled.llmrouter(150))
    return where


def test_folds_judge_every_row_once_and_never_learn_from_it(folder):
    table = splits.load(Folders(folder), difficulty.FILES, "problem")
    judged = np.concatenate([split.judge for split in table.splits])
    assert sorted(judged) == list(range(len(table.rows)))
    for split in table.splits:
        assert not {table.texts[row] for row in split.learn} & {table.texts[row] for row in split.judge}


def test_two_folders_judge_only_questions_that_were_not_learned(folder, other):
    table = splits.load(Folders(folder, other), difficulty.FILES, "problem")
    (split,) = table.splits
    assert len(split.learn) == 80
    assert len(split.judge) == 80
    assert not {table.texts[row] for row in split.learn} & {table.texts[row] for row in split.judge}


def test_a_folder_without_the_files_has_no_table(tmp_path):
    assert splits.load(Folders(tmp_path), difficulty.FILES, "problem") is None


def test_hard_problems_are_told_from_easy_ones(folder):
    (result,) = difficulty.run(Folders(folder))
    assert result.value > 0.95
    assert result.low <= result.value <= result.high
    learned = {rivals.SIMILARITY, rivals.FACTORS, rivals.CLUSTERS}
    assert set(result.baselines) == {"random", "prompt length", "class table", "TF-IDF", *learned}


def test_shuffled_labels_in_the_test_folder_fall_to_chance(folder, tmp_path):
    rows = labelled.math_levels(400)[80:]
    labelled.write_jsonl(tmp_path / "math/math_test_levels.jsonl", shuffled.deal(rows, ["level"]))
    (result,) = difficulty.run(Folders(folder, tmp_path))
    assert result.value == pytest.approx(0.5, abs=0.1)


def test_a_router_whose_test_labels_are_dealt_anew_beats_no_blind_mix(folder, other, tmp_path):
    rows = shuffled.deal(labelled.llmrouter(600)[90:], [*labelled.SMALL, *labelled.LARGE])
    labelled.write_jsonl(tmp_path / "llmrouter/scores_1.jsonl", rows)
    (dealt,) = ladders.llmrouter(Folders(folder, tmp_path))
    (honest,) = ladders.llmrouter(Folders(folder, other))
    assert dealt.details["over_random_mix"] == pytest.approx(0, abs=0.06)
    assert honest.details["over_random_mix"] > 0.15


def test_two_tier_labels_dealt_anew_are_worth_half_of_the_gap(folder, tmp_path):
    rows = shuffled.deal(labelled.mmlu(1_500)[120:], ["mixtral_correct", "gpt4_correct"])
    labelled.write_csv(tmp_path / two_tier.FILES[0], rows)
    inside, _ = two_tier.run(Folders(folder, tmp_path))
    assert inside.value == pytest.approx(0.5, abs=0.12)


def test_the_two_tier_figures_have_all_baselines(folder):
    inside, unseen = two_tier.run(Folders(folder))
    assert (inside.id, unseen.id) == ("mmlu.apgr.in_domain", "mmlu.apgr.unseen_domain")
    assert inside.n == unseen.n == 120
    assert inside.value > 0.5
    assert set(inside.baselines) == {"random mix", "class table", "TF-IDF gain", "prompt length", *PUBLISHED}


def test_the_ladder_takes_the_cheap_model_where_it_is_enough(folder, other):
    (result,) = ladders.llmrouter(Folders(folder, other))
    assert result.n == 60
    assert result.value < 0.7
    assert result.details["accuracy_kept"]
    expected = {"best single", "random mix", "prompt length", "class table", "TF-IDF", *PUBLISHED}
    assert set(result.baselines) == expected


def test_only_the_task_that_needs_it_gets_a_chain_of_thought(folder, other):
    (result,) = ladders.bbh(Folders(folder, other))
    assert result.n == 80
    assert result.value == pytest.approx(0.505, abs=0.1)
    assert result.details["accuracy_difference"]["trimtab"] >= -0.05


@pytest.mark.parametrize(
    "part", [two_tier.run, difficulty.run, ladders.llmrouter, ladders.bbh], ids=["mmlu", "math", "llm", "bbh"]
)
def test_no_rows_no_figures(part, tmp_path):
    assert part(Folders(tmp_path)) == []


def test_classes_and_unseen_sources(folder):
    accuracy, unseen = familiar.run(Folders(folder), Recipe(hidden=8, epochs=1), prompts_per_class=20)
    assert accuracy.id == "class.accuracy"
    assert sum(sum(row.values()) for row in accuracy.details["confusion"].values()) == accuracy.n
    assert unseen.id == "ood.auc"
    assert set(unseen.details["by_source"]) == {"bbh/direct_vs_cot", "esc_last_letters/gpt35_t07"}


def test_tables_shrink_to_the_overall_mean():
    target = np.array([[1.0], [1.0], [0.0]])
    table = class_table(np.array([0, 0, 1]), target, 3, shrink=1.0)
    assert table[:, 0] == pytest.approx([(2 + 2 / 3) / 3, (0 + 2 / 3) / 2, 2 / 3])


def test_length_predicts_what_grows_with_length():
    texts = ["x" * n for n in range(1, 200, 3)]
    target = np.log1p([[len(text)] for text in texts])
    rows = np.arange(len(texts))
    assert by_length(texts, target, rows[::2], rows[1::2]) == pytest.approx(target[1::2], abs=1e-6)


def problem(quality: list[list[float]], cost: list[list[float]]) -> ladder.Problem:
    texts = [f"text {i}" for i in range(len(quality))]
    return ladder.Problem(texts, encode(texts), np.zeros(len(texts), np.intp), np.array(quality), np.array(cost))


@pytest.mark.parametrize(("price", "option"), [(0.0, 1), (0.5, 1), (0.7, 0)], ids=["free", "low", "high"])
def test_the_price_decides(price, option):
    expected = ladder.Expected(np.array([[0.5, 0.9]]), np.array([[1.0, 4.0]]))
    assert ladder.choose(expected, price, unit=5.0).tolist() == [option]


@pytest.mark.parametrize("spend", [1.0, 0.6, 0.5, 0.0], ids=["for all", "just enough", "too little", "nothing"])
def test_the_operating_point_sends_the_rows_that_gain(spend):
    p = problem([[1, 1], [0, 1]] * 20, [[1, 10]] * 40)
    expected = ladder.Expected(np.array([[0.9, 0.95], [0.2, 0.9]] * 20), p.cost)
    split = Split(np.arange(40), np.arange(0))
    price = ladder.operating_price(expected, p, split, ladder.Aim(spend, allowance=0.0))
    assert ladder.choose(expected, price, 10.0).tolist() == [0, 1] * 20


def test_accuracy_that_is_left_over_is_not_paid_for():
    p = problem([[1, 1], [0, 1]] * 20, [[1, 10]] * 40)
    expected = ladder.Expected(np.array([[0.9, 0.95], [0.2, 0.9]] * 20), p.cost)
    split = Split(np.arange(40), np.arange(0))
    price = ladder.operating_price(expected, p, split, ladder.Aim(spend=0.5, allowance=0.5))
    assert ladder.choose(expected, price, 10.0).tolist() == [0] * 40


def test_a_target_out_of_reach_takes_the_best_quality():
    p = problem([[0, 1]] * 9, [[1, 10]] * 9)
    expected = ladder.Expected(np.array([[0.1, 0.9]] * 9), p.cost)
    split = Split(np.arange(9), np.arange(0))
    price = ladder.operating_price(expected, p, split, ladder.Aim(spend=0.5, allowance=0.0))
    assert ladder.choose(expected, price, 10.0).tolist() == [1] * 9


@pytest.mark.parametrize(
    ("target", "share"), [(0.75, 0.55), (1.0, 1.0), (0.4, 0.1)], ids=["middle", "top", "below-all"]
)
def test_a_blind_mix_pays_in_proportion(target, share):
    p = problem([[1, 1], [0, 1]], [[1, 10], [1, 10]])
    assert ladder.random_mix(p, np.arange(2), target) == pytest.approx(share)


def test_the_command_writes_the_figures(folder, tmp_path, capsys):
    out = tmp_path / "figures.json"
    arguments = ["eval", "--train", str(folder), "--test", str(folder), "--only", "math", "--json", str(out)]
    assert command.main([*arguments, "--plots", str(tmp_path / "plots")]) == 0
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["index.html", "math.level.auc.png"]
    body = json.loads(out.read_text())
    assert body["protocol"] == "five folds of the train folder"
    assert [result["id"] for result in body["results"]] == ["math.level.auc"]
    assert "math.level.auc" in capsys.readouterr().out


def test_the_command_knows_every_part():
    assert set(command.PARTS) == set(run.PARTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "/no/such"], "error: --train /no/such: no such folder; give a folder of labelled queries"),
        (
            ["--train", "{tmp}", "--test", "/none"],
            "error: --test /none: no such folder; give a folder of labelled queries",
        ),
        (["--train", "{tmp}", "--only", "math"], "no rows for math; see docs/evaluation.md for the layout"),
    ],
    ids=["train", "test", "empty"],
)
def test_bad_folders_are_named(arguments, message, tmp_path, capsys):
    assert command.main(["eval", *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_the_dearest_option_is_the_more_accurate_of_those_with_the_top_price():
    p = problem([[1, 0, 1], [0, 0, 1]], [[1, 9, 9], [1, 9, 9]])
    assert ladder.dearest(p, np.arange(2)) == 2


def test_weights_move_what_is_kept_and_what_is_paid():
    p = dataclasses.replace(problem([[1, 1], [0, 1]], [[1, 9], [1, 9]]), weight=np.array([3.0, 1.0]))
    outcome = ladder.outcome(p, Split(np.arange(2), np.arange(2)), np.array([0, 1]))
    assert outcome.share() == pytest.approx((3 * 1 + 9) / (4 * 9))
    assert ladder.outcome(p, Split(np.arange(2), np.arange(2)), np.array([0, 0])).difference() == pytest.approx(-0.25)


@pytest.mark.parametrize(("spent", "accuracy"), [(1.0, 0.5), (5.5, 0.75), (10.0, 1.0), (0.5, 0.5)])
def test_the_best_blind_mix_at_a_cost(spent, accuracy):
    p = problem([[1, 1], [0, 1]], [[1, 10], [1, 10]])
    assert ladder.best_mix(p, np.arange(2), spent) == pytest.approx(accuracy)
