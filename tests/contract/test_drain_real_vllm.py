"""A stream of the real vLLM through a real router: the operator sees it, and it outlives the replica's address."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest

from support.routers import RouterProcess, router_process, wait_until
from testcluster.processes import PATIENCE_SECONDS
from testcluster.vllm import VllmServer
from trimtab_operator.core.revisions import ReplicaPod
from trimtab_operator.shell.engineload import EngineMetrics

pytestmark = pytest.mark.contract

#: Long, several at once, and with alternatives of every token: the tiny model is fast, and the router reads its
#: document once a second.
TOKENS, ALTERNATIVES, READERS = 7500, 20, 4


def document(server: VllmServer, *, there: bool) -> dict[str, object]:
    address = server.base_url.removeprefix("http://")
    pool = {"name": "p", "servedName": server.model, "addresses": [address] if there else [], "contextTokens": 8192}
    return {
        "policy": "default/drain",
        "models": ["auto"],
        "tiers": [{"name": "low", "pool": "p", "thinkingTokens": 0, "outputTokens": TOKENS}],
        "pools": [pool],
        "classifier": {"defaultTier": "low", "outOfDomainPercent": 100},
    }


def asked(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Tell a long story."}]
    return {"model": "auto", "messages": messages, "max_tokens": TOKENS, **fields}


@dataclass
class Reader:
    """One long answer after the other, read by a thread of its own until there is no replica for the next."""

    router: RouterProcess
    answers: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        body = asked(stream=True, ignore_eos=True, logprobs=True, top_logprobs=ALTERNATIVES)
        url = f"{self.router.url}/v1/chat/completions"
        while True:
            with httpx.stream("POST", url, json=body, timeout=300, trust_env=False) as answer:
                lines = [line for line in answer.iter_lines() if line]
                if answer.status_code == 503:
                    return
                self.answers.append(lines)


def in_flight(server: VllmServer) -> int | None:
    """What the operator reads of that replica."""
    host, _, port = server.base_url.removeprefix("http://").rpartition(":")
    pod = ReplicaPod(name="engine", uid="u", address=host, ready=True, ending=False, drains_since=0.0)
    return asyncio.run(EngineMetrics(int(port)).in_flight([pod])).get("engine")


def test_streams_are_in_flight_until_they_end_and_outlive_their_address(real_vllm: VllmServer):
    with router_process(document(real_vllm, there=True)) as router:
        wait_until(lambda: in_flight(real_vllm) == 0)
        readers = [Reader(router) for _ in range(READERS)]
        wait_until(lambda: in_flight(real_vllm) not in (None, 0))
        router.write(document(real_vllm, there=False))

        def is_out() -> bool:
            status = httpx.post(
                f"{router.url}/v1/chat/completions", json=asked(max_tokens=1), timeout=PATIENCE_SECONDS, trust_env=False
            ).status_code
            return status == 503

        wait_until(is_out)
        open_then = [reader for reader in readers if reader.thread.is_alive()]
        assert open_then, "they go on"
        before = {id(reader): len(reader.answers) for reader in open_then}
        for reader in readers:
            reader.thread.join(timeout=280)
    assert any(len(reader.answers) > before[id(reader)] for reader in open_then), "answers ended after that"
    for lines in (lines for reader in readers for lines in reader.answers):
        assert lines[-1] == "data: [DONE]"
        assert any('"finish_reason":"length"' in line.replace(" ", "") for line in lines)
    wait_until(lambda: in_flight(real_vllm) == 0)


def test_a_replica_that_is_away_says_nothing():
    gone = ReplicaPod(name="engine", uid="u", address="127.0.0.1", ready=True, ending=False, drains_since=0.0)
    started = time.monotonic()
    assert asyncio.run(EngineMetrics(1).in_flight([gone])) == {}
    assert time.monotonic() - started < 30
