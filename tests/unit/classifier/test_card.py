import json

import pytest

from support import labelled
from trimtab_classifier import card, sources, train
from trimtab_classifier.__main__ import main
from trimtab_classifier.network import Recipe
from trimtab_router.shell.classifier import PACKAGED


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "small.onnx"
    path.with_suffix(".json").write_text(PACKAGED.with_suffix(".json").read_text())
    return path


def test_the_packaged_card_is_current():
    metadata = json.loads(PACKAGED.with_suffix(".json").read_text())
    expected = card.render(PACKAGED.name, metadata)
    assert (PACKAGED.parent / card.FILE).read_text() == expected, "run trimtab classifier card --model classifier.onnx"


def test_the_command_writes_it_beside_the_model(model, capsys):
    assert main(["card", "--model", str(model)]) == 0
    text = (model.parent / card.FILE).read_text()
    assert capsys.readouterr().out == f"{model.parent / card.FILE}\n"
    assert text.startswith("# Model card: small.onnx\n")
    assert "`small.json`" in text
    assert "$" not in text


def test_every_source_is_named_with_its_licence(model):
    metadata = json.loads(model.with_suffix(".json").read_text())
    text = card.render("small.onnx", metadata)
    for source in sources.SOURCES:
        assert f"| {source.name} | {source.upstream} | {source.licence} | " in text


def test_a_model_that_was_just_trained_has_a_card(tmp_path):
    examples = sources.load(labelled.write(tmp_path))
    _, metadata = train.train(examples, "train it", Recipe(hidden=8, epochs=1))
    text = card.render("new.onnx", metadata)
    assert "| Trained by | `train it` |" in text
    assert "| class accuracy, templates that were not seen | no rows |" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is absent; train the model"),
        ("{}", "is not its metadata (KeyError('figures'))"),
        ("[", "is not its metadata (JSONDecodeError"),
        ('{"figures": 3}', "is not its metadata (TypeError"),
    ],
    ids=["absent", "empty", "cut off", "another form"],
)
def test_bad_metadata_are_named(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "m.json").write_text(content)
    assert main(["card", "--model", str(tmp_path / "m.onnx")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --model ")
    assert message in error
    assert not (tmp_path / card.FILE).exists()
