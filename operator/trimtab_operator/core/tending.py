"""What to write next for one pool: drains that are over, a number to follow, a roll-out to go on with."""

from dataclasses import dataclass

from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.resize import InFlight, Write, end_drains, resize
from trimtab_operator.core.revisions import PoolReplicas
from trimtab_operator.core.rollout import Room, marks, roll


@dataclass(frozen=True, slots=True)
class Look:
    """What is known besides the pool's objects. `follows` is the number of replicas to have, None where others decide.

    `now` is in epoch seconds.
    """

    pool: InferencePool
    follows: int | None
    in_flight: InFlight
    now: float


def decide(seen: PoolReplicas, look: Look, room: Room) -> list[Write]:
    """The next writes; one group at a time, so that each is decided on what the one before has done."""
    spec = look.pool.spec
    if found := marks(seen, spec.rollout, now=look.now):
        return found
    if found := end_drains(seen, look.in_flight, deadline_seconds=spec.drain.deadline_seconds, now=look.now):
        return found
    if look.follows is not None and seen.intended != look.follows:
        return resize(seen, look.follows, look.in_flight)
    return roll(seen, spec.rollout, room, look.in_flight, now=look.now)
