"""The CRDs hold to the rules of structural schemas, to API conventions and to what is committed."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from trimtab_crds.__main__ import FOLDERS, REFERENCE, ROOT, generated, main
from trimtab_crds.manifests import definitions
from trimtab_crds.meta import Rule, Spec, Status, Word
from trimtab_crds.schema import Schema, structural_schema

FORBIDDEN = ("$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "const", "nullable", "exclusiveMinimum", "examples")
KINDS = sorted(definitions())


def root_of(name: str) -> Schema:
    return definitions()[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walk(node["additionalProperties"], f"{path}{{}}")


def fields(name: str, top: str = "") -> list[tuple[str, Schema]]:
    """Everything below `.spec` and `.status`, or below one of them."""
    return [(path, node) for path, node in walk(root_of(name)) if path.startswith(top or (".spec", ".status"))]


@pytest.mark.parametrize("name", KINDS)
def test_the_schema_is_structural(name: str):
    for path, node in walk(root_of(name)):
        assert not set(node) & set(FORBIDDEN), path
        assert node.get("type") in ("object", "array", "string", "integer", "boolean"), path
        assert node.get("additionalProperties") is not False, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node.get("default", 0) is not None, path
        assert ("items" in node) == (node["type"] == "array"), path


@pytest.mark.parametrize("name", KINDS)
def test_every_field_teaches(name: str):
    for path, node in fields(name):
        if not path.endswith(("[]", "{}")):
            assert node["description"].endswith((".", ")")), path
            assert len(node["description"]) >= 6, path


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_whole_and_have_a_lower_bound_where_users_write_them(name: str):
    for path, node in fields(name):
        assert node["type"] != "number", path
        assert node.get("format") not in ("float", "double", "duration", "date-time"), path
        assert node["type"] != "integer" or path.startswith(".status") or "minimum" in node, path


@pytest.mark.parametrize("name", KINDS)
def test_what_rules_walk_over_is_bounded(name: str):
    """The API server estimates the cost of a rule from the largest possible object, and refuses the CRD above it."""
    for path, node in fields(name, ".spec"):
        assert node["type"] != "array" or "maxItems" in node, path
        assert "additionalProperties" not in node or "maxProperties" in node, path


def test_fields_are_camel_case_and_none_is_a_phase():
    names = {path.rpartition(".")[2].strip("[]{}") for kind in KINDS for path, _ in fields(kind)}
    assert all(name[:1].islower() and "_" not in name and "-" not in name for name in names if name)
    assert "phase" not in names


@pytest.mark.parametrize("name", KINDS)
def test_conditions_are_a_map_by_type(name: str):
    conditions = root_of(name)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    fields = {"type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"}
    assert set(conditions["items"]["required"]) == fields


@pytest.mark.parametrize("name", KINDS)
def test_lists_that_are_maps_require_their_key(name: str):
    for path, node in walk(root_of(name)):
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path


@pytest.mark.parametrize("name", KINDS)
def test_the_status_has_a_subresource_no_defaults_and_is_optional(name: str):
    version = definitions()[name]["spec"]["versions"][0]
    assert version["subresources"]["status"] == {}
    assert root_of(name)["required"] == ["spec"]
    assert [path for path, node in walk(root_of(name)["properties"]["status"]) if "default" in node] == []


@pytest.mark.parametrize("name", KINDS)
def test_names_do_not_collide_with_the_gateway_apis_pool(name: str):
    names = definitions()[name]["spec"]["names"]
    assert not set(names["shortNames"]) & {"infpool", "ipool"}
    assert names["categories"] == ["trimtab"]
    assert name == f"{names['plural']}.trimtab.dev.yaml"


def paths_of(definition: dict[str, Any]) -> list[str]:
    """What printer columns and the scale subresource point at, conditions left to their filter."""
    version = definition["spec"]["versions"][0]
    columns = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    return [*columns, *version["subresources"].get("scale", {}).values()]


@pytest.mark.parametrize("path", sorted({p for d in definitions().values() for p in paths_of(d)}))
def test_columns_and_scale_point_at_fields(path: str):
    known = {p for name in KINDS for p, _ in walk(root_of(name))}
    assert path.split("[?", maxsplit=1)[0] in known | {".metadata.creationTimestamp"}


def test_what_is_committed_is_what_the_models_say(capsys: pytest.CaptureFixture[str]):
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_stale_file_is_told_and_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pyproject.toml").touch()
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    (tmp_path / REFERENCE).write_text("old")
    capsys.readouterr()
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[0] == f"stale: {REFERENCE}"
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0


def test_an_installed_package_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([], tmp_path) == 2
    assert "not a checkout of Trimtab; `trimtab crds` prints the definitions" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_chart_ships_the_same_definitions():
    for name in KINDS:
        assert len({(ROOT / folder / name).read_text() for folder in FOLDERS}) == 1
        assert yaml.safe_load((ROOT / FOLDERS[0] / name).read_text()) == definitions()[name]


def test_the_reference_names_every_field_and_every_rule():
    page = generated()[REFERENCE]
    for name in KINDS:
        for path, node in walk(root_of(name)):
            field = path.rpartition(".")[2].strip("[]{}")
            assert not path.startswith((".spec.", ".status.")) or f"`{field}`" in page, path
            assert all(rule["message"] in page for rule in node.get("x-kubernetes-validations", []))


# -- the conversion, on models made for it ----------------------------------------------------------------


class Colour(StrEnum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


class Inner(Spec):
    """An object with a rule, so its default must hold the defaults of its fields."""

    low: int = Field(default=1, description="Low.", ge=0)
    high: int = Field(default=2, description="High.", ge=0)
    colour: Colour = Field(default=Colour.RED, description="A colour.")

    rules = (
        Rule("self.low <= self.high", lambda s: s.low <= s.high, "low {low} is above high {high}; it's 100% wrong"),
    )


class Outer(Spec):
    """One field for every case."""

    inner: Inner = Field(default_factory=Inner, description="Nested, may be absent.")
    maybe: Inner | None = Field(default=None, description="Nested, absent has a meaning.")
    word: Literal["only"] = Field(default="only", description="A constant.")
    names: list[str] = Field(default_factory=list, description="A list.", max_length=4)
    labels: dict[str, str] = Field(default_factory=dict, description="A map.", max_length=4)
    anything: list[dict[str, Any]] = Field(default_factory=list, description="Free objects.", max_length=4)
    needed: int = Field(description="Has no default.", ge=1)


def test_a_model_becomes_a_structural_schema():
    schema = structural_schema(Outer)
    rule = {
        "rule": "self.low <= self.high",
        "messageExpression": r"'low %s is above high %s; it\'s 100%% wrong'.format([self.low, self.high])",
        "message": "low <low> is above high <high>; it's 100% wrong",
    }
    inner = {
        "type": "object",
        "x-kubernetes-validations": [rule],
        "properties": {
            "low": {"type": "integer", "minimum": 0, "default": 1, "description": "Low."},
            "high": {"type": "integer", "minimum": 0, "default": 2, "description": "High."},
            "colour": {"type": "string", "enum": ["red", "blue"], "default": "red", "description": "A colour."},
        },
    }
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert schema == {
        "type": "object",
        "description": "One field for every case.",
        "required": ["needed"],
        "properties": {
            "inner": inner
            | {"description": "Nested, may be absent.", "default": {"low": 1, "high": 2, "colour": "red"}},
            "maybe": inner | {"description": "Nested, absent has a meaning."},
            "word": {"type": "string", "enum": ["only"], "default": "only", "description": "A constant."},
            "names": {
                "type": "array",
                "items": {"type": "string"},
                "maxItems": 4,
                "default": [],
                "description": "A list.",
            },
            "labels": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "maxProperties": 4,
                "default": {},
                "description": "A map.",
            },
            "anything": {
                "type": "array",
                "items": free,
                "maxItems": 4,
                "default": [],
                "description": "Free objects.",
            },
            "needed": {"type": "integer", "minimum": 1, "description": "Has no default."},
        },
    }


def test_a_union_is_refused():
    class Either(Spec):
        """Two types."""

        value: int | str = Field(description="Either.")

    with pytest.raises(ValueError, match="a structural schema has no unions"):
        structural_schema(Either)


def test_a_status_gets_no_defaults():
    class Observed(Status):
        """Observed."""

        count: int = Field(default=3, description="Count.")

    assert structural_schema(Observed)["properties"]["count"] == {"type": "integer", "description": "Count."}


def test_a_rules_sentence_has_the_values_of_paths_and_words():
    word = Word("self.inner.colour", lambda s: s.inner.colour)
    rule = Rule("true", lambda s: False, "inner.low {inner.low} is {shade}; change it", words={"shade": word})
    assert rule.sentence(Outer(needed=1)) == "inner.low 1 is red; change it"
    assert rule.as_schema()["messageExpression"] == (
        "'inner.low %s is %s; change it'.format([self.inner.low, self.inner.colour])"
    )


def test_a_rule_without_values_has_a_plain_message():
    assert Rule("true", bool, "no; change it").as_schema() == {"rule": "true", "message": "no; change it"}
