import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from support import labelled
from trimtab_classifier import familiarity, metrics, network, sources, synthetic, tfidf, train
from trimtab_classifier.__main__ import main
from trimtab_classifier.features import Query, encode
from trimtab_classifier.labels import CLASSES
from trimtab_classifier.network import Recipe
from trimtab_router.shell.classifier import PACKAGED

SMALL = Recipe(hidden=8, epochs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return labelled.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def examples(folder):
    return sources.load(folder) + synthetic.generate(per_class=30)


@pytest.fixture(scope="module")
def trained(examples):
    return train.train(examples, "test", SMALL)


def test_the_same_data_give_the_same_bytes(examples, trained):
    assert train.train(examples, "test", SMALL) == trained


def test_other_data_give_other_bytes(examples, trained):
    assert train.train(examples[:-30], "test", SMALL)[0] != trained[0]


def test_the_metadata_describe_the_file(examples, trained):
    model, metadata = trained
    assert metadata["sha256"] == hashlib.sha256(model).hexdigest()
    assert metadata["bytes"] == len(model)
    assert metadata["classes"] == list(CLASSES)
    assert sum(entry["rows"] for entry in metadata["data"].values()) == len(examples)
    assert metadata["data"]["llmrouter"] == {"rows": 90, "licence": "MIT"}
    assert 0 <= metadata["figures"]["class_accuracy"] <= 1


def test_the_exported_graph_computes_what_was_trained(examples):
    learn, held = train.split(examples)
    prepared = train.prepare(examples, learn)
    model = train.fit(prepared, learn, held, SMALL)
    session = ort.InferenceSession(train.export(prepared, model), providers=["CPUExecutionProvider"])
    queries = [examples[row].query for row in held[:40] if not examples[row].query.tools]
    probabilities, gain, tokens, unfamiliar = session.run(None, encode(queries))

    inputs = prepared.scaler.apply(tfidf.encode_rows(queries))
    outputs = network.outputs(model.parameters, inputs)
    logits = outputs[:, : len(train.TEXT_CLASSES)]
    hidden = network.hidden(model.parameters, inputs)
    f = model.familiarity
    total = familiarity.percentile(familiarity.energy(logits), f.energy_knots) + familiarity.percentile(
        familiarity.distance(hidden, f.centres), f.distance_knots
    )
    # The table is int8 in the file, so both sides agree only nearly.
    assert probabilities[:, :-1] == pytest.approx(network.softmax(logits / model.temperature), abs=0.02)
    assert gain == pytest.approx(model.expected_gain(inputs), abs=0.01)
    assert np.log(tokens[:, 0]) == pytest.approx(np.maximum(outputs[:, -2], 0), abs=0.05)
    assert unfamiliar == pytest.approx(familiarity.percentile(total, f.sum_knots), abs=0.1)


def test_a_request_with_tools_is_agentic_and_no_other_is(trained):
    session = ort.InferenceSession(trained[0], providers=["CPUExecutionProvider"])
    probabilities = session.run(["class_probabilities"], encode([Query("hello", tools=True), Query("hello")]))[0]
    assert probabilities[0].tolist() == [0.0] * (len(CLASSES) - 1) + [1.0]
    assert probabilities[1, -1] == 0
    assert probabilities[1].sum() == pytest.approx(1, abs=1e-5)


def test_too_few_examples_say_so(examples):
    with pytest.raises(ValueError, match=r"1 examples are too few to train and to calibrate; give more rows"):
        train.split(examples[:1])


def test_the_command_writes_model_and_metadata(folder, tmp_path, capsys):
    out = tmp_path / "sub" / "model.onnx"
    small = ["--prompts-per-class", "20", "--epochs", "1"]
    assert main(["train", "--data", str(folder), "--out", str(out), *small]) == 0
    metadata = json.loads(out.with_suffix(".json").read_text())
    assert json.loads(capsys.readouterr().out) == metadata
    assert metadata["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    options = "--prompts-per-class 20 --epochs 1"
    assert metadata["command"] == f"python -m trimtab_classifier train --data DIR --out model.onnx {options}"


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_counts_are_checked(value, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--data", "d", "--out", "o", "--epochs", value])
    assert stop.value.code == 2
    assert f"argument --epochs: '{value}' is not a whole number above 0" in capsys.readouterr().err


def test_the_command_says_what_is_wrong_with_the_folder(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "m.onnx")]) == 2
    assert "error: --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [(0.9, 0.9, 0.0), (0.9, 0.5, 0.4), (0.6, 1.0, 0.4)],
    ids=["calibrated", "sure", "shy"],
)
def test_expected_calibration_error(confidence, right, error):
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (100, 1))
    label = np.array([0 if i < right * 100 else 1 for i in range(100)])
    assert metrics.expected_calibration_error(probabilities, label) == pytest.approx(error, abs=1e-6)


def test_the_temperature_cools_confidence_that_is_too_high():
    logits = np.tile(np.array([6.0, 0.0], np.float32), (100, 1))
    label = np.array([0] * 75 + [1] * 25)
    assert metrics.temperature(logits, label) == pytest.approx(5.0)


def test_a_constant_has_no_correlation():
    assert metrics.correlation(np.ones(5, np.float32), np.arange(5, dtype=np.float32)) is None


def test_without_the_extra_the_command_says_what_to_install():
    script = (
        "import sys; sys.modules['onnx'] = None; from trimtab_classifier.__main__ import main; "
        "sys.exit(main(['train', '--data', 'd', '--out', 'o']))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: onnx is not installed; install trimtab with the extra train\n"


@pytest.mark.data
@pytest.mark.skipif("TRIMTAB_DATA" not in os.environ, reason="TRIMTAB_DATA names no folder of labelled queries")
@pytest.mark.timeout(600)
def test_the_packaged_model_is_what_the_command_makes(tmp_path):
    out = tmp_path / "classifier.onnx"
    assert main(["train", "--data", os.environ["TRIMTAB_DATA"], "--out", str(out)]) == 0
    assert out.read_bytes() == PACKAGED.read_bytes()
    assert out.with_suffix(".json").read_text() == PACKAGED.with_suffix(".json").read_text()
