"""Names of children: valid for every kind, and never shared by two owners."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_operator.core.names import engine_host, engine_name, label_value, router_name

SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
SUBDOMAINS = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?){0,4}", fullmatch=True
)


@pytest.mark.parametrize(
    ("pool", "name"),
    [
        pytest.param("low", "low-engine", id="a fitting name stays readable"),
        pytest.param("vllm", "vllm-engine", id="never vllm itself"),
        pytest.param("7b", "x7b-925a7bf1-engine", id="a digit first"),
        pytest.param("qwen3.5-9b", "qwen3-5-9b-ab86d898-engine", id="a dot"),
        pytest.param("a" * 63, f"{'a' * 47}-7d3e74a0-engine", id="a long name"),
    ],
)
def test_names_of_engines(pool: str, name: str):
    assert engine_name(pool) == name


def test_the_host_is_the_headless_service_in_its_namespace():
    assert engine_host("low", "team-a") == "low-engine.team-a.svc"


@given(SUBDOMAINS)
def test_every_name_of_a_resource_gives_valid_names_of_children(name: str):
    assert SERVICE.fullmatch(engine_name(name))
    assert SERVICE.fullmatch(router_name(name))
    assert LABEL.fullmatch(label_value(name))


@given(SUBDOMAINS, SUBDOMAINS)
def test_two_owners_never_share_a_child(one: str, other: str):
    names = {engine_name(one), router_name(one), engine_name(other), router_name(other)}
    assert len(names) == (2 if one == other else 4)
    assert (label_value(one) == label_value(other)) == (one == other)
