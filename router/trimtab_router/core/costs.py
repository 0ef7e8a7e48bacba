"""What answers cost: the price of GPU time, and how many answers a strategy may ask for."""

from typing import Final

from trimtab_crds.strategyspec import StrategyType
from trimtab_crds.wire import PoolConfig, StrategyConfig


def price(pool: PoolConfig, prompt_tokens: int, output_tokens: int) -> float:
    """Price of the GPU time of a prompt and its output on a pool, currency units; 0 where the capacity is unknown."""
    gpu_seconds = prompt_tokens * pool.prompt_token_seconds + output_tokens * pool.output_token_seconds
    return gpu_seconds / 3600 * pool.gpu_hour_milli / 1000


_ONE_ANSWER: Final = frozenset({StrategyType.SINGLE, StrategyType.SHORT_DRAFT, StrategyType.BUDGET_FORCING})


def samples(strategy: StrategyConfig) -> int:
    """The most answers of the tier that the strategy asks for."""
    return 1 if strategy.type in _ONE_ANSWER else strategy.samples


def least_thinking(strategy: StrategyConfig, thinking_tokens: int) -> int:
    """Thinking tokens that the strategy asks for at least, within the budget."""
    if strategy.type is not StrategyType.BUDGET_FORCING or strategy.forcing is None:
        return 0
    return min(strategy.forcing.min_thinking_tokens, thinking_tokens)
