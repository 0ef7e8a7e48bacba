"""The real rows, where `TRIMTAB_DATA` names them: what is learned helps, and dealt-out labels make it worthless."""

import os
from pathlib import Path

import pytest

from support import labelled, shuffled
from trimtab_classifier.evaluation import cascade, difficulty, ladders, letters, two_tier
from trimtab_classifier.evaluation.splits import Folders
from trimtab_classifier.examples import bucket
from trimtab_classifier.sources import rows

pytestmark = [
    pytest.mark.data,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif("TRIMTAB_DATA" not in os.environ, reason="TRIMTAB_DATA names no folder of labelled queries"),
]
SCORED = {
    "math/math_test_levels.jsonl": ("problem", ["level"]),
    "bbh/direct_vs_cot.jsonl": ("question", ["direct_ok", "cot_ok"]),
    "routellm/mmlu_responses_1.csv": ("prompt", ["mixtral_correct", "gpt4_correct"]),
}
SAMPLED = ("esc_last_letters/gpt35_t07.jsonl", "mot_cascade/date_gpt-3.5-turbo.jsonl", "mot_cascade/date_gpt-4.jsonl")


def _write(path: Path, found: list[dict]) -> None:
    (labelled.write_csv if path.suffix == ".csv" else labelled.write_jsonl)(path, found)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Folders, Folders]:
    """A third of the questions to judge, once with their labels and once with labels dealt out anew."""
    data = Path(os.environ["TRIMTAB_DATA"])
    train, test, dealt = (tmp_path_factory.mktemp(name) for name in ("train", "test", "dealt"))
    for file in (*SCORED, *SAMPLED):
        text, labels = SCORED.get(file, ("question", []))
        found = list(rows(data / file))
        judged = [bucket(row[text], 3) == 0 for row in found]
        _write(train / file, [row for row, out in zip(found, judged, strict=True) if not out])
        held = [row for row, out in zip(found, judged, strict=True) if out]
        _write(test / file, held)
        _write(dealt / file, shuffled.deal(held, labels))
        if file.startswith("mot_cascade"):
            shuffled.deal_answers(dealt / file)
    return Folders(train, test), Folders(train, dealt)


def test_levels(folders):
    (honest,), (chance,) = (difficulty.run(each) for each in folders)
    assert honest.value > 0.8
    assert chance.value == pytest.approx(0.5, abs=0.08)


def test_two_tiers(folders):
    honest, chance = (two_tier.run(each)[0] for each in folders)
    assert honest.value > 0.57
    assert chance.value == pytest.approx(0.5, abs=0.12)


def test_modes(folders):
    (honest,), (chance,) = (ladders.bbh(each) for each in folders)
    assert honest.details["over_random_mix"] > 0.05
    assert chance.details["over_random_mix"] == pytest.approx(0, abs=0.04)


def test_cascades(folders):
    (honest,), (chance,) = (cascade.run(each) for each in folders)
    assert honest.details["over_random_mix"] > 0.03
    # Questions with the same right answer keep a little of it.
    assert chance.details["over_random_mix"] == pytest.approx(0, abs=0.03)


def test_votes(folders):
    (honest,), _ = (letters.run(each) for each in folders)
    assert honest.value < 6
    assert honest.details["answer_differs"] < 0.03
