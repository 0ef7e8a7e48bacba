"""The chart's files fit each other; what Helm makes of them is the contract suite's question."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab_operator.settings import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "trimtab"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = sorted((CHART / "templates").iterdir())


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def leaves(node: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every value that the schema knows, `a.b.c`."""
    node = resolved(node)
    if "properties" not in node:
        yield path.removeprefix(".")
    for name, child in node.get("properties", {}).items():
        yield from leaves(child, f"{path}.{name}")


def value_at(path: str) -> Any:
    value = VALUES
    for part in path.split("."):
        value = value[part]
    return value


KNOWN = [path for path in leaves(SCHEMA) if path != "global"]


@pytest.mark.parametrize("path", KNOWN)
def test_every_value_of_the_schema_has_a_default(path: str):
    value_at(path)


def objects(values: Mapping[str, Any], node: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Values that the schema does not know."""
    node = resolved(node)
    for name, value in values.items():
        child = node.get("properties", {}).get(name)
        if child is None:
            if "additionalProperties" not in node or node["additionalProperties"] is False:
                yield f"{path}.{name}"
        elif isinstance(value, dict) and "properties" in resolved(child):
            yield from objects(value, child, f"{path}.{name}")


def test_the_schema_knows_every_default():
    assert list(objects(VALUES, SCHEMA)) == []


def test_objects_of_the_schema_refuse_what_they_do_not_know():
    def open_objects(node: Mapping[str, Any], path: str) -> Iterator[str]:
        if "properties" in node and node.get("additionalProperties") is not False:
            yield path
        for name, child in node.get("properties", {}).items():
            yield from open_objects(child, f"{path}.{name}")

    assert list(open_objects(SCHEMA, "")) == []


def test_every_value_is_explained_by_a_comment():
    lines = (CHART / "values.yaml").read_text().splitlines()
    unexplained = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r"^[a-zA-Z]+:", line) and not before.startswith("#")
    ]
    # A group explains its entries; these two share the comment of the line above them.
    assert [line.split(":")[0] for line in unexplained] == [
        "metrics",
        "serviceAccount",
        "podAnnotations",
        "tolerations",
        "affinity",
        "fullnameOverride",
    ]


@pytest.mark.parametrize("path", KNOWN)
def test_every_value_has_an_effect(path: str):
    text = "".join(p.read_text() for p in TEMPLATES)
    parents = [path.rsplit(".", n)[0] for n in range(path.count(".") + 1)]
    assert any(f".Values.{p}" in text for p in parents)


def test_templates_use_no_value_that_is_not_there():
    for template in TEMPLATES:
        for path in re.findall(r"\.Values\.([A-Za-z.]+)", template.read_text()):
            value_at(path)


def test_the_operator_reads_every_variable_that_the_chart_sets():
    text = (CHART / "templates" / "deployment.yaml").read_text()
    set_here = set(re.findall(r"name: ((?:TRIMTAB|POD)_[A-Z_]+)", text))
    assert set_here
    assert {name for name in set_here if name not in ENVIRONMENT} == set()


def test_chart_and_distribution_have_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_the_crds_are_the_generated_ones():
    assert sorted(p.name for p in (CHART / "crds").iterdir()) == sorted(
        p.name for p in (ROOT / "crds" / "generated").iterdir()
    )
    for path in (CHART / "crds").iterdir():
        assert path.read_text() == (ROOT / "crds" / "generated" / path.name).read_text()


def test_no_template_names_another_pool():
    """`inferencepools` alone would be the Gateway API's; ours are always with their group."""
    for path in TEMPLATES:
        assert "inference.networking" not in path.read_text()
