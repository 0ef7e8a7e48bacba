"""Accuracy as a function of spent compute, never more than the points say.

Three forms, each a weighted least-squares line in one feature of the compute `x` (thinking tokens, or samples):

- constant: `a`;
- log-linear: `a + b log2(1 + x/o)`;
- power: `a - b (1 + x/o)^-c`, which saturates at `a`; `c` is one of a few values.

`o` is the axis's own unit of little: below it a difference in budget is hardly one. A form that rises is taken only
where it explains so much more than the constant that chance would in less than one of a hundred flat worlds, and the
power form only where it beats the line. A falling line is a constant: more compute is never predicted to hurt. The
interval of a constant's worth is that of the line that was not sure enough. Nothing is said outside of the measured
range, and where no form fits all points (accuracy against a cap on the answer is S-shaped) the range begins above those
that keep it from fitting. Errors of the points are taken as independent: points on the same questions move together, so
their differences are surer than it says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2, sqrt
from typing import Final, Literal

from trimtab_router.core.outcomes import Z_95, wilson

MIN_POINTS: Final = 3
"""Two points make a line of any noise."""
SURE: Final = 6.635
"""Chi-square with one degree of freedom, 99 %: what a rise must explain beyond a constant."""
_BETTER: Final = 2.0
"""What saturation must explain beyond the line: the price of one more parameter (Akaike, 1974)."""
_POWERS: Final = (0.5, 1.0, 2.0)
LITTLE_THINKING: Final = 64.0
LITTLE_SAMPLES: Final = 1.0

Form = Literal["constant", "log-linear", "power"]


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy that was measured at one amount of compute."""

    compute: float
    right: float
    judged: float

    @property
    def share(self) -> float:
        """Of right answers."""
        return self.right / self.judged

    @property
    def variance(self) -> float:
        """Of that share, by the width of Wilson's interval, which is never 0."""
        low, high = wilson(self.right, self.judged)
        return ((high - low) / (2 * Z_95)) ** 2


@dataclass(frozen=True, slots=True)
class Value:
    """An accuracy, or a difference of two, with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A fitted form; `a` and `b` with their variances and covariance."""

    form: Form
    power: float
    """Of the form power; 0 else."""
    little: float
    a: float
    b: float
    var_a: float
    var_b: float
    cov: float
    rise: tuple[float, float]
    """95 % interval of `b`; of the rejected log-linear form's, where the form is constant."""
    low: float
    """Least measured compute."""
    high: float
    """Most measured compute."""

    def at(self, compute: float) -> Value | None:
        """Accuracy at this compute, within 0..1; None outside of the measured range."""
        if not self.low <= compute <= self.high:
            return None
        z = self._feature(compute)
        half = Z_95 * sqrt(max(0.0, self.var_a + 2 * z * self.cov + z * z * self.var_b))
        return Value(*(min(1.0, max(0.0, self.a + self.b * z + d)) for d in (0.0, -half, half)))

    def worth(self, before: float, after: float) -> Value | None:
        """What going from one compute to another adds to the accuracy; None where either was not measured."""
        here, there = self.at(before), self.at(after)
        if here is None or there is None:
            return None
        rising: Form = "log-linear" if self.form == "constant" else self.form
        feature = _feature(rising, self.power)
        step = feature(after / self.little) - feature(before / self.little)
        low, high = sorted(max(-1.0, min(1.0, rise * step)) for rise in self.rise)
        mean = there.mean - here.mean
        return Value(mean, min(low, mean), max(high, mean))

    def doubling(self, compute: float) -> Value | None:
        """What twice the compute adds; None where that, or nothing twice, was not measured."""
        return self.worth(compute, 2 * compute) if compute > 0 else None

    def _feature(self, compute: float) -> float:
        return _feature(self.form, self.power)(compute / self.little)


@dataclass(frozen=True, slots=True)
class _Line:
    a: float
    b: float
    var_a: float
    var_b: float
    cov: float
    misfit: float
    """Weighted sum of squared errors."""


def fit(points: Sequence[Point], little: float = LITTLE_THINKING) -> Curve | None:
    """The form that the points support; None where fewer than three different amounts of compute follow one."""
    known = sorted((p for p in points if p.judged > 0), key=lambda p: p.compute)
    for start in range(len(known)):
        upper = known[start:]
        if len({p.compute for p in upper}) < MIN_POINTS:
            break
        best = _best(upper, little)
        if best.line.misfit <= _most_misfit(len(upper) - best.parameters):
            return best.curve(upper, little)
    return None


def _most_misfit(spare: int) -> float:
    """Chi-square that chance exceeds in one of a hundred fits (Wilson and Hilferty, 1931)."""
    part = 2 / (9 * spare)
    return spare * float((1 - part + 2.326 * sqrt(part)) ** 3)


def _best(known: Sequence[Point], little: float) -> "_Fitted":
    flat = _constant(known)
    best = _Fitted("constant", 0.0, flat)
    line = _Fitted("log-linear", 0.0, _line(known, little, "log-linear", 0.0))
    if line.rises_on(flat, SURE):
        best = line
    powers = (_Fitted("power", c, _line(known, little, "power", c)) for c in _POWERS)
    power = min(powers, key=lambda found: found.line.misfit)
    if power.rises_on(flat, SURE) and (best.form == "constant" or power.rises_on(best.line, _BETTER)):
        best = power
    return best


@dataclass(frozen=True, slots=True)
class _Fitted:
    form: Form
    power: float
    line: _Line

    def rises_on(self, other: _Line, by: float) -> bool:
        """It rises, and explains that much more than `other`."""
        return self.line.b > 0 and other.misfit - self.line.misfit > by

    @property
    def parameters(self) -> int:
        return 1 if self.form == "constant" else 2

    def curve(self, points: Sequence[Point], little: float) -> Curve:
        """With variances raised where the points scatter more than their own errors say."""
        scale = max(1.0, self.line.misfit / (len(points) - self.parameters))
        rising = _line(points, little, "log-linear", 0.0) if self.form == "constant" else self.line
        half = Z_95 * sqrt(rising.var_b * scale)
        return Curve(
            form=self.form,
            power=self.power,
            little=little,
            a=self.line.a,
            b=self.line.b,
            var_a=self.line.var_a * scale,
            var_b=self.line.var_b * scale,
            cov=self.line.cov * scale,
            rise=(rising.b - half, rising.b + half),
            low=points[0].compute,
            high=points[-1].compute,
        )


def _feature(form: Form, power: float) -> Callable[[float], float]:
    if form == "log-linear":
        return lambda ratio: log2(1 + ratio)
    if form == "power":
        return lambda ratio: -((1 + ratio) ** -power)
    return lambda _: 0.0


def _constant(points: Sequence[Point]) -> _Line:
    weights = [1 / p.variance for p in points]
    mean = sum(w * p.share for w, p in zip(weights, points, strict=True)) / sum(weights)
    misfit = sum(w * (p.share - mean) ** 2 for w, p in zip(weights, points, strict=True))
    return _Line(mean, 0.0, 1 / sum(weights), 0.0, 0.0, misfit)


def _line(points: Sequence[Point], little: float, form: Form, power: float) -> _Line:
    """Weighted least squares in closed form."""
    feature = _feature(form, power)
    rows = [(1 / p.variance, feature(p.compute / little), p.share) for p in points]
    total = sum(w for w, _, _ in rows)
    z_mean = sum(w * z for w, z, _ in rows) / total
    y_mean = sum(w * y for w, _, y in rows) / total
    spread = sum(w * (z - z_mean) ** 2 for w, z, _ in rows)
    b = sum(w * (z - z_mean) * (y - y_mean) for w, z, y in rows) / spread
    a = y_mean - b * z_mean
    misfit = sum(w * (y - a - b * z) ** 2 for w, z, y in rows)
    return _Line(a, b, 1 / total + z_mean**2 / spread, 1 / spread, -z_mean / spread, misfit)
