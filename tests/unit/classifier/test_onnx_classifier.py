import json
import shutil

import onnxruntime as ort
import pytest

from trimtab_router.shell.classifier import PACKAGED, ClassifierError, OnnxClassifier


@pytest.fixture
def copy(tmp_path):
    shutil.copy(PACKAGED, tmp_path / "model.onnx")
    shutil.copy(PACKAGED.with_suffix(".json"), tmp_path / "model.json")
    return tmp_path / "model.onnx"


def test_a_copy_loads(copy):
    assert OnnxClassifier(copy).version


def test_without_metadata_the_version_is_the_hash(copy):
    copy.with_suffix(".json").unlink()
    assert len(OnnxClassifier(copy).version) == 12


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ClassifierError, match=r"none\.onnx: No such file or directory; give the path of an ONNX file"):
        OnnxClassifier(tmp_path / "none.onnx")


def test_a_changed_file_is_refused(copy):
    copy.write_bytes(copy.read_bytes() + b"\0")
    with pytest.raises(
        ClassifierError, match=r"sha256 is \w{64} but model\.json says \w{64}; restore the file or retrain"
    ):
        OnnxClassifier(copy)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ClassifierError, match=r"bad\.onnx: onnxruntime cannot load it .*; give a valid ONNX file"):
        OnnxClassifier(path)


def test_a_model_with_other_outputs_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value("x", kind, [1])], [value("y", kind, [1])])
    path = tmp_path / "other.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with pytest.raises(ClassifierError, match=r"outputs are \['y'\], needed are \['class_probabilities', 'gain'"):
        OnnxClassifier(path)


def test_a_provider_that_is_not_there_is_refused():
    with pytest.raises(
        ClassifierError, match=r"NoSuchProvider did not load, only .* did; install the extra router-gpu"
    ):
        OnnxClassifier(providers=("NoSuchProvider", "CPUExecutionProvider"))


class FallenBack:
    """A session that was asked for a GPU and runs on the CPU, as onnxruntime does when CUDA's libraries are missing."""

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_session_that_fell_back_to_the_cpu_is_refused(monkeypatch, provider):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [provider, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FallenBack())
    with pytest.raises(ClassifierError, match=f"{provider} did not load, only CPUExecutionProvider did"):
        OnnxClassifier(providers=(provider, "CPUExecutionProvider"))


def test_metadata_may_rename_the_classes(copy):
    from trimtab_classifier.features import Query

    metadata = json.loads(copy.with_suffix(".json").read_text())
    metadata["classes"] = [f"own-{name}" for name in metadata["classes"]]
    copy.with_suffix(".json").write_text(json.dumps(metadata))
    assert OnnxClassifier(copy).score([Query("hello")])[0].class_name.startswith("own-")
