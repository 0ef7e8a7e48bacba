"""The script of a plan's strategy."""

from collections.abc import Callable
from typing import Final

from trimtab_crds.strategyspec import StrategyType
from trimtab_router.core.strategies import climbing, forcing, sampling, verified
from trimtab_router.core.strategies.script import Query, Script

_SCRIPTS: Final[dict[StrategyType, Callable[[Query], Script]]] = {
    StrategyType.SINGLE: climbing.single,
    StrategyType.SELF_CONSISTENCY: sampling.self_consistency,
    StrategyType.MIXED_FORM: sampling.mixed_form,
    StrategyType.BEST_OF_N: verified.best_of_n,
    StrategyType.REFINE: verified.refine,
    StrategyType.CASCADE: climbing.cascade,
    StrategyType.SHORT_DRAFT: climbing.short_draft,
    StrategyType.BUDGET_FORCING: forcing.budget_forcing,
}


def script(query: Query) -> Script:
    """The script of the plan's strategy."""
    return _SCRIPTS[query.strategy.type](query)
