"""One suite for the simulated engine and for real vLLM: what a router, a rebalancer and a client see of an engine.

Every test runs on both. `engine` is as pools run it by default; `strict` has an API key, one sequence at a time, a
queue of one and no reasoning parser.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.engines import simulated_engine
from support.engineserver import KEY, SIMULATED, STRICT, Server
from testcluster import provide
from testcluster.processes import PATIENCE_SECONDS
from testcluster.pytesting import provided, visible

BOTH = ["simulated", pytest.param("real", marks=pytest.mark.contract)]


@pytest.fixture(scope="package", params=BOTH)
def engine(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "real":
        real = request.getfixturevalue("real_vllm")
        with httpx.Client(base_url=real.base_url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
            yield Server(client, real.pid)
        return
    with (
        simulated_engine(*SIMULATED) as simulated,
        httpx.Client(base_url=simulated.base_url, timeout=PATIENCE_SECONDS, trust_env=False) as client,
    ):
        yield Server(client, simulated.pid)


@pytest.fixture(scope="package", params=BOTH)
def strict(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "real":
        server: Any = provided(provide.real_vllm(visible(request.config), STRICT))
    else:
        server = simulated_engine(*SIMULATED, *STRICT)
    headers = {"authorization": f"Bearer {KEY}"}
    with (
        server as started,
        httpx.Client(base_url=started.base_url, timeout=PATIENCE_SECONDS, trust_env=False, headers=headers) as client,
    ):
        yield Server(client, started.pid)
