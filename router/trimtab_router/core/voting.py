"""When to stop sampling, and who wins: self-consistency with early stop.

Answers are keys (`answers.Answer.key`) in the order in which they came; an empty key is no answer and no vote.
Posterior: stop when the first answer beats the second in the long run with this probability (Adaptive-Consistency,
arXiv 2305.11860). Window: stop when the last answers are all the same (ESC, arXiv 2401.10480). Every rule also
stops when the samples that are left cannot change the winner.

    state: votes = Voting(Posterior(0.95), max_samples=40, wave=4)
    votes.more(answers)    how many samples to start next, 0 = stop
    votes.verdict(answers) who wins
    votes.replay(answers)  the verdict on recorded answers, drawn as it would have drawn them
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Literal


@dataclass(frozen=True, slots=True)
class Posterior:
    """Stops when P(first answer beats the second) reaches `threshold` (0.5 to 1)."""

    threshold: float = 0.95

    def decided(self, answers: Sequence[str]) -> bool:
        """The answers so far are enough."""
        first, second = _leading_two(answers)
        return first > 0 and lead_probability(first, second) >= self.threshold


@dataclass(frozen=True, slots=True)
class Window:
    """Stops when the last `size` answers are the same."""

    size: int = 5

    def decided(self, answers: Sequence[str]) -> bool:
        """The answers so far are enough."""
        last = answers[-self.size :]
        return len(last) == self.size and last[0] != "" and len(set(last)) == 1


@dataclass(frozen=True, slots=True)
class AllSamples:
    """Takes every sample."""

    def decided(self, answers: Sequence[str]) -> bool:  # noqa: ARG002 - the rules share one signature
        """Never before the last one."""
        return False


Rule = Posterior | Window | AllSamples
Ending = Literal["Decided", "CannotChange", "AllSamples", "Running"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a vote."""

    winner: int
    """Index of the first sample with the winning answer; -1 without samples."""
    key: str
    votes: int
    samples: int
    ending: Ending

    @property
    def agreement(self) -> float:
        """Share of the samples that gave the winning answer."""
        return self.votes / self.samples if self.samples else 0.0


@dataclass(frozen=True, slots=True)
class Voting:
    """How one query is sampled."""

    rule: Rule
    max_samples: int
    wave: int = 1
    """The most samples that run at the same time."""

    def ending(self, answers: Sequence[str]) -> Ending:
        """Why to stop, or Running."""
        if self.rule.decided(answers):
            return "Decided"
        if len(answers) >= self.max_samples:
            return "AllSamples"
        first, second = _leading_two(answers)
        return "CannotChange" if first - second > self.max_samples - len(answers) else "Running"

    def more(self, answers: Sequence[str], running: int = 0) -> int:
        """Samples to start now, with `running` on their way; 0 also when there is nothing to do but wait.

        Never more than could be needed: the fewest that would end the vote if they all agreed with the leader or with
        the last one.
        """
        if self.ending(answers) != "Running":
            return 0
        hopes = {_leader(answers), *answers[-1:]} - {""} or {"any"}
        fewest = min(self._missing(answers, hope) for hope in hopes)
        return max(min(self.wave, fewest) - running, 0)

    def _missing(self, answers: Sequence[str], hope: str) -> int:
        """Samples until the vote ends, if all of them say that."""
        hoped = list(answers)
        while self.ending(hoped) == "Running":
            hoped.append(hope)
        return len(hoped) - len(answers)

    def verdict(self, answers: Sequence[str]) -> Verdict:
        """Who wins by the answers so far."""
        leader = _leader(answers)
        winner = answers.index(leader) if answers else -1
        return Verdict(winner, leader, answers.count(leader), len(answers), self.ending(answers))

    def replay(self, answers: Sequence[str]) -> Verdict:
        """The verdict on recorded answers; it uses no more of them than sampling would have drawn."""
        drawn = 0
        while drawn < len(answers) and (more := self.more(answers[:drawn])):
            drawn = min(drawn + more, len(answers))
        return self.verdict(answers[:drawn])


@lru_cache(maxsize=4096)
def lead_probability(first: int, second: int) -> float:
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), a flat prior over which of two answers is the more frequent.

    For whole counts that is exactly the share of fair coin throws, `first + second + 1` of them, with at most `first`
    heads.
    """
    throws = first + second + 1
    return float(sum(comb(throws, heads) for heads in range(first + 1)) / 2**throws)


def _counts(answers: Sequence[str]) -> list[tuple[str, int]]:
    """Answers by votes; of equals the one that came first."""
    return Counter(a for a in answers if a).most_common()


def _leader(answers: Sequence[str]) -> str:
    counts = _counts(answers)
    return counts[0][0] if counts else ""


def _leading_two(answers: Sequence[str]) -> tuple[int, int]:
    counts = [*(n for _, n in _counts(answers)[:2]), 0, 0]
    return counts[0], counts[1]
