"""When a pool is full, as far as one router can see."""


def saturated(inflight: int, *, replicas: int, batch: int, spill_percent: int, routers: int) -> bool:
    """Whether this router alone holds more than its part of what the pool is planned for.

    `batch` is the answers that a replica is planned to write at once. Other routers are taken to hold as many: clients
    are spread over them evenly. A pool without replicas is not full, it is absent.
    """
    return replicas > 0 and inflight * routers * 100 >= batch * replicas * spill_percent
