"""The policies that are ready to apply: recipes are accepted, the router gets its document, rules name real classes."""

import re
from pathlib import Path

import pytest

from trimtab_classifier.labels import CLASSES
from trimtab_cli.compile import compile_files
from trimtab_cli.files import read_valid_resources
from trimtab_operator.core.recipe import resolve

FOLDER = Path(__file__).parents[3] / "examples" / "policies"
USES = (
    *("realtime-chat", "code-completion", "agentic-coding", "long-documents", "search", "math-and-proof"),
    *("high-stakes", "batch", "edge"),
)


def test_there_is_one_for_every_use():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(USES)


@pytest.mark.parametrize("use", USES)
def test_its_pools_run_and_its_router_gets_a_document(use: str):
    file = FOLDER / f"{use}.yaml"
    config = compile_files([str(file)])
    assert config.policy == f"default/{use}"
    assert {rule.name for rule in config.classes} <= set(CLASSES)
    pools = read_valid_resources([str(file)]).pools_of("default")
    assert {pool.name for pool in config.pools} == set(pools)
    for pool in pools.values():
        assert resolve(pool).reasons == (), pool.metadata.name


@pytest.mark.parametrize("use", USES)
def test_it_says_what_it_trades_and_costs(use: str):
    head = (FOLDER / f"{use}.yaml").read_text().partition("apiVersion")[0]
    words = head.replace("\n# ", " ")
    assert "Trades" in words
    assert re.search(r"Expected cost: \d+ % of its dearest plan", words)
