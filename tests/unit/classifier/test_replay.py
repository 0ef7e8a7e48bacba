"""Recorded answers replayed: votes with an early stop, and a cascade that escalates when samples disagree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import labelled, shuffled
from trimtab_classifier.evaluation import cascade, letters, replay
from trimtab_classifier.evaluation.splits import Folders, Split
from trimtab_router.core.voting import AllSamples, Posterior, Voting, Window

answers = st.lists(st.sampled_from(["7", "8", "9", ""]), min_size=1, max_size=12)
rules = st.sampled_from([Posterior(0.8), Posterior(0.95), Window(3), AllSamples()])


@given(answers, rules, st.integers(1, 12))
def test_a_vote_is_that_of_the_router(given_answers, rule, most):
    voting = Voting(rule, most)
    seen = replay.pattern(given_answers)
    expected = voting.replay(given_answers)
    drawn, winner = replay.vote(seen, voting)
    assert drawn == expected.samples
    assert (given_answers[seen.index(winner)] if winner else "") == expected.key


@given(answers)
def test_a_pattern_keeps_which_answers_are_equal(given_answers):
    seen = replay.pattern(given_answers)
    for one, left in zip(given_answers, seen, strict=True):
        assert [other == one for other in given_answers] == [right == left for right in seen]


@pytest.mark.parametrize(
    ("seen", "threshold", "outcome"),
    [
        (("0", "0"), 0.87, (2, "0")),
        (("0", "1"), 0.87, (2, "")),
        (("0", "1", "0", "0"), 0.8, (4, "0")),
        (("0", "1", "2", "0"), 0.8, (3, "")),
        (("", "0"), 0.87, (1, "")),
        ((), 1.0, (0, "")),
    ],
    ids=["agree", "differ", "three-to-one", "hopeless-early", "a-sample-without-an-answer", "strong-alone"],
)
def test_what_is_accepted_and_when_it_escalates(seen, threshold, outcome):
    assert replay.accept(seen, threshold) == outcome


@pytest.mark.parametrize(
    ("answer", "key"), [(9.0, "9"), ("05/01/2021", "05/01/2021"), (" Yajo ", "yajo"), (None, "")], ids=str
)
def test_keys_are_those_of_the_router(answer, key):
    assert replay.key(answer) == key


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("train")
    labelled.write_jsonl(where / letters.FILES[0], labelled.letters(40))
    labelled.cascade(where)
    return where


def test_an_early_stop_needs_few_samples_where_answers_agree(folder, tmp_path):
    labelled.write_jsonl(tmp_path / letters.FILES[0], labelled.letters(20, first=60))
    (result,) = letters.run(Folders(folder, tmp_path))
    assert result.n == 20
    assert result.value < 8
    assert result.details["accuracy_difference"]["trimtab"] >= -0.03
    assert set(result.baselines) == {"all samples", "fixed number of samples", "Adaptive-Consistency", "ESC"}


def test_a_stop_is_chosen_without_any_label():
    rows = labelled.letters(20)
    told, untold = (
        [letters._orders(r["answers"], r["gold"] if labels else "?", np.random.default_rng(0)) for r in rows]
        for labels in (True, False)
    )
    some = letters.FAMILY[:12]
    picked = [letters.choose([letters.replayed(q, v) for v in some], np.arange(20)) for q in (told, untold)]
    assert picked[0] == picked[1]
    assert letters.replayed(untold, letters.ALL).right.sum() == 0
    assert letters.replayed(told, letters.ALL).right.sum() > 10


@pytest.fixture(scope="module")
def judged(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("test")
    labelled.cascade(where, 40, first=60)
    (result,) = cascade.run(Folders(folder, where))
    return result


def test_only_disagreeing_forms_reach_the_strong_model(judged):
    assert judged.n == 40
    assert judged.details["accuracy_kept"]
    assert judged.value == pytest.approx(1 / 3 + 2 / 20, abs=0.08)
    assert judged.details["over_random_mix"] > 0.1
    assert {"best single", "random mix", "one form", "reasoning alone", cascade.ANCHOR} <= set(judged.baselines)


def test_one_form_alone_does_not_notice_its_own_mistakes(judged):
    assert judged.value < judged.baselines["one form"]


def test_shuffled_answers_in_the_test_folder_leave_no_gain_over_a_blind_mix(folder, tmp_path):
    labelled.cascade(tmp_path, 60, first=60)
    for model in ("gpt-3.5-turbo", "gpt-4"):
        shuffled.deal_answers(tmp_path / f"mot_cascade/date_{model}.jsonl")
    (result,) = cascade.run(Folders(folder, tmp_path))
    assert result.details["over_random_mix"] == pytest.approx(0, abs=0.05)


def test_lists_that_repeat_themselves_are_cut():
    row = {"answers": ["a", "b", "c", "a", "d"] * 2, "chars": [1, 2, 3, 1, 5] * 2}
    assert cascade._distinct(row).keys == ("a", "b", "c", "a", "d")


def test_a_policy_out_of_reach_is_the_strong_model_alone(folder):
    questions = cascade.read(folder, *cascade.SETS[0])
    table = cascade.tables(questions, cascade.family(["cot1"]))
    chosen = table.policies[cascade.choose(table, np.arange(len(questions)), cascade._is("one form"))]
    assert chosen == cascade.Policy((), 1.0)


def test_labels_of_judged_questions_do_not_choose(folder):
    questions = cascade.read(folder, *cascade.SETS[0])
    learn, judge = np.arange(40), np.arange(40, 60)
    table = cascade.tables(questions, cascade.family(["cot1", "pot1"]))
    before = cascade.choose(table, learn, cascade._is("trimtab"))
    table.right[:, judge] = 1 - table.right[:, judge]
    table.strong_right[:, judge] = 0
    assert cascade.choose(table, learn, cascade._is("trimtab")) == before
    assert len(cascade._outcome(table, Split(learn, judge), before).cost) == 20


@pytest.mark.parametrize("part", [letters.run, cascade.run], ids=["letters", "cascade"])
def test_no_recorded_answers_no_figures(part, tmp_path):
    assert part(Folders(tmp_path)) == []
