"""The Prometheus metrics of vLLM 0.32, by the same names, labels and buckets, fed from the scheduler's reports."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trimtab_cli.engine_sim.engine import Engine, EngineConfig, Rejection, StepReport
from trimtab_cli.engine_sim.engine import Sequence as Answering

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_PHASE = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_LABELS = ("model_name", "engine")
_REASONS = ("stop", "length", "abort", "error", "repetition")
_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")

_COUNTERS = {
    "estimated_flops_per_gpu": "Estimated number of floating point operations per GPU.",
    "estimated_read_bytes_per_gpu": "Estimated number of bytes read from memory per GPU.",
    "estimated_write_bytes_per_gpu": "Estimated number of bytes written to memory per GPU.",
    "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
    "external_prefix_cache_queries": "External prefix cache queries, in terms of number of queried tokens.",
    "external_prefix_cache_hits": "External prefix cache hits, in terms of number of cached tokens.",
    "mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
    "mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
    "num_preemptions": "Cumulative number of preemption from the engine.",
    "prompt_tokens": "Number of prefill tokens processed.",
    "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
    "generation_tokens": "Number of generation tokens processed.",
}
_SPECULATION = {
    "spec_decode_num_drafts": "Number of spec decoding drafts.",
    "spec_decode_num_draft_tokens": "Number of draft tokens.",
    "spec_decode_num_accepted_tokens": "Number of accepted tokens.",
}
_PHASES = {
    "e2e_request_latency_seconds": "Histogram of e2e request latency in seconds.",
    "request_queue_time_seconds": "Histogram of time spent in WAITING phase for request.",
    "request_inference_time_seconds": "Histogram of time spent in RUNNING phase for request.",
    "request_prefill_time_seconds": "Histogram of time spent in PREFILL phase for request.",
    "request_decode_time_seconds": "Histogram of time spent in DECODE phase for request.",
}
_SIZES = {
    "request_prompt_tokens": "Number of prefill tokens processed.",
    "request_generation_tokens": "Number of generation tokens processed.",
    "request_max_num_generation_tokens": "Histogram of maximum number of requested generation tokens.",
    "request_params_max_tokens": "Histogram of the max_tokens request parameter.",
    "request_prefill_kv_computed_tokens": "New KV tokens computed during prefill (excluding cached tokens).",
}


def one_two_five(limit: int) -> list[int]:
    """1, 2, 5, 10, ... up to the limit: vLLM's buckets for counts of tokens."""
    buckets: list[int] = []
    decade = 1
    while decade <= limit:
        buckets += [step * decade for step in (1, 2, 5) if step * decade <= limit]
        decade *= 10
    return buckets


class Metrics:
    """All metrics of one engine."""

    def __init__(
        self, engine: Engine, config: EngineConfig, *, model_name: str, max_model_len: int, transfers: bool = False
    ) -> None:
        self._transfers = transfers
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model_name, "engine": "0"}
        self._model_name = model_name
        self._counters = {name: self._counter(name, text) for name, text in _COUNTERS.items()}
        if config.speculation.tokens:
            self._counters |= {name: self._counter(name, text) for name, text in _SPECULATION.items()}
        self._histograms = self._all_histograms(one_two_five(max_model_len))
        self._labelled_counters()
        self._gauges(engine)
        self._cache_info(config)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(**self._labels)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"vllm:{name}", text, _LABELS, registry=self.registry, buckets=buckets).labels(**self._labels)

    def _all_histograms(self, tokens: Sequence[float]) -> dict[str, Histogram]:
        rows: list[tuple[str, str, Sequence[float]]] = [
            ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", _TTFT),
            ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _ITL),
            ("request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", _ITL),
            ("iteration_tokens_total", "Histogram of number of tokens per engine_step.", _ITERATION),
            ("request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20)),
            (
                "request_num_preemptions",
                "Histogram of the number of times a request was preempted.",
                (1, 2, 3, 4, 5, 10, 20),
            ),
        ]
        rows += [(name, text, _PHASE) for name, text in _PHASES.items()]
        rows += [(name, text, tokens) for name, text in _SIZES.items()]
        return {name: self._histogram(name, text, buckets) for name, text, buckets in rows}

    def _labelled_counters(self) -> None:
        self._finished = self._family(
            "request_success", "Count of successfully processed requests.", "finished_reason", _REASONS
        )
        self._sources = self._family(
            "prompt_tokens_by_source", "Number of prompt tokens by source.", "source", _SOURCES
        )
        self._tiers = self._family(
            "prompt_tokens_cached_by_source", "Prefix-cache hit tokens by cache tier.", "source", _TIERS
        )
        self._accepted_at = Counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "Accepted tokens per draft position.",
            [*_LABELS, "position"],
            registry=self.registry if "spec_decode_num_drafts" in self._counters else None,
        )
        rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ["model_name", "reason"],
            registry=self.registry,
        )
        self._rejections = {reason: rejections.labels(self._model_name, reason.value) for reason in Rejection}

    def _family(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        family = Counter(f"vllm:{name}", text, [*_LABELS, label], registry=self.registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _gauges(self, engine: Engine) -> None:
        def gauge(name: str, text: str, **labels: str) -> Gauge:
            family = Gauge(f"vllm:{name}", text, [*_LABELS, *labels], registry=self.registry)
            return family.labels(**self._labels, **labels)

        gauge("num_requests_running", "Number of requests in model execution batches.").set_function(
            lambda: engine.running
        )
        gauge("num_requests_waiting", "Number of requests waiting to be processed.").set_function(
            lambda: engine.waiting
        )
        gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.").set_function(lambda: engine.kv_usage)
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason.",
            [*_LABELS, "reason"],
            registry=self.registry,
        )
        by_reason.labels(**self._labels, reason="capacity").set_function(lambda: engine.waiting)
        by_reason.labels(**self._labels, reason="deferred").set(0)
        sleep = Gauge(
            "vllm:engine_sleep_state", "Engine sleep state.", [*_LABELS, "sleep_state"], registry=self.registry
        )
        for state in ("awake", "weights_offloaded", "discard_all"):
            sleep.labels(**self._labels, sleep_state=state).set(state == "awake")

    def _cache_info(self, config: EngineConfig) -> None:
        info = {
            "block_size": str(config.block_tokens),
            "cache_dtype": {16: "auto", 8: "fp8"}.get(config.replica.shape.kv_bits, "auto"),
            "enable_prefix_caching": str(config.prefix_caching),
            "engine": "0",
            "kv_cache_size_tokens": str(config.kv_capacity_tokens),
            "num_gpu_blocks": str(config.kv_capacity_tokens // config.block_tokens),
        }
        family = Gauge(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", info, registry=self.registry
        )
        family.labels(**info).set(1)

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)

    def rejected(self, reason: Rejection) -> None:
        """Count a request that was not queued."""
        self._rejections[reason].inc()

    def step(self, report: StepReport) -> None:
        """Count what one step did."""
        written = sum(emission.tokens for emission in report.emissions)
        self._counters["generation_tokens"].inc(written)
        self._counters["num_preemptions"].inc(report.preempted)
        self._histograms["iteration_tokens_total"].observe(report.prefill_tokens + written)
        for sequence in report.admitted:
            if not sequence.preemptions:
                self._admitted(sequence)
        latency = self._histograms["inter_token_latency_seconds"]
        first = self._histograms["time_to_first_token_seconds"]
        for emission in report.emissions:
            if emission.previous_at is None:
                first.observe(report.at - emission.sequence.arrived_at)
            else:
                latency.observe(report.at - emission.previous_at)
        if report.drafts:
            self._speculated(report)

    def _admitted(self, sequence: Answering) -> None:
        cached, fetched = sequence.cached_tokens, sequence.fetched_tokens
        self._counters["prompt_tokens"].inc(sequence.prompt_tokens)
        self._counters["prefix_cache_queries"].inc(sequence.prompt_tokens)
        self._counters["prefix_cache_hits"].inc(cached)
        self._counters["prompt_tokens_cached"].inc(cached + fetched)
        if self._transfers:
            self._counters["external_prefix_cache_queries"].inc(sequence.prompt_tokens - cached)
            self._counters["external_prefix_cache_hits"].inc(fetched)
        self._sources["local_compute"].inc(sequence.prompt_tokens - cached - fetched)
        self._sources["local_cache_hit"].inc(cached)
        self._sources["external_kv_transfer"].inc(fetched)
        self._tiers["p2p"].inc(fetched)
        self._tiers["device"].inc(cached)

    def _speculated(self, report: StepReport) -> None:
        self._counters["spec_decode_num_drafts"].inc(report.drafts)
        self._counters["spec_decode_num_draft_tokens"].inc(report.draft_tokens)
        self._counters["spec_decode_num_accepted_tokens"].inc(sum(report.accepted_by_position))
        for position, accepted in enumerate(report.accepted_by_position):
            self._accepted_at.labels(**self._labels, position=str(position)).inc(accepted)

    def finished(self, sequence: Answering, reason: str, *, max_tokens: int) -> None:
        """Count an answer that ended; one that was never scheduled counts by its reason only."""
        self._finished[reason].inc()
        scheduled, first, ended = sequence.scheduled_at, sequence.first_token_at, sequence.finished_at
        if scheduled is None or first is None or ended is None:
            return
        observe = self._observe
        observe("e2e_request_latency_seconds", ended - sequence.arrived_at)
        observe("request_queue_time_seconds", scheduled - sequence.arrived_at)
        observe("request_inference_time_seconds", ended - scheduled)
        observe("request_prefill_time_seconds", first - scheduled)
        observe("request_decode_time_seconds", ended - first)
        observe("request_prompt_tokens", sequence.prompt_tokens)
        observe("request_generation_tokens", sequence.written_tokens)
        observe("request_params_max_tokens", max_tokens)
        observe("request_num_preemptions", sequence.preemptions)
        observe(
            "request_prefill_kv_computed_tokens",
            sequence.prompt_tokens - sequence.cached_tokens - sequence.fetched_tokens,
        )
        if sequence.written_tokens > 1:
            observe("request_time_per_output_token_seconds", (ended - first) / (sequence.written_tokens - 1))

    def request(self, *, samples: int, longest_tokens: int) -> None:
        """Count a request, whose answers are counted one by one."""
        self._observe("request_params_n", samples)
        self._observe("request_max_num_generation_tokens", longest_tokens)

    def _observe(self, name: str, value: float) -> None:
        self._histograms[name].observe(max(0.0, value))
