"""A prompt read by one engine and answered by another: a real router process between two simulated engines.

That the engines' flags are vLLM's is shown in test_recipes_vllm.py, and that it takes the same requests in
tests/contract/engine.
"""

import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from support.engines import SimulatedEngine, free_port, simulated_engine
from support.exposition import Exposition
from support.manifests import pool_manifest
from support.routers import RouterProcess, router_process
from support.sse import DONE, events, joined
from testcluster.processes import PATIENCE_SECONDS, wait_until
from trimtab_crds.inferencepool import InferencePool
from trimtab_operator.core.recipe import resolve

pytestmark = pytest.mark.timeout(1800, func_only=True)

PROMPT = "The quick brown fox jumps over the lazy dog. " * 40
SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")


def transfer_config(role: str) -> str:
    """What the operator's recipe gives an engine."""
    pool = InferencePool.model_validate(pool_manifest(spec__recipe={"disaggregation": {"role": role}}))
    flags = resolve(pool).flags
    return flags[flags.index("--kv-transfer-config") + 1]


@contextmanager
def engine(role: str, *flags: str) -> Iterator[SimulatedEngine]:
    env = {"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1", "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port())}
    with simulated_engine("--kv-transfer-config", transfer_config(role), *flags, env=env) as running:
        yield running


def document(reader: str, answerer: SimulatedEngine, **changes: Any) -> dict[str, Any]:
    def pool(name: str, address: str) -> dict[str, Any]:
        return {"name": name, "servedName": answerer.model, "addresses": [address], "contextTokens": 32768}

    tier = {"name": "low", "pool": "answerer", "prefillPool": "reader", "outputTokens": 64, **changes}
    return {
        "policy": "default/divided",
        "models": ["auto"],
        "tiers": [tier],
        "pools": [pool("answerer", address_of(answerer)), pool("reader", reader)],
        "classifier": {"defaultTier": "low", "outOfDomainPercent": 100},
    }


def address_of(running: SimulatedEngine) -> str:
    return running.base_url.removeprefix("http://")


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[SimulatedEngine, SimulatedEngine]]:
    with engine("Prefill") as reader, engine("Decode") as answerer:
        yield reader, answerer


@pytest.fixture(scope="module")
def router(engines: tuple[SimulatedEngine, SimulatedEngine]) -> Iterator[RouterProcess]:
    reader, answerer = engines
    with router_process(document(address_of(reader), answerer)) as running:
        yield running


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}


def ask(url: str, prompt: str, **more: Any) -> httpx.Response:
    response = httpx.post(
        f"{url}/v1/chat/completions", json=asked(prompt, **more), timeout=PATIENCE_SECONDS, trust_env=False
    )
    assert response.status_code == 200, response.text
    return response


def scrape(running: SimulatedEngine) -> Exposition:
    return Exposition(httpx.get(f"{running.base_url}/metrics", timeout=PATIENCE_SECONDS, trust_env=False).text)


def sources(running: SimulatedEngine) -> dict[str, float]:
    seen = scrape(running)
    return {s: seen.value("vllm:prompt_tokens_by_source_total", source=s) for s in SOURCES}


def risen(running: SimulatedEngine, before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in sources(running).items()}


def test_the_prompt_is_computed_by_the_reader_alone(engines, router):
    reader, answerer = engines
    before = sources(reader), sources(answerer)
    response = ask(router.url, "one " + PROMPT)
    assert response.headers["x-trimtab-prefill"] == "reader"
    prompt = response.json()["usage"]["prompt_tokens"]
    assert response.json()["kv_transfer_params"] is None
    assert risen(reader, before[0]) == {"local_compute": prompt, "local_cache_hit": 0, "external_kv_transfer": 0}
    assert risen(answerer, before[1]) == {"local_compute": 0, "local_cache_hit": 0, "external_kv_transfer": prompt}


def test_the_answer_is_the_one_of_an_engine_alone(engines, router):
    _, answerer = engines
    divided = ask(router.url, "two " + PROMPT, max_tokens=40).json()
    alone = ask(answerer.base_url, "two " + PROMPT, model=answerer.model, max_tokens=40).json()
    assert divided["choices"] == alone["choices"]
    assert divided["usage"]["completion_tokens"] == alone["usage"]["completion_tokens"]


def test_a_stream_stays_a_stream(engines, router):
    reader, answerer = engines
    before = sources(reader), sources(answerer)
    body = asked("three " + PROMPT, stream=True, stream_options={"include_usage": True}, max_tokens=40)
    with httpx.stream(
        "POST", f"{router.url}/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS, trust_env=False
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-trimtab-prefill"] == "reader"
        pieces = list(response.iter_raw())
    found = events(b"".join(pieces).decode())
    assert found[-1] == DONE
    assert joined(found, "content")
    prompt = found[-2]["usage"]["prompt_tokens"]
    assert risen(reader, before[0])["local_compute"] == prompt
    assert risen(answerer, before[1])["external_kv_transfer"] == prompt


def test_text_completions_are_divided_too(engines, router):
    _, answerer = engines
    before = sources(answerer)
    body = {"model": "auto", "prompt": "four " + PROMPT, "max_tokens": 8, "temperature": 0}
    response = httpx.post(f"{router.url}/v1/completions", json=body, timeout=PATIENCE_SECONDS, trust_env=False)
    assert response.headers["x-trimtab-prefill"] == "reader"
    assert risen(answerer, before)["external_kv_transfer"] == response.json()["usage"]["prompt_tokens"]


def test_the_router_counts_what_it_divides(router):
    def counted(outcome: str) -> float:
        labels = {"policy": "default/divided", "pool": "reader", "outcome": outcome}
        return Exposition(router.metrics()).value("trimtab_router_prefills_total", **labels)

    ask(router.url, "five " + PROMPT)
    response = ask(router.url, "six " + PROMPT, n=2, temperature=0.5)
    assert response.headers["x-trimtab-prefill"] == "none; because=n"
    wait_until("the report of the workers", lambda: counted("Read") >= 1 and counted("Undivided") == 1)


def test_a_reader_that_dies_costs_time_and_no_answer(engines):
    _, answerer = engines
    with engine("Prefill") as reader, router_process(document(address_of(reader), answerer)) as router:
        assert ask(router.url, "seven " + PROMPT).headers["x-trimtab-prefill"] == "reader"
        reader.process.send_signal(signal.SIGKILL)
        reader.process.wait(PATIENCE_SECONDS)
        before = sources(answerer)
        response = ask(router.url, "eight " + PROMPT)
        assert response.headers["x-trimtab-prefill"] in ("none; because=Unreachable", "none; because=Failed")
        prompt = response.json()["usage"]["prompt_tokens"]
        assert risen(answerer, before) == {"local_compute": prompt, "local_cache_hit": 0, "external_kv_transfer": 0}
        stream = ask(router.url, "nine " + PROMPT, stream=True)
        assert events(stream.text)[-1] == DONE


def test_a_cache_that_is_gone_is_computed_again(engines):
    """The transfer fails after the reader has answered: the answering engine's own policy."""
    reader, answerer = engines
    read = ask(
        reader.base_url,
        "ten " + PROMPT,
        model=reader.model,
        max_tokens=1,
        kv_transfer_params={"do_remote_decode": True},
    ).json()
    params = read["kv_transfer_params"]
    assert params["do_remote_prefill"] is True
    assert params["remote_num_tokens"] == read["usage"]["prompt_tokens"]
    for fetched in (True, False):  # a cache is fetched once
        before = sources(answerer)
        ask(answerer.base_url, "ten " + PROMPT, model=answerer.model, kv_transfer_params=params)
        assert bool(risen(answerer, before)["external_kv_transfer"]) is fetched


def test_the_reader_stops_when_the_client_leaves(engines):
    _, answerer = engines
    with (
        engine("Prefill", "--sim-time-scale=0.00005") as slow,
        router_process(document(address_of(slow), answerer)) as router,
    ):

        def running() -> float:
            return scrape(slow).value("vllm:num_requests_running")

        leave_early(router.url, asked("eleven " + PROMPT), lambda: running() == 1)
        wait_until("the end of reading for nobody", lambda: running() == 0)


def leave_early(url: str, body: dict[str, Any], when: Callable[[], bool]) -> None:
    """Sends a request, and closes its connection when something has happened."""
    host, port = url.removeprefix("http://").split(":")
    raw = json.dumps(body).encode()
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(raw), raw)
        )
        wait_until("the request at the reader", when)
