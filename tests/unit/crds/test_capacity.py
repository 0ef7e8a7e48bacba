"""The capacity model: published points, monotonicity, memory."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.capacity import (
    SECONDS_PER_STEP,
    ModelShape,
    Replica,
    largest_batch,
    memory_batch,
    prefill_seconds,
    rates,
    step_seconds,
)

H100, H200 = CATALOGUE["nvidia-h100-80gb"], CATALOGUE["nvidia-h200-141gb"]
LLAMA_8B = ModelShape(8_030_000_000, 8_030_000_000, 32, 8, 128, query_width=4096)
LLAMA_70B_FP8 = ModelShape(70_600_000_000, 70_600_000_000, 80, 8, 128, weight_bits=8, kv_bits=8, query_width=8192)
GPT_OSS_20B = ModelShape(
    20_900_000_000, 3_600_000_000, 24, 8, 64, weight_bits=5,
    full_attention_layers=12, window_tokens=128, query_width=4096,
)  # fmt: skip
GPT_OSS_120B = ModelShape(
    116_800_000_000, 5_100_000_000, 36, 8, 64, weight_bits=4,
    full_attention_layers=18, window_tokens=128, query_width=4096,
)  # fmt: skip

#: Output tokens per second and GPU at maximum load: TensorRT-LLM performance overview.
PUBLISHED = [
    ("llama-70b", LLAMA_70B_FP8, H100, 2, 1000, 1000, 2209),
    ("llama-70b", LLAMA_70B_FP8, H100, 2, 8192, 1024, 398),
    ("llama-70b", LLAMA_70B_FP8, H200, 2, 1000, 1000, 2587),
    ("llama-70b", LLAMA_70B_FP8, H200, 2, 1024, 8192, 2009),
    ("llama-70b", LLAMA_70B_FP8, H200, 2, 8192, 1024, 537),
    ("llama-70b", LLAMA_70B_FP8, H200, 2, 32768, 1024, 120),
    ("gpt-oss-20b", GPT_OSS_20B, H100, 1, 1000, 1000, 11557),
    ("gpt-oss-20b", GPT_OSS_20B, H100, 1, 1024, 8192, 8617),
    ("gpt-oss-20b", GPT_OSS_20B, H100, 1, 8192, 1024, 3366),
    ("gpt-oss-20b", GPT_OSS_20B, H100, 1, 32768, 1024, 785),
    ("gpt-oss-20b", GPT_OSS_20B, H200, 1, 1000, 1000, 13858),
    ("gpt-oss-20b", GPT_OSS_20B, H200, 1, 8192, 1024, 4015),
    ("gpt-oss-120b", GPT_OSS_120B, H200, 1, 1000, 1000, 6868),
    ("gpt-oss-120b", GPT_OSS_120B, H200, 1, 1024, 8192, 3543),
    ("gpt-oss-120b", GPT_OSS_120B, H200, 1, 8192, 1024, 1828),
    ("gpt-oss-120b", GPT_OSS_120B, H200, 1, 32768, 1024, 519),
]


def log_error(point: tuple) -> float:
    _, shape, gpu, gpus, inputs, outputs, published = point
    replica = Replica(shape, gpu, gpus, max_sequences=2048)
    predicted = rates(replica, input_tokens=inputs, output_tokens=outputs, tpot_seconds=10)
    return abs(math.log(predicted.requests_per_second * outputs / gpus / published))


def test_the_prior_meets_the_published_points():
    errors = [log_error(point) for point in PUBLISHED]
    assert sum(errors) / len(errors) <= 0.15


@pytest.mark.parametrize(("model", "worst"), [("llama-70b", 0.12), ("gpt-oss-20b", 0.12), ("gpt-oss-120b", 0.65)])
def test_no_single_point_is_far_off(model: str, worst: float):
    assert max(log_error(point) for point in PUBLISHED if point[0] == model) <= worst


@pytest.mark.parametrize(
    ("gpu", "gpus", "batch", "context", "milliseconds"),
    [
        pytest.param("nvidia-a100-80gb", 2, 1, 512, 8.5, id="a100-tp2-1"),
        pytest.param("nvidia-a100-80gb", 2, 8, 512, 10.2, id="a100-tp2-8"),
        pytest.param("nvidia-h100-80gb", 1, 1, 1000, 6.5, id="h100-1"),
        pytest.param("nvidia-h100-80gb", 1, 16, 1000, 10.9, id="h100-16"),
    ],
)
def test_single_steps_of_an_8b_model(gpu: str, gpus: int, batch: int, context: int, milliseconds: float):
    replica = Replica(LLAMA_8B, CATALOGUE[gpu], gpus)
    step = step_seconds(replica, prefill_tokens=0, decode_sequences=batch, kv_tokens=batch * context)
    assert 0.7 <= step * 1000 / milliseconds <= 1.4


SHAPES = st.sampled_from([LLAMA_8B, LLAMA_70B_FP8, GPT_OSS_20B, GPT_OSS_120B])
REPLICAS = st.builds(
    Replica, SHAPES, st.sampled_from(list(CATALOGUE.values())), st.integers(1, 16), st.integers(1, 2048)
)
FITTING = REPLICAS.filter(lambda replica: replica.kv_capacity_tokens > 20_000)


@given(REPLICAS, st.integers(0, 8192), st.integers(0, 512), st.integers(1, 200_000), st.integers(1, 8192))
def test_more_work_never_takes_less_time(replica: Replica, prefill: int, batch: int, kv: int, more: int):
    def seconds(prefill_tokens: int, decode_sequences: int, kv_tokens: int) -> float:
        return step_seconds(
            replica, prefill_tokens=prefill_tokens, decode_sequences=decode_sequences, kv_tokens=kv_tokens
        )

    base = seconds(prefill, batch, kv)
    slack = 1 + 1e-9
    assert base >= SECONDS_PER_STEP / replica.clipped_correction
    assert seconds(prefill + more, batch, kv) * slack >= base
    assert seconds(prefill, batch, kv + more) * slack >= base


@given(FITTING, st.integers(1, 4000), st.integers(1, 4000), st.floats(0.005, 1))
def test_a_looser_target_never_lowers_the_batch(replica: Replica, context: int, tokens: int, tpot: float):
    tight = largest_batch(replica, context_tokens=context, tpot_seconds=tpot)
    loose = largest_batch(replica, context_tokens=context, tpot_seconds=2 * tpot)
    assert 1 <= tight <= loose <= replica.max_sequences
    slow = rates(replica, input_tokens=context, output_tokens=tokens, tpot_seconds=tpot)
    fast = rates(replica, input_tokens=context, output_tokens=tokens, tpot_seconds=2 * tpot)
    assert slow.batch <= fast.batch
    assert slow.requests_per_second <= fast.requests_per_second * (1 + 1e-9)


@given(FITTING, st.integers(1, 4000), st.integers(1, 4000), st.floats(0.01, 1))
def test_the_rates_of_a_mix_share_the_time(replica: Replica, inputs: int, outputs: int, tpot: float):
    found = rates(replica, input_tokens=inputs, output_tokens=outputs, tpot_seconds=tpot)
    seconds = inputs / found.prompt_tokens_per_second + outputs / found.output_tokens_per_second
    assert found.requests_per_second == pytest.approx(1 / seconds)
    assert found.time_per_output_token_seconds <= tpot or found.batch == 1


@given(FITTING, st.integers(1, 4000), st.floats(0.01, 1))
def test_the_largest_batch_is_the_largest(replica: Replica, context: int, tpot: float):
    batch = largest_batch(replica, context_tokens=context, tpot_seconds=tpot)
    above = batch + 1
    step = step_seconds(replica, prefill_tokens=0, decode_sequences=above, kv_tokens=above * context)
    assert above > memory_batch(replica, context_tokens=context) or step > tpot


@given(FITTING, st.integers(100, 4000), st.integers(100, 4000))
def test_twice_the_gpus_do_more(replica: Replica, inputs: int, outputs: int):
    double = replace(replica, gpus=2 * replica.gpus)
    one = rates(replica, input_tokens=inputs, output_tokens=outputs, tpot_seconds=0.2)
    two = rates(double, input_tokens=inputs, output_tokens=outputs, tpot_seconds=0.2)
    assert two.requests_per_second >= one.requests_per_second


@pytest.mark.parametrize(
    ("correction", "factor"), [(1.0, 1.0), (1.5, 1.5), (2.0, 2.0), (9.0, 2.0), (0.5, 0.5), (0.01, 0.5)]
)
def test_the_correction_scales_speed_within_bounds(correction: float, factor: float):
    replica = Replica(LLAMA_8B, H100)
    plain = step_seconds(replica, prefill_tokens=100, decode_sequences=8, kv_tokens=8000)
    corrected = step_seconds(replica.corrected(correction), prefill_tokens=100, decode_sequences=8, kv_tokens=8000)
    assert corrected == pytest.approx(plain / factor)


@pytest.mark.parametrize(
    ("shape", "gpu", "gpus", "fits"),
    [
        pytest.param(LLAMA_8B, "nvidia-l4-24gb", 1, True, id="8b-on-l4"),
        pytest.param(LLAMA_8B, "nvidia-t4-16gb", 1, False, id="8b-on-t4"),
        pytest.param(LLAMA_70B_FP8, "nvidia-l40s-48gb", 1, False, id="70b-fp8-on-one-l40s"),
        pytest.param(LLAMA_70B_FP8, "nvidia-h100-80gb", 2, True, id="70b-fp8-on-two-h100"),
        pytest.param(GPT_OSS_120B, "nvidia-h100-80gb", 1, True, id="120b-fp4-on-one-h100"),
        pytest.param(replace(LLAMA_70B_FP8, weight_bits=16), "nvidia-h200-141gb", 1, False, id="70b-bf16-on-h200"),
    ],
)
def test_what_fits_into_memory(shape: ModelShape, gpu: str, gpus: int, fits: bool):
    replica = Replica(shape, CATALOGUE[gpu], gpus)
    assert (replica.kv_capacity_tokens > 0) == fits
    found = rates(replica, input_tokens=500, output_tokens=200, tpot_seconds=0.1)
    assert (found.requests_per_second > 0) == fits
    assert (largest_batch(replica, context_tokens=600, tpot_seconds=0.1) > 0) == fits


def test_a_context_that_does_not_fit_has_no_batch():
    replica = Replica(LLAMA_8B, CATALOGUE["nvidia-l4-24gb"])
    assert memory_batch(replica, context_tokens=replica.kv_capacity_tokens) == 1
    assert memory_batch(replica, context_tokens=replica.kv_capacity_tokens * 2) == 0


def test_a_target_that_even_one_sequence_misses_still_runs_one():
    replica = Replica(LLAMA_70B_FP8, H100, 2)
    assert largest_batch(replica, context_tokens=1000, tpot_seconds=0.001) == 1
    found = rates(replica, input_tokens=1000, output_tokens=100, tpot_seconds=0.001)
    assert found.batch == 1
    assert found.time_per_output_token_seconds > 0.001


def test_fp8_cache_doubles_what_fits():
    plain = Replica(LLAMA_8B, H100)
    halved = Replica(replace(LLAMA_8B, kv_bits=8), H100)
    assert halved.kv_capacity_tokens == pytest.approx(2 * plain.kv_capacity_tokens, abs=1)


def test_a_single_token_of_a_moe_reads_its_active_experts():
    replica = Replica(GPT_OSS_120B, H200)
    alone = step_seconds(replica, prefill_tokens=0, decode_sequences=1, kv_tokens=1000)
    crowd = step_seconds(replica, prefill_tokens=0, decode_sequences=64, kv_tokens=64_000)
    assert alone < 0.005
    assert crowd > 3 * alone


def test_later_chunks_of_a_prompt_cost_more():
    replica = Replica(LLAMA_8B, H100)

    def chunk(position: int) -> float:
        return step_seconds(replica, prefill_tokens=2048, decode_sequences=0, kv_tokens=0, prefill_position=position)

    assert chunk(0) < chunk(16_384) < chunk(65_536)


def test_a_prompt_costs_more_than_its_length():
    replica = Replica(LLAMA_8B, H100)
    short, long = (prefill_seconds(replica, input_tokens=tokens) for tokens in (1000, 32_000))
    assert long > 32 * short


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gpus": 0}, "gpus is 0; a replica has at least 1"),
        ({"max_sequences": 0}, "max_sequences is 0; it must be at least 1"),
        ({"correction": 0.0}, "correction is 0.0; it must be above 0"),
        ({"correction": float("nan")}, "correction is nan; it must be above 0"),
    ],
)
def test_replicas_that_cannot_run(fields: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Replica(LLAMA_8B, H100, **fields)
