"""What an engine's metrics say of its load (vLLM 0.32: gauges `num_requests_running` and `num_requests_waiting`)."""

from math import ceil, isfinite

_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")


def in_flight(exposition: str) -> int | None:
    """Requests running and waiting over all engine processes of a replica; None where either is not told."""
    found: dict[str, float] = {}
    for line in exposition.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in _GAUGES:
            try:
                found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
            except ValueError:
                return None
    if len(found) < len(_GAUGES) or not all(isfinite(value) and value >= 0 for value in found.values()):
        return None
    return ceil(sum(found.values()))
