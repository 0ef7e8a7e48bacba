import json

import pytest

from trimtab_classifier.evaluation import plots, run
from trimtab_classifier.evaluation.curves import Picture
from trimtab_classifier.evaluation.result import Result
from trimtab_classifier.evaluation.splits import Folders

PICTURE = Picture("cost", "accuracy", {"trimtab": [(0.2, 0.7), (1.0, 0.9)], "a <b>": [(0.5, 0.6)]}, (0.4, 0.8), 0.79)
RESULTS = [
    Result("x.share", 0.4, 0.3, 0.5, 9, {"a <b>": 0.7}, 0.5, False, {"accuracy_difference": {"a <b>": -0.01}}, PICTURE),
    Result("class.accuracy", 0.9, 0.8, 1.0, 10, {}, details={"confusion": {"math": {"math": 9, "code": 1}}}),
]


def test_a_picture_a_figure_and_one_page(tmp_path):
    written = plots.draw(RESULTS, "Five folds", tmp_path / "plots")
    assert [path.name for path in written] == ["x.share.png", "index.html"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    page = written[1].read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "a &lt;b&gt;" in page
    assert "a <b>" not in page
    assert "-1.0" in page
    assert "<td>math</td><td>9</td><td>1</td>" in page


def test_a_drawing_shows_every_method_the_target_and_the_fixed_point():
    axes = plots.figure(RESULTS[0], PICTURE).axes[0]
    assert {line.get_label() for line in axes.lines} == {"trimtab", "a <b>", "quality to keep", "fixed point"}


def test_the_json_has_no_pictures_and_says_whether_the_bar_is_met(tmp_path):
    out = tmp_path / "new" / "figures.json"
    run.write(RESULTS, Folders(tmp_path), out)
    first, second = json.loads(out.read_text())["results"]
    assert {"id", "value", "low", "high", "n", "baselines"} <= set(first)
    assert "picture" not in first
    assert first["met"] is True
    assert second["met"] is None


@pytest.mark.parametrize(("kept", "met"), [(True, True), (False, False)])
def test_a_cheap_router_that_loses_accuracy_does_not_meet_its_bar(kept, met):
    assert Result("x", 0.4, 0.3, 0.5, 9, {}, 0.5, higher=False, details={"accuracy_kept": kept}).met is met
