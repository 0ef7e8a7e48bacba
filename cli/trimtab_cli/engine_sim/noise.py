"""Repeatable pseudo-random numbers: functions of their arguments, no state, no seed to forget."""

from hashlib import blake2b

_MASK = 0xFFFFFFFFFFFFFFFF


def key_of(*parts: object) -> int:
    """A 63-bit number that depends on the parts only, the same in every process."""
    state = blake2b(digest_size=8)
    for part in parts:
        state.update(f"{part}\0".encode("utf-8", "surrogatepass"))
    return int.from_bytes(state.digest(), "big") >> 1


def uniform(key: int, position: int) -> float:
    """A number in [0, 1) (the finaliser of SplitMix64)."""
    value = (key + position * 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((value ^ (value >> 31)) >> 11) / 2**53
