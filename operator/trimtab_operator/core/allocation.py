"""How many replicas each pool on one kind of GPU should have under one budget: marginal value per GPU.

The worth of `n` replicas is `weight x GPUs x E[min(D, u n)]`: the GPU-work of the tier's demand that they serve, with
`u` the planned utilization and `D` the demand over the next cold start. It is concave in `n`, so that exchanging the
cheapest replica for the most valuable one until no exchange pays is optimal up to the size of one replica. It starts
from what runs now instead of from nothing, so that it moves as few replicas as it can.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import ceil, inf

#: Demand over the next cold start relative to the window's mean: equally likely outcomes. Taking the last value as the
#: forecast for 30 minutes errs by 10 to 18 % (WAPE) on the public three-tier rates of ServeGen (arXiv 2505.09999).
FORECAST_RATIOS = (0.75, 0.9, 1.0, 1.1, 1.25)
#: A pool gives replicas back only when it would not miss them at this multiple of its demand.
RELEASE_MARGIN = 1.2
#: A receiver's gain must exceed the donors' loss by this factor: trading near-equals is churn.
EXCHANGE_MARGIN = 1.05
#: Share of a replica below which a gain is the rounding of floats.
NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class Curve:
    """What a tier's replicas are worth. `work` is the mean demand in busy replicas."""

    weight: float
    gpus: int
    work: float
    utilization: float

    def served(self, replicas: int) -> float:
        """Expected GPU-work served by that many replicas."""
        capacity = self.utilization * replicas
        return self.gpus * sum(min(self.work * ratio, capacity) for ratio in FORECAST_RATIOS) / len(FORECAST_RATIOS)

    def value(self, replicas: int) -> float:
        """Weighted GPU-work served."""
        return self.weight * self.served(replicas)

    def gain(self, replicas: int) -> float:
        """Value per GPU of one replica more."""
        return (self.value(replicas + 1) - self.value(replicas)) / self.gpus

    def loss(self, replicas: int) -> float:
        """Value per GPU of the last replica."""
        return self.gain(replicas - 1)

    def coverage(self, replicas: int) -> float:
        """Share of the mean demand that these replicas serve, 0 to 1."""
        return 1.0 if self.work == 0 else min(1.0, self.utilization * replicas / self.work)

    @property
    def need(self) -> int:
        """Replicas that serve the mean demand at the planned utilization."""
        return self.need_at(1.0)

    @property
    def peak_need(self) -> int:
        """Replicas that serve the highest demand that is likely before a new replica could help."""
        return self.need_at(max(FORECAST_RATIOS))

    def need_at(self, scale: float) -> int:
        """Replicas that serve that multiple of the mean demand."""
        return ceil(self.work * scale / self.utilization - NEGLIGIBLE)


@dataclass(frozen=True, slots=True)
class Seat:
    """A pool at the table: its bounds, what it has now, and its curve (None: demand or capacity unknown, hold it)."""

    name: str
    gpus: int
    low: int
    high: int
    now: int
    weight: int
    curve: Curve | None

    @property
    def base(self) -> int:
        """What it has now, within its bounds."""
        return min(max(self.now, self.low), self.high)


Counts = dict[str, int]


def held(seats: Iterable[Seat], counts: Mapping[str, int]) -> int:
    """GPUs of these counts."""
    return sum(seat.gpus * counts[seat.name] for seat in seats)


def value(seats: Iterable[Seat], counts: Mapping[str, int]) -> float:
    """Worth of these counts, over the pools with a curve."""
    return sum(seat.curve.value(counts[seat.name]) for seat in seats if seat.curve)


def demand_value(seats: Iterable[Seat]) -> float:
    """Worth of serving everything."""
    return sum(seat.curve.weight * seat.gpus * seat.curve.work for seat in seats if seat.curve)


def gain_points(seats: Sequence[Seat], before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Rise of the weighted share of demand served, in points of 100."""
    whole = demand_value(seats)
    return 0.0 if whole == 0 else 100 * (value(seats, after) - value(seats, before)) / whole


def fit(seats: Sequence[Seat], budget: float) -> Counts:
    """What the pools have now, cut down to the budget where it hurts least; never below a pool's lower bound."""
    counts = {seat.name: seat.base for seat in seats}
    heap = [_cheapest(seat, counts) for seat in seats if counts[seat.name] > seat.low]
    heapify(heap)
    by_name, over = {seat.name: seat for seat in seats}, held(seats, counts) - budget
    while over > 0 and heap:
        seat = by_name[heappop(heap)[-1]]
        counts[seat.name] -= 1
        over -= seat.gpus
        if counts[seat.name] > seat.low:
            heappush(heap, _cheapest(seat, counts))
    return counts


def _cheapest(seat: Seat, counts: Mapping[str, int]) -> tuple[float, float, float, str]:
    """Known losses first, the smallest first; pools of unknown demand last, light and large ones first."""
    count = counts[seat.name]
    if seat.curve is None:
        return inf, seat.weight, seat.low - count, seat.name
    return seat.curve.loss(count), 0, -seat.curve.coverage(count), seat.name


def fill(seats: Sequence[Seat], counts: Mapping[str, int], budget: float) -> Counts:
    """Growth into free GPUs only, the most valuable replica first."""
    return _Exchange(seats, counts, budget, donors=False).run()


def improve(seats: Sequence[Seat], counts: Mapping[str, int], budget: float) -> Counts:
    """Growth into free GPUs and exchanges between pools, until no exchange pays."""
    return _Exchange(seats, counts, budget, donors=True).run()


class _Exchange:
    """One run of the exchange; two heaps with stale entries skipped."""

    def __init__(self, seats: Sequence[Seat], counts: Mapping[str, int], budget: float, *, donors: bool) -> None:
        self.counts: Counts = dict(counts)
        self.free = budget - held(seats, counts)
        self.curves = {seat.name: (seat, seat.curve) for seat in seats if seat.curve}
        self.receivers: list[tuple[float, float, str, int]] = []
        self.donors: list[tuple[float, float, str, int]] = []
        self.with_donors = donors
        for name in self.curves:
            self._offer(name)

    def run(self) -> Counts:
        """Serve receivers, best first, until none can be served."""
        while self.receivers:
            negative_gain, _, name, count = heappop(self.receivers)
            if count == self.counts[name]:
                self._serve(name, -negative_gain)
        return self.counts

    def _serve(self, name: str, gain: float) -> None:
        """Give one replica to `name` if the GPUs are free or donors lose less than it gains; else it is done."""
        seat, _ = self.curves[name]
        donors, freed, loss = [], 0, 0.0
        while self.free + freed < seat.gpus:
            donor = self._cheapest_donor(name)
            if donor is None:
                break
            given = self.curves[donor][0].gpus
            loss += self._loss(donor) * given
            freed += given
            self.counts[donor] -= 1
            self._offer_donor(donor)
            donors.append(donor)
        if self.free + freed < seat.gpus or gain * seat.gpus <= EXCHANGE_MARGIN * loss:
            for donor in donors:
                self.counts[donor] += 1
                self._offer_donor(donor)
            return
        self.counts[name] += 1
        self.free += freed - seat.gpus
        for changed in {name, *donors}:
            self._offer(changed)

    def _cheapest_donor(self, receiver: str) -> str | None:
        skipped, found = [], None
        while self.donors and found is None:
            entry = heappop(self.donors)
            if entry[3] != self.counts[entry[2]]:
                continue
            if entry[2] == receiver:
                skipped.append(entry)
            else:
                found = entry[2]
        for entry in skipped:
            heappush(self.donors, entry)
        return found

    def _loss(self, name: str) -> float:
        seat, curve = self.curves[name]
        return curve.loss(self.counts[seat.name])

    def _offer(self, name: str) -> None:
        """Put the pool's next replica on the receivers' heap, and its last one on the donors'."""
        seat, curve = self.curves[name]
        count = self.counts[name]
        if count < seat.high and (gain := curve.gain(count)) > NEGLIGIBLE * curve.weight:
            heappush(self.receivers, (-gain, curve.coverage(count), name, count))
        self._offer_donor(name)

    def _offer_donor(self, name: str) -> None:
        seat, curve = self.curves[name]
        count = self.counts[name]
        if self.with_donors and count > seat.low:
            heappush(self.donors, (curve.loss(count), -curve.coverage(count), name, count))


def release(seats: Sequence[Seat], counts: Mapping[str, int]) -> Counts:
    """Give back replicas that a pool would not miss even at RELEASE_MARGIN times its demand; never below its bound."""
    kept = dict(counts)
    for seat in seats:
        if seat.curve is None:
            continue
        enough = seat.curve.need_at(max(FORECAST_RATIOS) * RELEASE_MARGIN)
        kept[seat.name] = min(kept[seat.name], max(seat.low, enough))
    return kept
