"""The router as a process between the real OpenAI SDK and simulated engines."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.engines import SimulatedEngine, simulated_engine
from support.routers import RouterProcess, router_process, wait_until
from testcluster.processes import PATIENCE_SECONDS

HARD = (
    "Prove that for every prime p > 3 the number p^2 - 1 is divisible by 24, and find all integers n such that "
    "n^2 + n + 41 is a perfect square. Show each step of the derivation."
)
EASY = "Say hello."


def document(low: SimulatedEngine, high: SimulatedEngine, **changes: object) -> dict[str, object]:
    def pool(name: str, engine: SimulatedEngine, **more: object) -> dict[str, object]:
        address = engine.base_url.removeprefix("http://")
        return {"name": name, "servedName": engine.model, "addresses": [address], "contextTokens": 32768, **more}

    return {
        "policy": "default/contract",
        "models": ["auto"],
        "tiers": [
            {"name": "low", "pool": "low", "thinkingTokens": 0, "outputTokens": 64},
            {"name": "high", "pool": "high", "thinkingTokens": 128, "outputTokens": 64},
        ],
        "pools": [pool("low", low), pool("high", high, reasoning=True)],
        "classifier": {"defaultTier": "high", "outOfDomainPercent": 100},
        **changes,
    }


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[SimulatedEngine, SimulatedEngine]]:
    with (
        simulated_engine(served_name="tiny-low") as low,
        simulated_engine("--reasoning-parser=qwen3", served_name="tiny-high") as high,
    ):
        yield low, high


@pytest.fixture(scope="module")
def router(engines: tuple[SimulatedEngine, SimulatedEngine]) -> Iterator[RouterProcess]:
    with router_process(document(*engines), "--workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def client(router: RouterProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="key", max_retries=0, timeout=PATIENCE_SECONDS) as found:
        yield found


def ask(client: openai.OpenAI, text: str, **how: object):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(model="auto", messages=messages, **how)


def test_an_easy_question_is_answered_without_thinking(client):
    raw = ask(client, EASY)
    answer = raw.parse()
    assert raw.headers["x-trimtab-tier"] == "low"
    assert raw.headers["x-trimtab-budget"] == "0"
    assert answer.model == "tiny-low"
    assert answer.choices[0].message.content
    assert 1 <= answer.usage.completion_tokens <= 64


def test_a_hard_question_thinks_within_its_budget(client):
    raw = ask(client, HARD)
    answer = raw.parse()
    assert (raw.headers["x-trimtab-tier"], raw.headers["x-trimtab-reason"]) == ("high", "Gain")
    assert raw.headers["x-trimtab-budget"] == "128"
    assert answer.model == "tiny-high"
    assert answer.usage.completion_tokens_details.reasoning_tokens <= 128


def test_a_budget_by_hand_bounds_the_thinking(client):
    raw = ask(client, HARD, extra_body={"trimtab": {"budget": 60}})
    budget = int(raw.headers["x-trimtab-budget"])
    assert raw.headers["x-trimtab-reason"] == "BudgetField"
    assert budget == 25
    assert raw.parse().usage.completion_tokens_details.reasoning_tokens <= budget


@pytest.mark.parametrize(("effort", "tier"), [("none", "low"), ("low", "low"), ("high", "high")])
def test_effort_chooses_the_tier(client, effort, tier):
    assert ask(client, EASY, reasoning_effort=effort).headers["x-trimtab-tier"] == tier


def test_a_header_chooses_the_tier(client):
    raw = ask(client, EASY, extra_headers={"x-trimtab-tier": "high"})
    assert (raw.headers["x-trimtab-tier"], raw.headers["x-trimtab-reason"]) == ("high", "TierHeader")


def test_a_stream_arrives_in_pieces_and_ends(client):
    messages = [{"role": "user", "content": EASY}]
    with client.chat.completions.create(
        model="auto", messages=messages, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert len(chunks) >= 3
    assert text
    assert chunks[-1].usage.completion_tokens >= 1


def test_completions_work(client):
    answer = client.completions.create(model="auto", prompt="Once upon a time", max_tokens=8)
    assert 1 <= answer.usage.completion_tokens <= 8
    pieces = list(client.completions.create(model="auto", prompt="Once upon a time", max_tokens=8, stream=True))
    assert "".join(p.choices[0].text for p in pieces)


def test_models_are_listed_and_a_pool_can_be_named(client):
    assert [m.id for m in client.models.list()] == ["auto", "tiny-low", "tiny-high"]
    assert client.models.retrieve("tiny-low").id == "tiny-low"
    messages = [{"role": "user", "content": HARD}]
    answer = client.chat.completions.create(model="tiny-low", messages=messages, max_tokens=16)
    assert answer.model == "tiny-low"


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"reasoning_effort": "huge"}, openai.BadRequestError, 'reasoning_effort: "huge" is not allowed'),
        ({"extra_body": {"trimtab": {"budget": 101}}}, openai.BadRequestError, "use a whole number from 1 to 100"),
        ({"extra_headers": {"x-trimtab-tier": "x"}}, openai.BadRequestError, "use one of low, high"),
        ({"extra_body": {"thinking_budget": 5}}, openai.BadRequestError, "did you mean thinking_token_budget?"),
    ],
)
def test_errors_are_those_of_the_sdk(client, how, error, message):
    with pytest.raises(error, match="400") as refusal:
        ask(client, EASY, **how)
    assert message in refusal.value.message


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert refusal.value.code == "model_not_found"
    assert "use one of auto, tiny-low, tiny-high" in refusal.value.message


def test_an_engines_refusal_reaches_the_sdk(client):
    with pytest.raises(openai.BadRequestError):
        ask(client, EASY, extra_body={"temperature": -5})


def test_explain_agrees_with_what_happens(router, client):
    body = {"model": "auto", "messages": [{"role": "user", "content": HARD}]}
    plan = httpx.post(f"{router.url}/v1/explain", json=body, trust_env=False).json()
    headers = ask(client, HARD).headers
    assert plan["tier"] == headers["x-trimtab-tier"]
    assert plan["class"] == headers["x-trimtab-class"]
    assert str(plan["budget"]["thinking_tokens"]) == headers["x-trimtab-budget"]
    assert [c["tier"] for c in plan["candidates"]] == ["low", "high"]


def test_all_workers_are_counted_together(router, client):
    def admitted() -> float:
        families = text_string_to_metric_families(router.metrics())
        samples = [s for f in families for s in f.samples if s.name == "trimtab_router_admitted_total"]
        assert {s.labels["tier"] for s in samples} == {"low", "high"}
        assert {s.labels["policy"] for s in samples} == {"default/contract"}
        return sum(s.value for s in samples)

    wait_until(lambda: "trimtab_router_workers 2.0" in router.metrics())
    settled = -1.0
    while settled != (settled := admitted()):
        time.sleep(1.5)  # workers report every second
    for _ in range(20):
        with openai.OpenAI(
            base_url=f"{router.url}/v1", api_key="key", max_retries=0, timeout=PATIENCE_SECONDS
        ) as fresh:
            ask(fresh, EASY, max_tokens=1)
    wait_until(lambda: admitted() == settled + 20, lambda: f"{admitted()} is not {settled} + 20")


def test_a_dead_worker_is_replaced_and_its_counts_stay(engines):
    with router_process(document(*engines)) as router:
        with openai.OpenAI(base_url=f"{router.url}/v1", api_key="key", timeout=PATIENCE_SECONDS) as client:
            ask(client, EASY, max_tokens=1)
        count = 'trimtab_router_admitted_total{policy="default/contract",tier="low"} 1.0'
        wait_until(lambda: count in router.metrics(), router.metrics)
        (worker,) = router.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not router.ready())
        wait_until(router.ready, router.log.read_text)
        assert router.workers() != [worker]
        assert count in router.metrics()


def test_a_bad_configuration_keeps_the_last_good_one(engines):
    with router_process(document(*engines)) as router:
        router.write("{")
        invalid = 'trimtab_router_config_valid{policy="default/contract"} 0.0'
        wait_until(lambda: invalid in router.metrics(), router.metrics)
        assert router.ready()
        assert httpx.get(f"{router.url}/v1/models", trust_env=False).status_code == 200
        router.write(document(*engines, models=["renamed"]))
        router.process.send_signal(signal.SIGHUP)

        def names() -> list[str]:
            return [m["id"] for m in httpx.get(f"{router.url}/v1/models", trust_env=False).json()["data"]]

        wait_until(lambda: names() == ["renamed", "tiny-low", "tiny-high"])


def test_a_router_without_a_configuration_waits_for_one(engines):
    with router_process("", ready=False) as router:

        def why() -> str:
            try:
                return httpx.get(f"{router.admin}/readyz", trust_env=False).text
            except httpx.TransportError:
                return ""

        wait_until(lambda: "no valid configuration: document: Invalid JSON" in why(), why)
        assert httpx.get(f"{router.admin}/healthz", trust_env=False).status_code == 200
        router.write(document(*engines))
        wait_until(router.ready, router.log.read_text)


def test_sigterm_lets_an_open_stream_end(engines):
    with router_process(document(*engines), "--drain-seconds", "120") as router:
        with openai.OpenAI(
            base_url=f"{router.url}/v1", api_key="key", max_retries=0, timeout=PATIENCE_SECONDS
        ) as client:
            messages = [{"role": "user", "content": EASY}]
            stream = client.chat.completions.create(
                model="auto", messages=messages, stream=True, max_tokens=60, extra_body={"ignore_eos": True}
            )
            pieces = iter(stream)
            next(pieces)
            ended = threading.Thread(target=router.stop)
            ended.start()
            rest = list(pieces)
        ended.join()
        assert rest[-1].choices[0].finish_reason == "length"
        assert router.process.returncode == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{router.url}/healthz", trust_env=False)


def test_a_second_signal_ends_an_open_stream(engines):
    slow = ("--drain-seconds", "600")
    with (
        router_process(document(*engines), *slow) as router,
        httpx.Client(trust_env=False, timeout=PATIENCE_SECONDS) as client,
    ):
        body = {"model": "tiny-low", "stream": True, "max_tokens": 30000, "ignore_eos": True}
        body["messages"] = [{"role": "user", "content": EASY}]
        with client.stream("POST", f"{router.url}/v1/chat/completions", json=body) as response:
            pieces = response.iter_raw()  # one that nobody holds would end the request
            first = next(pieces)
            assert response.status_code == 200, first
            router.process.send_signal(signal.SIGINT)
            wait_until(lambda: not router.ready())
            assert router.workers(), router.log.read_text()
            assert router.stop(signal.SIGINT) == 0


def test_workers_end_with_their_parent(engines):
    with router_process(document(*engines), "--workers", "2") as router:
        workers = router.workers()
        router.process.kill()
        router.process.wait(PATIENCE_SECONDS)
        wait_until(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_router_whose_workers_cannot_live_gives_up(engines):
    with router_process(document(*engines), ready=False) as router:
        wait_until(lambda: ended(router), router.log.read_text)
        assert router.process.returncode == 1
        assert "5 workers in a row ended at once; giving up" in router.log.read_text()


def ended(router: RouterProcess) -> bool:
    """Kills every worker that it sees; true when the router itself has ended."""
    if router.process.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for pid in router.workers():
            os.kill(pid, signal.SIGKILL)
    return False


def test_an_address_in_use_is_named(engines):
    with router_process(document(*engines)) as router:
        port = router.url.rsplit(":", 1)[1]
        argv = [sys.executable, "-m", "trimtab_router", "--config", "x", "--listen", f"127.0.0.1:{port}"]
        found = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert found.returncode == 1
        assert found.stderr == (
            f"trimtab router: --listen: 127.0.0.1:{port} cannot be used (Address already in use); "
            "choose another address\n"
        )


def test_unknown_paths_name_the_known_ones(router):
    response = httpx.get(f"{router.url}/v2", trust_env=False)
    assert response.status_code == 404
    assert json.loads(response.text)["error"]["message"].startswith("path: /v2 does not exist; use one of /v1/chat/")
