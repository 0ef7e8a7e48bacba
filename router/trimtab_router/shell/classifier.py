"""The classifier on the request path: one onnxruntime run for all the queries of a loop tick."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import onnxruntime as ort

from trimtab_classifier.features import Query, encode
from trimtab_classifier.labels import CLASSES
from trimtab_router.core.scores import Scores

PACKAGED: Final = Path(__file__).resolve().parent.parent / "models" / "classifier.onnx"
MAX_BATCH: Final = 16
"""Queries per run: bounds the memory of one run to a few MB whatever the tick brings."""

_OUTPUTS: Final = ("class_probabilities", "gain", "output_tokens", "out_of_domain")


class ClassifierError(Exception):
    """The model cannot be used; the message names the file or provider and the fix."""


class Classifier(Protocol):
    """Predicts class, gain and length of queries."""

    def score(self, queries: Sequence[Query]) -> list[Scores]:
        """One Scores per query, in order."""
        ...


def _metadata(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    loaded: dict[str, Any] = json.loads(beside.read_text("utf-8"))
    return loaded


def _verified(path: Path, metadata: dict[str, Any]) -> bytes:
    try:
        model = path.read_bytes()
    except OSError as error:
        raise ClassifierError(f"classifier {path}: {error.strerror}; give the path of an ONNX file") from error
    wanted, found = metadata.get("sha256"), hashlib.sha256(model).hexdigest()
    if wanted not in (None, found):
        raise ClassifierError(
            f"classifier {path}: sha256 is {found} but {path.with_suffix('.json').name} says {wanted}; "
            "restore the file or retrain, which writes both"
        )
    return model


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return options


def _require_providers(asked: Sequence[str], loaded: Sequence[str]) -> None:
    missing = [name for name in asked if name not in loaded]
    if missing:
        raise ClassifierError(
            f"classifier providers: {', '.join(missing)} did not load, only {', '.join(loaded)} did; "
            "install the extra router-gpu with its CUDA libraries or ask for CPUExecutionProvider"
        )


def _session(path: Path, model: bytes, providers: Sequence[str]) -> ort.InferenceSession:
    _require_providers(providers, ort.get_available_providers())
    try:
        session = ort.InferenceSession(model, _options(), providers=list(providers))
    except Exception as error:
        raise ClassifierError(
            f"classifier {path}: onnxruntime cannot load it ({error}); give a valid ONNX file"
        ) from error
    # onnxruntime falls back to the CPU without an exception, and lists providers whose libraries are missing.
    _require_providers(providers, session.get_providers())
    found = sorted(output.name for output in session.get_outputs())
    if not set(_OUTPUTS).issubset(found):
        raise ClassifierError(
            f"classifier {path}: outputs are {found}, needed are {sorted(_OUTPUTS)}; retrain the model"
        )
    return session


class OnnxClassifier:
    """A packaged or given ONNX model; raises ClassifierError when it or an asked-for provider does not load."""

    def __init__(self, path: Path | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        path = path or PACKAGED
        metadata = _metadata(path)
        model = _verified(path, metadata)
        self._session = _session(path, model, providers)
        self._classes: tuple[str, ...] = tuple(metadata.get("classes", CLASSES))
        self.version: str = str(metadata.get("version", hashlib.sha256(model).hexdigest()[:12]))
        """Version in the metadata, or the start of the file's sha256."""

    def score(self, queries: Sequence[Query]) -> list[Scores]:
        """One Scores per query, in order; the cost has a bound that the length of a prompt cannot move."""
        found: list[Scores] = []
        for start in range(0, len(queries), MAX_BATCH):
            found += self._run(queries[start : start + MAX_BATCH])
        return found

    def _run(self, queries: Sequence[Query]) -> list[Scores]:
        probabilities, gains, lengths, unfamiliar = self._session.run(_OUTPUTS, encode(queries))
        best = probabilities.argmax(axis=1)
        return [
            Scores(
                class_name=self._classes[best[row]],
                class_probability=float(probabilities[row, best[row]]),
                gain=float(gains[row]),
                output_tokens_p50=max(1, round(float(lengths[row, 0]))),
                output_tokens_p90=max(1, round(float(lengths[row].max()))),
                out_of_domain=float(unfamiliar[row]),
            )
            for row in range(len(queries))
        ]
