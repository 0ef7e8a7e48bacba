"""The rebalancer's FleetPort over engine processes."""

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

from trimtab_cli.local.engines import Engines
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import Move, RoutingPolicy, RoutingPolicyStatus
from trimtab_operator.core.observation import Observation, ObservedPool
from trimtab_operator.core.tickreport import TickReport


class LocalFleet:
    """One policy's fleet on this machine, created now. `speed` is how fast engines run relative to their GPU."""

    def __init__(
        self,
        policy: RoutingPolicy,
        pools: Mapping[str, InferencePool],
        engines: Engines,
        *,
        speed: float,
    ) -> None:
        created = datetime.now(UTC).isoformat()
        metadata = policy.metadata.model_copy(update={"creation_timestamp": created})
        self._policy = policy.model_copy(update={"metadata": metadata})
        self._pools = pools
        self._engines = engines
        self._speed = speed
        self._last_move: Move | None = None
        self.latest: TickReport | None = None
        self.moves = 0
        self.history: deque[Move] = deque(maxlen=50)

    async def observe(self, policy: str) -> Observation | None:
        """See FleetPort."""
        if policy != self._policy.key:
            return None
        states = self._engines.states()
        return Observation(
            policy=self._policy.model_copy(update={"status": RoutingPolicyStatus(last_move=self._last_move)}),
            pools={name: ObservedPool(pool, states[name], self._speed) for name, pool in self._pools.items()},
            cold_start_seconds=self._engines.cold_start_seconds,
        )

    async def set_replicas(self, pool: str, replicas: int) -> None:
        """See FleetPort."""
        self._engines.scale(pool.rpartition("/")[2], replicas)

    async def report(self, policy: str, report: TickReport) -> None:
        """See FleetPort."""
        if policy != self._policy.key:
            return
        self.latest = report
        if report.last_move is not None:
            self._last_move = report.last_move
            self.history.append(report.last_move)
            self.moves += 1
