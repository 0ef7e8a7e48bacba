"""A simulated vLLM: its API, errors, metrics and timing without a model or a GPU (`trimtab engine-sim MODEL ...`).

It takes the argv of `vllm serve`, answers with deterministic pseudo-words and spends the time that the capacity model
(`trimtab_crds.capacity`) predicts. It is held to the real engine by `tests/contract/engine`.
"""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the simulated engine with the arguments that would follow `vllm serve`; the exit status."""
    from trimtab_cli.engine_sim.server import run

    return run(argv)


__all__ = ["main"]
