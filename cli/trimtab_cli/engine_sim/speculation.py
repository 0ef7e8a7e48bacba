"""Speculative decoding in the simulator: how many drafted tokens a sequence gets accepted in a step.

Each drafted token is accepted with a fixed probability until the first that is not (the independence assumption of
arXiv 2211.17192), drawn from the sequence and its position, so that a run repeats.
"""

from dataclasses import dataclass

from trimtab_cli.engine_sim.noise import uniform

#: Acceptance per drafted token and the draft's share of a step's time; rough published means on mixed chat and code.
METHODS = {
    "ngram": (0.30, 0.0),
    "ngram_gpu": (0.30, 0.0),
    "suffix": (0.45, 0.0),
    "eagle": (0.65, 0.08),
    "eagle3": (0.72, 0.08),
    "mtp": (0.75, 0.06),
    "draft_model": (0.75, 0.30),
    "dflash": (0.80, 0.10),
    "dspark": (0.80, 0.10),
}


@dataclass(frozen=True, slots=True)
class Speculation:
    """`tokens` drafted per step, each accepted with probability `acceptance`; `draft_cost` as a share of the step.

    `by_batch` holds (from, to, tokens) rows that replace `tokens` for batches of that size
    (`num_speculative_tokens_per_batch_size`).
    """

    tokens: int
    acceptance: float
    draft_cost: float = 0.0
    by_batch: tuple[tuple[int, int, int], ...] = ()

    def draft_tokens(self, batch: int) -> int:
        """Tokens drafted for each sequence of a batch of that size."""
        for low, high, tokens in self.by_batch:
            if low <= batch <= high:
                return tokens
        return self.tokens

    def accepted(self, key: int, position: int, tokens: int) -> int:
        """How many of that many drafted tokens are accepted there."""
        for count in range(tokens):
            if uniform(key, position + count) >= self.acceptance:
                return count
        return tokens


NO_SPECULATION = Speculation(tokens=0, acceptance=0.0)
