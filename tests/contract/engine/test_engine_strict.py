"""An engine with a key and a short queue. The last test stops it."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.engineserver import DOCUMENT, KEY, QUESTION, Server
from support.sse import DONE, events
from testcluster.processes import PATIENCE_SECONDS

# The first test of an engine waits for its start, which is no fault of the test.
pytestmark = pytest.mark.timeout(1800, func_only=True)


@pytest.mark.parametrize("headers", [{"authorization": ""}, {"authorization": "Bearer wrong"}, {"authorization": KEY}])
def test_without_the_key_v1_is_closed(strict: Server, headers: dict[str, str]):
    answer = strict.client.get("/v1/models", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})


def test_without_the_key_words_are_tokenized(strict: Server):
    answer = strict.client.post("/tokenize", json={"prompt": "Wait"}, headers={"authorization": ""})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/metrics", "/version"])
def test_without_the_key_probes_and_metrics_are_open(strict: Server, path: str):
    assert strict.client.get(path, headers={"authorization": ""}).status_code == 200


def test_the_request_id_is_echoed_when_told(strict: Server):
    answer = strict.client.get("/v1/models", headers={"x-request-id": "abc-2"})
    assert answer.headers["x-request-id"] == "abc-2"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_budget_needs_a_reasoning_parser(strict: Server, stream: bool):
    answer = strict.chat(thinking_token_budget=3, stream=stream)
    wanted = {
        "message": "thinking_token_budget is set but reasoning_config is not configured. Please set "
        "--reasoning-parser and/or --reasoning-config to use thinking_token_budget.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    if stream:
        # The stream had begun when the engine refused: 200, then the error as the only event.
        assert answer.status_code == 200
        assert events(answer.text) == [{"error": wanted}, DONE]
    else:
        assert answer.status_code == 400
        assert answer.json() == {"error": wanted}


def test_a_repeated_prompt_comes_out_of_the_prefix_cache(strict: Server):
    strict.chat(messages=DOCUMENT, max_tokens=1)
    usage = strict.chat(messages=DOCUMENT, max_tokens=1).json()["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert 0 < cached < usage["prompt_tokens"]
    assert cached % 16 == 0
    assert usage["completion_tokens_details"] is None


def _busy(answer: httpx.Response) -> bool:
    """Whether that is vLLM's overload answer: a 503, or for a stream a 200 whose only event is the same error."""
    wanted = {
        "message": "The engine is currently busy and cannot accept new requests. "
        "Please try again later or on a different instance.",
        "type": "Service Unavailable",
        "param": None,
        "code": 503,
    }
    if answer.status_code == 503:
        return bool(answer.json() == {"error": wanted})
    return answer.status_code == 200 and answer.text == f"data: {json.dumps({'error': wanted})}\n\ndata: [DONE]\n\n"


def test_a_full_queue_refuses_and_counts_it(strict: Server):
    before = strict.metrics().value("vllm:admission_rejections_total", reason="max_num_queued_reqs")
    long = {"max_tokens": 1500, "ignore_eos": True}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: strict.chat(**long, stream=i % 2 == 1), range(8)))
    refused = [answer for answer in answers if _busy(answer)]
    served = [answer for answer in answers if not _busy(answer)]
    assert refused
    assert {answer.status_code for answer in served} == {200}
    after = strict.metrics().value("vllm:admission_rejections_total", reason="max_num_queued_reqs")
    assert after == before + len(refused)


def test_samples_that_do_not_fit_the_queue_are_refused_together(strict: Server):
    assert _busy(strict.chat(n=4, temperature=1))


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_sigterm_drains_running_streams_and_refuses_new_ones(strict: Server):
    tokens = 6000
    lines: list[str] = []
    begun = threading.Event()

    def stream() -> None:
        body = {"model": "tiny", "messages": QUESTION, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        body["stream_options"] = {"include_usage": True}
        with strict.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                begun.set()
        begun.set()

    reader = threading.Thread(target=stream)
    reader.start()
    assert begun.wait(PATIENCE_SECONDS)
    os.kill(strict.pid, signal.SIGTERM)
    while_draining = _first_refusal(strict)
    health = strict.client.get("/health")
    reader.join(PATIENCE_SECONDS)
    assert _busy(while_draining), while_draining.text
    assert health.status_code == 200
    data = [line.removeprefix("data: ") for line in lines if line]
    assert data[-1] == DONE
    assert json.loads(data[-2])["usage"]["completion_tokens"] == tokens
    assert json.loads(data[-3])["choices"][0]["finish_reason"] == "length"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _alive(strict.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(strict.pid)


def _first_refusal(server: Server) -> httpx.Response:
    """The answer to a new request once the signal has arrived; until then it may queue, so it is given up on."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return server.client.post(
                "/v1/chat/completions",
                json={"model": "tiny", "messages": QUESTION, "max_tokens": 1},
                timeout=0.3,
            )
        except httpx.TransportError:  # a timeout, or a connection that was about to be used as the signal came
            assert time.monotonic() < deadline, "no new request was refused"
