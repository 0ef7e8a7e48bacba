"""Metrics by vLLM's names, and what moves them."""

import time

import pytest

from support.engineserver import QUESTION, Server
from testcluster.processes import PATIENCE_SECONDS

# The first test of an engine waits for its start, which is no fault of the test.
pytestmark = pytest.mark.timeout(1800, func_only=True)


GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
COUNTERS = (
    "prompt_tokens_total",
    "generation_tokens_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "num_preemptions_total",
    "prompt_tokens_cached_total",
)
SECONDS = {
    "time_to_first_token_seconds": (0.001, 2560.0),
    "inter_token_latency_seconds": (0.01, 80.0),
    "request_time_per_output_token_seconds": (0.01, 80.0),
    "e2e_request_latency_seconds": (0.3, 7680.0),
    "request_queue_time_seconds": (0.3, 7680.0),
    "request_prefill_time_seconds": (0.3, 7680.0),
    "request_decode_time_seconds": (0.3, 7680.0),
    "request_inference_time_seconds": (0.3, 7680.0),
}
SIZES = ("request_prompt_tokens", "request_generation_tokens", "request_params_max_tokens", "iteration_tokens_total")


def test_metrics_have_vllms_names_types_and_labels(engine: Server):
    engine.chat(max_tokens=4)
    metrics = engine.metrics()
    labels = frozenset({"engine", "model_name"})
    for name in GAUGES:
        assert (metrics.types[f"vllm:{name}"], metrics.labels[f"vllm:{name}"]) == ("gauge", labels)
    for name in COUNTERS:
        assert (metrics.types[f"vllm:{name}"], metrics.labels[f"vllm:{name}"]) == ("counter", labels)
    for name in (*SECONDS, *SIZES):
        assert metrics.types[f"vllm:{name}"] == "histogram"
        assert metrics.labels[f"vllm:{name}_sum"] == labels
    assert metrics.labels["vllm:request_success_total"] == labels | {"finished_reason"}
    assert metrics.labels["vllm:num_requests_waiting_by_reason"] == labels | {"reason"}
    assert metrics.labels["vllm:prompt_tokens_by_source_total"] == labels | {"source"}
    assert metrics.labels["vllm:admission_rejections_total"] == {"model_name", "reason"}


def test_histograms_have_vllms_buckets(engine: Server):
    metrics = engine.metrics()
    for name, bounds in SECONDS.items():
        buckets = metrics.buckets(f"vllm:{name}")
        assert (buckets[0], buckets[-2], buckets[-1]) == (*bounds, float("inf"))
    assert len(metrics.buckets("vllm:time_to_first_token_seconds")) == 23
    assert metrics.buckets("vllm:iteration_tokens_total")[:3] == [1.0, 8.0, 16.0]
    assert metrics.buckets("vllm:request_prompt_tokens")[-2] == 5000.0


def test_a_request_moves_the_counters(engine: Server):
    before = engine.metrics()
    usage = engine.chat(max_tokens=5, ignore_eos=True).json()["usage"]
    after = engine.metrics()

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("vllm:prompt_tokens_total") == usage["prompt_tokens"]
    assert grown("vllm:generation_tokens_total") == 5
    assert grown("vllm:request_success_total", finished_reason="length") == 1
    assert grown("vllm:time_to_first_token_seconds_count") == 1
    assert grown("vllm:inter_token_latency_seconds_count") == 4
    assert grown("vllm:e2e_request_latency_seconds_count") == 1
    assert grown("http_requests_total", handler="/v1/chat/completions", status="2xx") == 1


#: A busy machine counts a second late.
REST_READINGS = 6


def _at_rest(engine: Server) -> float:
    """Finished requests once nothing runs and the count stands still: an engine counts a moment after it answers."""
    deadline, seen = time.monotonic() + PATIENCE_SECONDS, [-1.0]
    while time.monotonic() < deadline:
        now = engine.metrics()
        finished = now.value("vllm:request_success_total")
        still = finished == seen[-1] and now.value("vllm:num_requests_running") == 0
        seen = [*seen, finished] if still else [finished]
        if len(seen) > REST_READINGS:
            return finished
        time.sleep(0.3)
    raise AssertionError("the engine still runs something")


def test_a_client_that_leaves_frees_the_engine(engine: Server):
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 7000, "ignore_eos": True, "stream": True}
    before = _at_rest(engine)
    with engine.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    assert _at_rest(engine) == before
