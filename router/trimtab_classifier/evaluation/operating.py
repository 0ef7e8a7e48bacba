"""Where a router works: the most accurate of its points that a budget of cost allows.

The accuracy of a point is known from few rows and wobbles from one set of rows to the next, its cost hardly does. The
cheapest point that seems accurate enough is therefore one that was lucky, and what a budget leaves is better spent on
accuracy.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

RESERVE: Final = 0.05
"""Share of a bar that a budget leaves free, as cost differs a little between rows to learn from and judged ones."""

SURE: Final = 2.0
"""Standard errors by which the rows to learn from must speak against a point."""


def budget(bar: float) -> float:
    """What may be spent on the rows to learn from, so that judged rows stay below `bar`."""
    return bar * (1 - RESERVE)


@dataclass(frozen=True, slots=True)
class Points:
    """Candidates as the rows to learn from show them, one entry each."""

    cost: Doubles
    """Over that of the single option."""
    difference: Doubles
    """Accuracy minus that of the single option."""
    error: Doubles
    """Standard error of the difference."""

    @classmethod
    def of(cls, cost: Doubles, kept: Doubles, weight: Doubles | None = None) -> Self:
        """From the cost of every point and what its accuracy differs on every row [points, rows]."""
        weight = np.ones(kept.shape[1]) if weight is None else weight
        share = weight / weight.sum()
        difference = kept @ share
        error = np.sqrt(((kept - difference[:, None]) ** 2) @ share**2)
        return cls(cost, np.asarray(difference, np.float64), np.asarray(error, np.float64))

    def best(self, spend: float, aim: float) -> int:
        """The most accurate point that costs at most `spend`, the cheaper of equals.

        Where the rows are sure that it misses the difference `aim`, the cheapest point that reaches it; failing that,
        the most accurate of all.
        """
        affordable = np.flatnonzero(self.cost <= spend)
        if len(affordable):
            place = affordable[np.lexsort((self.cost[affordable], -self.difference[affordable]))[0]]
            if self.difference[place] + SURE * self.error[place] >= aim:
                return int(place)
        enough = np.flatnonzero(self.difference >= aim)
        return int(enough[self.cost[enough].argmin()]) if len(enough) else int(self.difference.argmax())
