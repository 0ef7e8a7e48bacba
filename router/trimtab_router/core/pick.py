"""Which replica of a pool serves a request: prefix affinity within a bound of load, else the less loaded of two.

Affinity is rendezvous hashing (Thaler and Ravishankar, 1998), so that a replica that comes or goes moves only its own
share; the bound is that of consistent hashing with bounded loads (Mirrokni et al., 2018); the rest is power of two
choices (Mitzenmacher, 2001).
"""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

BOUND: Final = 1.25
"""The preferred replica may have this many times the mean load, and one request more."""


def pick(loads: Sequence[int], seeds: Sequence[int], *, key: int, draw: int) -> int:
    """Index of the replica. `loads` are requests in flight, `seeds` name the replicas, `draw` is a random number."""
    count = len(loads)
    if count == 1:
        return 0
    preferred = max(range(count), key=lambda i: _weight(seeds[i], key))
    if loads[preferred] <= BOUND * sum(loads) / count + 1:
        return preferred
    first = draw % count
    second = (first + 1 + (draw // count) % (count - 1)) % count
    return first if loads[first] <= loads[second] else second


def _weight(seed: int, key: int) -> int:
    return crc32(b"%d" % (seed ^ key))
