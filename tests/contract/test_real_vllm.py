"""The real vLLM that other suites rely on: it thinks, and its thinking budget is the engine's own."""

import httpx
import pytest

from testcluster.processes import PATIENCE_SECONDS
from testcluster.vllm import VllmServer

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def client(real_vllm: VllmServer):
    with httpx.Client(base_url=real_vllm.base_url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        yield client


def chat(client: httpx.Client, **fields) -> httpx.Response:
    messages = [{"role": "user", "content": "What is 17 times 23?"}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 96, "temperature": 0}
    return client.post("/v1/chat/completions", json=body | fields)


def reasoning_tokens(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["completion_tokens_details"]["reasoning_tokens"]


@pytest.mark.parametrize("budget", [0, 8, 32])
def test_the_thinking_budget_is_obeyed(client: httpx.Client, budget: int):
    answer = chat(client, thinking_token_budget=budget)
    assert reasoning_tokens(answer) <= budget
    assert answer.json()["choices"][0]["message"]["content"]


def test_without_a_budget_it_thinks_longer(client: httpx.Client):
    assert reasoning_tokens(chat(client)) > 32


def test_thinking_can_be_switched_off(client: httpx.Client):
    answer = chat(client, chat_template_kwargs={"enable_thinking": False})
    assert reasoning_tokens(answer) == 0
    assert answer.json()["choices"][0]["message"]["content"]


def test_a_bad_budget_is_refused_by_the_engine(client: httpx.Client):
    refused = chat(client, thinking_token_budget=-7)
    assert refused.status_code == 400
    assert "thinking_token_budget" in refused.text


def test_the_metrics_name_the_served_model(client: httpx.Client, real_vllm: VllmServer):
    metrics = client.get("/metrics").text
    assert f'vllm:num_requests_running{{engine="0",model_name="{real_vllm.model}"}}' in metrics
