"""The model card of a trained file: its metadata set into the words of `card.md`."""

import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

from trimtab_classifier import features, graph, sources, synthetic
from trimtab_classifier.network import Recipe

FILE: Final = "README.md"
_UPSTREAM: Final = {source.name: source.upstream for source in sources.SOURCES} | {
    synthetic.SOURCE: "templates of Trimtab"
}
_FIGURES: Final = (
    "class_accuracy",
    "class_accuracy_labelled_sources",
    "class_accuracy_unseen_templates",
    "class_ece",
    "gain_correlation",
)


def _data(data: dict[str, Any]) -> str:
    lines = (f"| {name} | {_UPSTREAM[name]} | {e['licence']} | {e['rows']:,} |" for name, e in data.items())
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "no rows" if value is None else f"{value:.3f}"


def render(model: str, metadata: dict[str, Any]) -> str:
    """The card of the file named `model`; KeyError when its metadata lack an entry."""
    figures = metadata["figures"]
    gains = (f"{name} {gain:.3f}" for name, gain in figures["class_gain"].items())
    words = Template(resources.files("trimtab_classifier").joinpath("card.md").read_text("utf-8"))
    return words.substitute(
        {name: _figure(figures[name]) for name in _FIGURES},
        name=model,
        metadata=Path(model).with_suffix(".json").name,
        version=metadata["version"],
        sha256=metadata["sha256"],
        command=metadata["command"],
        megabytes=f"{metadata['bytes'] / 1e6:.1f}",
        classes=len(metadata["classes"]),
        buckets=f"{metadata['inputs']['buckets']:,}",
        dense=metadata["inputs"]["dense"],
        hidden=Recipe().hidden,
        opset=graph.OPSET,
        cut_chars=f"{features.HEAD_CHARS + features.MIDDLE_CHARS + features.TAIL_CHARS:,}",
        system_chars=features.SYSTEM_CHARS,
        rows=f"{sum(entry['rows'] for entry in metadata['data'].values()):,}",
        held_out_rows=f"{figures['held_out_rows']:,}",
        data=_data(metadata["data"]),
        class_gain=", ".join(gains),
    )


def write(model: Path) -> Path:
    """Writes the card beside the model and returns its path.

    Raises ValueError when the metadata beside the model are absent or of another form.
    """
    beside = model.with_suffix(".json")
    if not beside.is_file():
        raise ValueError(f"--model {model}: {beside} is absent; train the model, which writes both")
    try:
        text = render(model.name, json.loads(beside.read_text("utf-8")))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"--model {model}: {beside} is not its metadata ({error!r}); train the model again") from error
    path = model.parent / FILE
    path.write_text(text, "utf-8")
    return path
