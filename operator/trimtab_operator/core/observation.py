"""What one tick of the rebalancer observed, and the fleet that it makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil

from trimtab_crds.capacity import rates
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import RoutingPolicy, Tier
from trimtab_operator.core.fleet import Demand, Fleet, PoolState, ReplicaRates, TierState
from trimtab_operator.core.recipe import replica_for
from trimtab_operator.core.replica import PLANNED_OUTPUT_TOKENS, PLANNED_PROMPT_TOKENS


@dataclass(frozen=True, slots=True)
class ObservedPool:
    """A pool and its replicas. `speed` is how fast its engines are relative to the capacity model."""

    pool: InferencePool
    state: PoolState
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Observation:
    """A policy and the pools of its tiers by name; a pool that does not exist or is refused is absent.

    `cold_start_seconds` is the longest time that a replica took to get ready, 0 while none did.
    """

    policy: RoutingPolicy
    pools: Mapping[str, ObservedPool] = field(default_factory=dict)
    cold_start_seconds: float = 0.0

    @property
    def window_seconds(self) -> int:
        """Demand is averaged over this; never less than a cold start: chasing shorter bursts comes too late.

        A longer cold start counts in whole minutes, so that the window does not change from tick to tick.
        """
        asked = self.policy.spec.rebalance.window_seconds
        return asked if self.cold_start_seconds <= asked else 60 * ceil(self.cold_start_seconds / 60)

    @property
    def tier_names(self) -> tuple[str, ...]:
        """Tiers whose pool was observed, cheap to strong."""
        return tuple(tier.name for tier in self.policy.spec.tiers if tier.pool_ref.name in self.pools)


def fleet_of(seen: Observation, demand: Mapping[str, Demand | None]) -> Fleet:
    """The fleet to plan for. Demand that is not sane counts as missing."""
    spec, status = seen.policy.spec, seen.policy.status
    created = seen.policy.metadata.creation_timestamp
    tiers = []
    for tier in spec.tiers:
        if (observed := seen.pools.get(tier.pool_ref.name)) is not None:
            reading = demand.get(tier.name)
            known = reading.rounded() if reading is not None and reading.is_sane else None
            rates_ = replica_rates(observed, known)
            if tier.prefill_pool_ref is None:
                tiers.append(TierState(tier.name, observed.state, tier.weight, known, rates_))
                continue
            # What another pool has read is fetched, which takes no step of the engine.
            tiers.append(TierState(tier.name, observed.state, tier.weight, _answered(known), rates_))
            if (reader := seen.pools.get(tier.prefill_pool_ref.name)) is not None:
                rates_ = replica_rates(reader, known)
                tiers.append(TierState(prefill_name(tier), reader.state, tier.weight, _read(known), rates_))
    return Fleet(
        policy=seen.policy.key,
        tiers=tuple(tiers),
        budgets={budget.accelerator: budget.gpus for budget in spec.rebalance.gpu_budget},
        settings=spec.rebalance,
        last_move_at=datetime.fromisoformat(status.last_move.time).timestamp() if status and status.last_move else None,
        created_at=datetime.fromisoformat(created).timestamp() if created else 0.0,
    )


def prefill_name(tier: Tier) -> str:
    """How a tier's prefill pool is listed beside the tier, whose name has no slash."""
    return f"{tier.name}/prefill"


def _answered(demand: Demand | None) -> Demand | None:
    """What is left of a tier's demand where another pool reads its prompts."""
    return None if demand is None else replace(demand, prompt_tokens_per_second=0.0)


def _read(demand: Demand | None) -> Demand | None:
    """What the pool that reads the prompts is asked for: they, and one token each."""
    return None if demand is None else replace(demand, output_tokens_per_second=demand.requests_per_second)


def replica_rates(observed: ObservedPool, demand: Demand | None) -> ReplicaRates | None:
    """What one replica does on requests of the demand's mean size; None when model.shape is not set or nothing fits."""
    replica = replica_for(observed.pool)
    if replica is None:
        return None
    prompt_tokens, output_tokens = _mean_request(demand)
    found = rates(
        replica,
        input_tokens=prompt_tokens,
        output_tokens=output_tokens,
        tpot_seconds=observed.pool.spec.slo.time_per_output_token_milliseconds / 1000,
    )
    if found.batch == 0:
        return None
    speed = observed.speed
    return ReplicaRates(found.prompt_tokens_per_second * speed, found.output_tokens_per_second * speed)


def _mean_request(demand: Demand | None) -> tuple[float, float]:
    """Tokens of the prompt and of the output."""
    if demand is None or demand.requests_per_second == 0:
        return PLANNED_PROMPT_TOKENS, PLANNED_OUTPUT_TOKENS
    per_request = 1 / demand.requests_per_second
    return demand.prompt_tokens_per_second * per_request, demand.output_tokens_per_second * per_request
