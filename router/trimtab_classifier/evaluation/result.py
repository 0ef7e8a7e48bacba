"""One figure with its interval and baselines."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from trimtab_classifier.evaluation.curves import Picture


@dataclass(frozen=True, slots=True)
class Result:
    """A figure of the evaluation; `bar` is what it should reach and `higher` says in which direction."""

    id: str
    value: float
    low: float
    high: float
    n: int
    baselines: dict[str, float]
    bar: float | None = None
    higher: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached, and with it the accuracy that the figure asks for; None without a bar."""
        if self.bar is None:
            return None
        if not self.details.get("accuracy_kept", True):
            return False
        return self.value >= self.bar if self.higher else self.value <= self.bar

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded; NaN becomes null."""
        found: dict[str, Any] = _plain(asdict(self))
        del found["picture"]
        return found | {"met": self.met}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def table(results: list[Result]) -> str:
    """The figures for a terminal."""
    lines = [f"{'id':<26} {'value':>7} {'95 %':>16} {'n':>6} {'bar':>8}  baselines"]
    for result in results:
        sign = "" if result.bar is None else f"{'>=' if result.higher else '<='} {result.bar:g}"
        mark = {True: " ok", False: " --", None: ""}[result.met]
        others = ", ".join(f"{name} {value:.3f}" for name, value in result.baselines.items())
        band = f"[{result.low:.3f}, {result.high:.3f}]"
        lines.append(f"{result.id:<26} {result.value:>7.3f} {band:>16} {result.n:>6} {sign:>8}{mark}  {others}")
    return "\n".join(lines)
