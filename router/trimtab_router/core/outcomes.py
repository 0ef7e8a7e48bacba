"""What was learned of answers: how often an arm (tier, budget, strategy) is right for a class, and how sure that is."""

from dataclasses import dataclass
from math import sqrt
from typing import Final

Z_95: Final = 1.959964
"""Normal quantile of a two-sided 95 % interval."""
PRIOR_WEIGHT: Final = 10.0
"""Judged answers that the class-free prior counts for: few enough for a class to have its own way after some dozens."""


@dataclass(frozen=True, slots=True, order=True)
class Arm:
    """One way to answer."""

    tier: str
    thinking_tokens: int
    strategy: str = "single"

    def __str__(self) -> str:
        spent = "" if self.strategy == "single" else f" {self.strategy}"
        return f"{self.tier}/{self.thinking_tokens}{spent}"


@dataclass(frozen=True, slots=True)
class Beta:
    """A Beta distribution over the share of right answers."""

    right: float
    wrong: float

    @property
    def mean(self) -> float:
        """Expected share, 0..1."""
        return self.right / (self.right + self.wrong)

    @property
    def variance(self) -> float:
        """Of the share."""
        total = self.right + self.wrong
        return self.right * self.wrong / (total * total * (total + 1))

    def interval(self) -> tuple[float, float]:
        """About 95 %, by the normal approximation, within 0..1."""
        half = Z_95 * sqrt(self.variance)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)


def prior(right: float, judged: int) -> float:
    """Mean of an arm over all classes: Laplace's rule, so that nothing known is one half."""
    return (right + 1) / (judged + 2)


def posterior(right: float, judged: int, prior_mean: float, weight: float = PRIOR_WEIGHT) -> Beta:
    """The class's own counts, shrunk to the class-free mean of the arm."""
    return Beta(weight * prior_mean + right, weight * (1 - prior_mean) + judged - right)


def wilson(right: float, judged: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (1927): what the counts alone say, without a prior; 0..1 when nothing is known."""
    if judged <= 0:
        return 0.0, 1.0
    share, square = right / judged, z * z
    centre = (share + square / (2 * judged)) / (1 + square / judged)
    half = z / (1 + square / judged) * sqrt(share * (1 - share) / judged + square / (4 * judged * judged))
    return max(0.0, centre - half), min(1.0, centre + half)
