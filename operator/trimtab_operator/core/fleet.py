"""What the rebalancer looks at: pools and the GPUs they hold, tiers and their demand, budgets. Values only.

A quantity that could not be measured is None and never zero: zero demand shrinks a tier, missing demand holds it.
Units: replicas, GPUs, seconds, tokens per second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, isfinite, log10

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import Rebalance, RebalanceMode


@dataclass(frozen=True, slots=True)
class Demand:
    """What a tier is asked for, as the mean over the window."""

    requests_per_second: float
    prompt_tokens_per_second: float
    output_tokens_per_second: float

    @property
    def is_sane(self) -> bool:
        """Every rate is a number, finite and not negative."""
        rates = (self.requests_per_second, self.prompt_tokens_per_second, self.output_tokens_per_second)
        return all(isfinite(rate) and rate >= 0 for rate in rates)

    def rounded(self) -> "Demand":
        """The same to two significant digits, so that noise changes neither the plan nor the status."""
        return Demand(
            two_digits(self.requests_per_second),
            two_digits(self.prompt_tokens_per_second),
            two_digits(self.output_tokens_per_second),
        )


def two_digits(value: float) -> float:
    """`value` rounded to two significant digits."""
    return 0.0 if value == 0 else round(value, 1 - floor(log10(abs(value))))


@dataclass(frozen=True, slots=True)
class ReplicaRates:
    """What one replica can do: prompt tokens per second alone, output tokens per second alone at the planned batch."""

    prompt_tokens_per_second: float
    output_tokens_per_second: float

    def work(self, demand: Demand) -> float:
        """Replicas that the demand keeps busy without a pause."""
        reading = demand.prompt_tokens_per_second / self.prompt_tokens_per_second
        return reading + demand.output_tokens_per_second / self.output_tokens_per_second


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool's replicas: how many it may have, should have, and really has.

    `desired` is how many are meant to serve; `starting` pods do not answer yet; `draining` ones answer what is open or
    end. All of them hold their GPUs. `scaled` pools have bounds between which the rebalancer chooses; others follow
    `start_replicas`.
    """

    name: str
    accelerator: str
    gpus_per_replica: int
    min_replicas: int
    max_replicas: int
    start_replicas: int
    scaled: bool
    desired: int
    ready: int
    starting: int
    draining: int
    owner: str = ""
    """The autoscaler that sets the pool's `replicas`, if any; `scaled` is false then."""
    balance: int = 0
    """Replicas that a roll-out asks for beyond `desired`; negative: that it will ask for once their GPUs are free."""
    reclaimable: int = 0
    """Draining replicas that would serve again at once."""

    @property
    def gpus_held(self) -> int:
        """GPUs of all pods that exist, or that will be created to reach what is asked for."""
        asked = self.desired + self.balance
        return self.gpus_per_replica * max(asked, self.ready + self.starting + self.draining)

    @property
    def gpus_taken(self) -> int:
        """GPUs that pods may hold at once if nobody takes another step.

        A Deployment replaces an ending pod at once, so ending pods count on top of what is asked for.
        """
        return self.gpus_per_replica * (max(self.desired + self.balance, self.ready + self.starting) + self.draining)

    @property
    def gpus_committed(self) -> int:
        """GPUs that are not free for others: those taken, and those that a roll-out has promised its next replica."""
        promised = self.gpus_per_replica * max(0, -self.balance - self.draining)
        return self.gpus_taken + promised


def pool_state(
    pool: InferencePool, *, desired: int, ready: int, starting: int, draining: int, owner: str = ""
) -> PoolState:
    """The state of a pool with these counts of pods; one whose `replicas` an autoscaler owns is not scaled by us."""
    spec, scaling = pool.spec, None if owner else pool.spec.scaling
    return PoolState(
        name=pool.metadata.name,
        accelerator=spec.accelerator.name,
        gpus_per_replica=spec.accelerator.count,
        min_replicas=scaling.min_replicas if scaling else spec.replicas,
        max_replicas=scaling.max_replicas if scaling else spec.replicas,
        start_replicas=spec.replicas,
        scaled=scaling is not None,
        desired=desired,
        ready=ready,
        starting=starting,
        draining=draining,
        owner=owner,
    )


@dataclass(frozen=True, slots=True)
class TierState:
    """A tier with its pool. `replica` is None while nobody knows what a replica can do."""

    name: str
    pool: PoolState
    weight: int
    demand: Demand | None
    replica: ReplicaRates | None

    @property
    def work(self) -> float | None:
        """Replicas that the demand keeps busy; None while demand or capacity is unknown."""
        if self.demand is None or self.replica is None:
            return None
        return self.replica.work(self.demand)


@dataclass(frozen=True, slots=True)
class Fleet:
    """One policy's tiers, budgets (GPUs by accelerator) and settings. Instants are in epoch seconds."""

    policy: str
    tiers: tuple[TierState, ...]
    budgets: Mapping[str, int]
    settings: Rebalance
    last_move_at: float | None
    created_at: float = 0.0

    @property
    def applies(self) -> bool:
        """The rebalancer may move replicas."""
        return self.settings.mode is RebalanceMode.APPLY

    @property
    def accelerators(self) -> tuple[str, ...]:
        """The accelerators of its pools, in the order of the tiers."""
        return tuple(dict.fromkeys(tier.pool.accelerator for tier in self.tiers))

    def on(self, accelerator: str) -> tuple[TierState, ...]:
        """The tiers whose pools run on that accelerator."""
        return tuple(tier for tier in self.tiers if tier.pool.accelerator == accelerator)

    def rests_until(self, *, release: bool = False) -> float:
        """When replicas may be taken away again, epoch seconds; 0 when nothing moved yet.

        A release helps nobody, so it is in no hurry: it waits until nothing moved for `releaseAfterSeconds`, and a new
        policy has that long to find its traffic.
        """
        if release:
            return max(self.last_move_at or 0.0, self.created_at) + self.settings.release_after_seconds
        return 0.0 if self.last_move_at is None else self.last_move_at + self.settings.cooldown_seconds
