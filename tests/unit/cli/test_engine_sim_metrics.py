"""The metrics of the simulated engine, fed by the scheduler on a fake clock."""

import pytest

from support.exposition import Exposition
from trimtab_cli.engine_sim.engine import Engine, Rejection, Sequence
from trimtab_cli.engine_sim.metrics import Metrics, one_two_five
from trimtab_cli.engine_sim.settings import settings_from

PROMPT_BLOCKS = tuple(range(6))


class Simulation:
    """An engine with its metrics."""

    def __init__(self, *flags: str) -> None:
        settings = settings_from(["Qwen/Qwen3-8B", "--max-num-seqs=2", *flags], {})
        self.engine = Engine(settings.engine)
        self.metrics = Metrics(self.engine, settings.engine, model_name="tiny", max_model_len=settings.max_model_len)

    def run(self, *sequences: Sequence) -> Exposition:
        for sequence in sequences:
            self.engine.submit(sequence, 0.0)
        now = 0.0
        while True:
            for report in self.engine.advance(now):
                self.metrics.step(report)
                for sequence in report.finished:
                    self.metrics.finished(sequence, "stop", max_tokens=50)
            if self.engine.next_event_at is None:
                return self.read()
            now = self.engine.next_event_at

    def read(self) -> Exposition:
        return Exposition(self.metrics.render().decode())


@pytest.mark.parametrize(
    ("limit", "buckets"), [(1, [1]), (9, [1, 2, 5]), (2048, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000])]
)
def test_token_buckets_go_up_to_the_window(limit: int, buckets: list[int]):
    assert one_two_five(limit) == buckets


def test_everything_is_there_before_the_first_request():
    metrics = Simulation().read()
    assert metrics.value("vllm:num_requests_running") == 0
    assert metrics.labels["vllm:request_success_total"] == {"engine", "model_name", "finished_reason"}
    assert metrics.value("vllm:engine_sleep_state", sleep_state="awake") == 1
    assert metrics.value("vllm:cache_config_info", block_size="16") == 1
    assert "vllm:spec_decode_num_drafts_total" not in metrics.types


def test_tokens_and_latencies_are_counted():
    metrics = Simulation().run(Sequence(1, 100, 10), Sequence(2, 50, 20))
    assert metrics.value("vllm:prompt_tokens_total") == 150
    assert metrics.value("vllm:generation_tokens_total") == 30
    assert metrics.value("vllm:time_to_first_token_seconds_count") == 2
    assert metrics.value("vllm:inter_token_latency_seconds_count") == 28
    assert metrics.value("vllm:request_success_total", finished_reason="stop") == 2
    assert metrics.value("vllm:request_generation_tokens_sum") == 30
    assert metrics.value("vllm:request_params_max_tokens_sum") == 100
    assert metrics.value("vllm:iteration_tokens_total_sum") == 180


def test_phases_add_up_to_the_whole():
    metrics = Simulation().run(*(Sequence(i, 400, 30) for i in range(6)))

    def total(phase: str) -> float:
        return metrics.value(f"vllm:{phase}_seconds_sum")

    queue, prefill, decode = (total(f"request_{phase}_time") for phase in ("queue", "prefill", "decode"))
    assert queue > 0
    assert total("request_inference_time") == pytest.approx(prefill + decode)
    assert total("e2e_request_latency") == pytest.approx(queue + prefill + decode)


def test_prefix_hits_are_told_apart():
    simulation = Simulation()
    simulation.run(Sequence(1, 100, 2, PROMPT_BLOCKS))
    metrics = simulation.run(Sequence(2, 100, 2, PROMPT_BLOCKS))
    assert metrics.value("vllm:prefix_cache_queries_total") == 200
    assert metrics.value("vllm:prefix_cache_hits_total") == 96
    assert metrics.value("vllm:prompt_tokens_by_source_total", source="local_compute") == 104
    assert metrics.value("vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 96
    assert metrics.value("vllm:request_prefill_kv_computed_tokens_sum") == 104


def test_a_preempted_prompt_counts_once():
    simulation = Simulation("--num-gpu-blocks-override=16", "--max-model-len=256")
    metrics = simulation.run(Sequence(1, 100, 100), Sequence(2, 100, 100))
    assert metrics.value("vllm:num_preemptions_total") > 0
    assert metrics.value("vllm:prompt_tokens_total") == 200
    assert metrics.value("vllm:request_num_preemptions_sum") == metrics.value("vllm:num_preemptions_total")


def test_the_gauges_follow_the_engine():
    simulation = Simulation()
    for key in range(5):
        simulation.engine.submit(Sequence(key, 100, 10), 0.0)
    simulation.engine.advance(0.0)
    metrics = simulation.read()
    assert metrics.value("vllm:num_requests_running") == 2
    assert metrics.value("vllm:num_requests_waiting") == 3
    assert metrics.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
    assert 0 < metrics.value("vllm:kv_cache_usage_perc") < 1


def test_speculation_is_counted_by_position():
    simulation = Simulation("--spec-method=mtp", "--spec-tokens=2")
    metrics = simulation.run(Sequence(1, 10, 100))
    drafts = metrics.value("vllm:spec_decode_num_drafts_total")
    accepted = metrics.value("vllm:spec_decode_num_accepted_tokens_total")
    assert metrics.value("vllm:spec_decode_num_draft_tokens_total") == 2 * drafts
    by_position = [
        metrics.value("vllm:spec_decode_num_accepted_tokens_per_pos_total", position=str(i)) for i in range(2)
    ]
    assert sum(by_position) == accepted
    assert by_position[0] > by_position[1] > 0


@pytest.mark.parametrize("reason", list(Rejection))
def test_rejections_are_counted_by_reason(reason: Rejection):
    simulation = Simulation()
    simulation.metrics.rejected(reason)
    metrics = simulation.read()
    assert metrics.value("vllm:admission_rejections_total", reason=reason.value) == 1
    assert metrics.value("vllm:admission_rejections_total") == 1


def test_requests_are_counted_beside_their_answers():
    simulation = Simulation()
    simulation.metrics.request(samples=3, longest_tokens=40)
    metrics = simulation.read()
    assert metrics.value("vllm:request_params_n_sum") == 3
    assert metrics.value("vllm:request_max_num_generation_tokens_sum") == 40


def test_an_answer_that_never_ran_has_no_latency():
    simulation = Simulation()
    simulation.metrics.finished(Sequence(1, 10, 10), "abort", max_tokens=10)
    metrics = simulation.read()
    assert metrics.value("vllm:request_success_total", finished_reason="abort") == 1
    assert metrics.value("vllm:e2e_request_latency_seconds_count") == 0
