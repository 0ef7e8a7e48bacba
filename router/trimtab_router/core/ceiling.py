"""The ceiling of one query: every attempt reserves before it starts and settles when it ends.

Tokens are generated tokens, reasoning included. Cost is in whole billionths of the currency unit, rounded up, so that
sums are exact. Seconds are bounded by a deadline that the caller enforces; nothing is granted after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from operator import itemgetter
from typing import Final, Literal

from trimtab_crds.wire import CeilingConfig, PoolConfig
from trimtab_router.core.disaggregated import READS

Bound = Literal["tokens", "seconds", "cost"]
NANOS: Final = 1_000_000_000
POLICY: Final = "policy"
LEAST_TOKENS: Final = 16
"""An attempt that could write less than this is not started."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one query may use; None does not bound."""

    tokens: int | None = None
    seconds: float | None = None
    cost_nanos: int | None = None
    owners: Mapping[Bound, str] = field(default_factory=dict, compare=False)
    """Whose bound each one is: `policy`, `class NAME` or `tenant NAME`."""

    def whose(self, *kinds: Bound) -> str:
        """The owners of these bounds in words, for a sentence."""
        names = dict.fromkeys(self.owners[kind] for kind in kinds if kind in self.owners)
        return " and ".join("the policy's" if name == POLICY else f"{name}'s" for name in names) or "the policy's"

    @property
    def bounds(self) -> bool:
        """Anything is bounded."""
        return not (self.tokens is None and self.seconds is None and self.cost_nanos is None)


def limits(ceilings: Mapping[str, CeilingConfig | None]) -> Limits:
    """The lowest of every bound, by owner; of equal ones it is the first owner's."""
    owners: dict[Bound, str] = {}

    def lowest(kind: Bound, name: str) -> int | None:
        given = [(v, owner) for owner, c in ceilings.items() if c is not None and (v := getattr(c, name)) is not None]
        if not given:
            return None
        value, owners[kind] = min(given, key=itemgetter(0))
        return int(value)

    tokens, seconds, micros = lowest("tokens", "tokens"), lowest("seconds", "seconds"), lowest("cost", "cost_micros")
    return Limits(tokens, seconds, None if micros is None else micros * 1000, owners)


@dataclass(frozen=True, slots=True)
class Price:
    """What tokens of one pool cost, in billionths of the currency unit per million tokens, rounded up."""

    prompt: int
    output: int
    reader: "Price | None" = None
    """Of the pool that reads the prompts, where another one does."""

    @classmethod
    def of(cls, pool: PoolConfig, reader: PoolConfig | None = None) -> "Price":
        """By the pools' GPU price and capacity; zero where the capacity is unknown."""
        nanos_per_second = pool.gpu_hour_milli * 1_000_000 / 3600
        return cls(
            ceil(pool.prompt_token_seconds * nanos_per_second * 1e6),
            ceil(pool.output_token_seconds * nanos_per_second * 1e6),
            None if reader is None else cls.of(reader),
        )

    @property
    def spare(self) -> int:
        """The most tokens that are written only because another engine reads the prompt."""
        return 0 if self.reader is None else READS

    def nanos(self, prompt_tokens: int, output_tokens: int, *, reads: int | None = None, fetched: bool = False) -> int:
        """Of that many tokens, rounded up.

        `reads` replicas have read the prompt for the one that answers, at most READS where that is not known; what it
        has `fetched` it did not read itself.
        """
        total = (0 if fetched else prompt_tokens) * self.prompt + output_tokens * self.output
        if self.reader is not None:
            each = prompt_tokens * self.reader.prompt + self.reader.output
            total += (READS if reads is None else reads) * each
        return -(-total // 1_000_000)


@dataclass(slots=True)
class _Reservation:
    price: Price
    prompt_tokens: int
    tokens: int


class Ledger:
    """What one query has used and has promised to attempts in flight; never above its limits together."""

    __slots__ = ("_open", "deadline", "limits", "spent_nanos", "spent_tokens")

    def __init__(self, limits: Limits, started: float) -> None:
        self.limits = limits
        self.deadline = None if limits.seconds is None else started + limits.seconds
        self.spent_tokens = 0
        self.spent_nanos = 0
        self._open: dict[int, _Reservation] = {}

    @property
    def reserved_tokens(self) -> int:
        """Promised to attempts in flight."""
        return sum(r.tokens + r.price.spare for r in self._open.values())

    @property
    def reserved_nanos(self) -> int:
        """Cost of what is promised."""
        return sum(r.price.nanos(r.prompt_tokens, r.tokens) for r in self._open.values())

    def room(self, price: Price, prompt_tokens: int, wanted: int, now: float) -> int:
        """Tokens that an attempt could be granted now, at most `wanted`."""
        if self.deadline is not None and now >= self.deadline:
            return 0
        tokens = wanted
        if self.limits.tokens is not None:
            tokens = min(tokens, self.limits.tokens - self.spent_tokens - self.reserved_tokens - price.spare)
        if self.limits.cost_nanos is not None:
            left = self.limits.cost_nanos - self.spent_nanos - self.reserved_nanos
            tokens = min(tokens, _affordable(price, prompt_tokens, left, wanted))
        return max(tokens, 0)

    def reserve(self, attempt: int, price: Price, *, prompt_tokens: int, wanted: int, now: float) -> int:
        """Tokens granted to an attempt, 0 when it must not start. `prompt_tokens` is the most that they can be."""
        tokens = self.room(price, prompt_tokens, wanted, now)
        if tokens < min(wanted, LEAST_TOKENS) or tokens == 0:
            return 0
        self._open[attempt] = _Reservation(price, prompt_tokens, tokens)
        return tokens

    def granted(self, attempt: int) -> int:
        """Tokens that an attempt in flight may write."""
        return self._open[attempt].tokens

    def settle(
        self,
        attempt: int,
        *,
        prompt_tokens: int,
        tokens: int,
        complete: bool,
        reads: int = 0,
        fetched: bool = False,
    ) -> None:
        """An attempt has ended with what it really used; see `Price.nanos` for `reads` and `fetched`.

        Nobody knows what an engine wrote after the last event that came of an attempt that was cut or lost: such a one
        counts with all that it was granted. More it cannot be, for engines obey `max_tokens`.
        """
        granted = self._open.pop(attempt)
        price = granted.price
        if complete:
            prompt_tokens, tokens = min(prompt_tokens, granted.prompt_tokens), min(tokens, granted.tokens)
            self.spent_tokens += tokens + min(reads, price.spare)
            self.spent_nanos += price.nanos(prompt_tokens, tokens, reads=min(reads, price.spare), fetched=fetched)
        else:
            self.spent_tokens += granted.tokens + price.spare
            self.spent_nanos += price.nanos(granted.prompt_tokens, granted.tokens)


def _affordable(price: Price, prompt_tokens: int, nanos: int, wanted: int) -> int:
    """The most tokens, up to `wanted`, whose cost is within `nanos`."""
    if price.nanos(prompt_tokens, wanted) <= nanos:
        return wanted
    if price.output == 0:
        return 0
    return max((nanos - price.nanos(prompt_tokens, 0)) * 1_000_000 // price.output, 0)
