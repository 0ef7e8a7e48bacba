"""The simulated scheduler, on a fake clock: batching, queueing, preemption, prefix hits, speculation."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_cli.engine_sim.engine import Engine, EngineConfig, Rejection, Sequence, StepReport
from trimtab_cli.engine_sim.prefixes import block_hashes
from trimtab_cli.engine_sim.speculation import Speculation
from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.capacity import ModelShape, Replica, step_seconds

REPLICA = Replica(ModelShape(8_000_000_000, 8_000_000_000, 32, 8, 128), CATALOGUE["nvidia-h100-80gb"])
CONFIG = EngineConfig(REPLICA, max_sequences=4, max_batched_tokens=512, kv_capacity_tokens=10_000)


def sequence(key: int, prompt: int = 100, output: int = 10, blocks: tuple[int, ...] = ()) -> Sequence:
    return Sequence(key, prompt, output, blocks)


def submit(engine: Engine, *sequences: Sequence, now: float = 0.0) -> None:
    for item in sequences:
        engine.submit(item, now)


def run(engine: Engine, now: float = 0.0, until: float = 1e6) -> list[StepReport]:
    """Jump from step to step until the engine is idle."""
    reports = engine.advance(now)
    while (at := engine.next_event_at) is not None and at <= until:
        reports += engine.advance(at)
    return reports


def test_an_idle_engine_has_nothing_to_do():
    engine = Engine(CONFIG)
    assert engine.advance(5.0) == []
    assert engine.next_event_at is None
    assert engine.idle
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0)


def test_one_sequence_is_read_and_then_written_token_by_token():
    engine, one = Engine(CONFIG), sequence(1, prompt=100, output=3)
    submit(engine, one, now=2.0)
    reports = run(engine, now=2.0)
    assert [report.prefill_tokens for report in reports] == [100, 0, 0]
    assert [sum(e.tokens for e in report.emissions) for report in reports] == [1, 1, 1]
    assert reports[-1].finished == [one]
    assert (one.arrived_at, one.scheduled_at) == (2.0, 2.0)
    assert one.first_token_at == reports[0].at
    assert one.finished_at == one.last_token_at == reports[-1].at
    assert engine.idle


def test_steps_last_what_the_capacity_model_says():
    engine, one = Engine(CONFIG), sequence(1, prompt=100, output=2)
    submit(engine, one)
    first, second = run(engine)
    assert first.at == pytest.approx(step_seconds(REPLICA, prefill_tokens=100, decode_sequences=0, kv_tokens=0))
    decode = step_seconds(REPLICA, prefill_tokens=0, decode_sequences=1, kv_tokens=101)
    assert second.at - first.at == pytest.approx(decode)


def test_the_time_scale_divides_the_time():
    def duration(scale: float) -> float:
        engine = Engine(replace(CONFIG, time_scale=scale))
        submit(engine, sequence(1))
        return run(engine)[-1].at

    assert duration(10) == pytest.approx(duration(1) / 10)


def test_a_late_call_catches_up_with_all_steps():
    engine, one = Engine(CONFIG), sequence(1, output=5)
    submit(engine, one)
    engine.advance(0.0)
    reports = engine.advance(100.0)
    assert len(reports) == 5
    assert one.finished_at < 1


def test_long_prompts_are_read_in_chunks_beside_the_decodes():
    engine, long, short = Engine(CONFIG), sequence(1, prompt=1200, output=2), sequence(2, prompt=50, output=20)
    submit(engine, short)
    engine.advance(0.0)
    submit(engine, long)
    reports = run(engine)
    # One of 512 tokens goes to the decode of the short one.
    assert [report.prefill_tokens for report in reports[:4]] == [50, 511, 511, 178]
    assert [e.sequence for e in reports[1].emissions] == [short]
    assert {e.sequence for e in reports[3].emissions} == {long, short}


def test_the_batch_is_bounded_and_the_rest_waits_in_order():
    engine = Engine(CONFIG)
    many = [sequence(i, prompt=10, output=5) for i in range(10)]
    submit(engine, *many)
    engine.advance(0.0)
    assert (engine.running, engine.waiting) == (4, 6)
    run(engine)
    finished = [item.finished_at for item in many]
    assert finished == sorted(finished)
    assert many[4].scheduled_at == many[0].finished_at


def test_bigger_batches_take_longer_steps():
    def last_step(count: int) -> float:
        engine = Engine(CONFIG)
        submit(engine, *(sequence(i, prompt=10, output=20) for i in range(count)))
        reports = run(engine)
        return reports[-1].at - reports[-2].at

    assert last_step(1) < last_step(4) < 4 * last_step(1)


def test_admission_waits_for_room_in_the_cache():
    engine = Engine(replace(CONFIG, kv_capacity_tokens=300))
    first, second = sequence(1, prompt=200, output=5), sequence(2, prompt=200, output=5)
    submit(engine, first, second)
    engine.advance(0.0)
    assert (engine.running, engine.waiting) == (1, 1)
    assert engine.kv_usage == pytest.approx(200 / 300)
    run(engine)
    assert second.scheduled_at == first.finished_at
    assert (first.preemptions, second.preemptions) == (0, 0)


def test_the_youngest_is_preempted_and_finishes_later():
    engine = Engine(replace(CONFIG, kv_capacity_tokens=250))
    old, young = sequence(1, prompt=100, output=100), sequence(2, prompt=100, output=100)
    submit(engine, old, young)
    reports = run(engine)
    assert sum(report.preempted for report in reports) == young.preemptions > 0
    assert old.preemptions == 0
    assert (old.written_tokens, young.written_tokens) == (100, 100)
    assert old.finished_at < young.finished_at
    # The prompt and what was written before the preemption are computed again.
    assert sum(report.prefill_tokens for report in reports) > 200


def test_an_aborted_sequence_writes_no_more_and_makes_room():
    engine = Engine(replace(CONFIG, max_sequences=1))
    gone, queued, after = sequence(1, output=500), sequence(2), sequence(3)
    submit(engine, gone, queued, after)
    engine.advance(0.0)
    engine.advance(engine.next_event_at)
    written, now = gone.written_tokens, engine.next_event_at / 2
    engine.abort(gone, now)
    engine.abort(queued, now)
    engine.abort(gone, now)
    run(engine)
    assert (gone.written_tokens, gone.finished_at) == (written, now)
    assert (queued.written_tokens, queued.scheduled_at) == (0, None)
    assert after.written_tokens == 10


def test_a_sequence_aborted_in_the_middle_of_a_step_gets_none_of_its_tokens():
    engine, one = Engine(CONFIG), sequence(1)
    submit(engine, one)
    engine.advance(0.0)
    engine.abort(one, 0.0)
    (report,) = run(engine)
    assert report.emissions == []
    assert engine.idle


# --- queue limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "asked", "limit", "refused"),
    [
        pytest.param(0, 4, 0, False, id="all-run-at-once"),
        pytest.param(0, 5, 0, True, id="one-would-wait"),
        pytest.param(4, 1, 0, True, id="full"),
        pytest.param(4, 2, 2, False, id="queue-has-room"),
        pytest.param(4, 3, 2, True, id="queue-too-short"),
        pytest.param(4, 500, None, False, id="no-limit"),
    ],
)
def test_queued_requests_are_limited(running: int, asked: int, limit: int | None, refused: bool):
    engine = Engine(replace(CONFIG, max_queued_requests=limit))
    submit(engine, *(sequence(i) for i in range(running)))
    engine.advance(0.0)
    assert engine.rejection(asked, 100) == (Rejection.QUEUED_REQUESTS if refused else None)


def test_queued_tokens_are_limited():
    engine = Engine(replace(CONFIG, max_sequences=1, max_queued_tokens=250))
    submit(engine, sequence(1), sequence(2))
    engine.advance(0.0)
    assert engine.rejection(1, 150) is None
    assert engine.rejection(1, 151) == Rejection.QUEUED_TOKENS


# --- prefix cache --------------------------------------------------------------------------------------------------

PROMPT = "".join(f"word{i:04d}" for i in range(100))
BLOCKS = block_hashes(PROMPT, 64)


def test_a_repeated_prompt_is_read_from_the_cache():
    engine = Engine(CONFIG)
    first, second = (sequence(i, prompt=200, output=2, blocks=BLOCKS) for i in (1, 2))
    submit(engine, first)
    run(engine)
    submit(engine, second, now=10.0)
    reports = run(engine, now=10.0)
    assert (first.cached_tokens, second.cached_tokens) == (0, 192)
    assert reports[0].prefill_tokens == 8
    assert second.first_token_at - 10.0 < first.first_token_at


def test_the_last_prompt_token_is_never_cached():
    engine, blocks = Engine(CONFIG), block_hashes(PROMPT[:512], 64)
    first, second = (sequence(i, prompt=128, output=1, blocks=blocks) for i in (1, 2))
    for item in (first, second):
        submit(engine, item)
        run(engine)
    assert second.cached_tokens == 112


def test_prefix_caching_can_be_switched_off():
    engine = Engine(replace(CONFIG, prefix_caching=False))
    for key in (1, 2):
        item = sequence(key, prompt=200, output=1, blocks=BLOCKS)
        submit(engine, item)
        run(engine)
        assert item.cached_tokens == 0


# --- speculation ---------------------------------------------------------------------------------------------------


def speculating(acceptance: float, tokens: int = 3, **fields: object) -> Engine:
    return Engine(replace(CONFIG, speculation=Speculation(tokens, acceptance, **fields)))


@pytest.mark.parametrize(("acceptance", "steps"), [(0.0, 13), (1.0, 4)])
def test_accepted_tokens_save_steps(acceptance: float, steps: int):
    engine = speculating(acceptance)
    submit(engine, sequence(1, output=13))
    reports = run(engine)
    assert len(reports) == steps
    assert sum(e.tokens for report in reports for e in report.emissions) == 13


def test_accepted_tokens_are_counted_by_position():
    engine = speculating(0.7)
    submit(engine, sequence(7, output=400))
    reports = [report for report in run(engine) if report.drafts]
    totals = [sum(report.accepted_by_position[i] for report in reports) for i in range(3)]
    drafts = sum(report.drafts for report in reports)
    assert sum(report.draft_tokens for report in reports) == 3 * drafts
    assert totals == sorted(totals, reverse=True)
    assert [total / drafts for total in totals] == pytest.approx([0.7, 0.49, 0.343], abs=0.12)


def test_speculation_can_depend_on_the_batch():
    speculation = Speculation(3, 0.5, by_batch=((1, 2, 5), (3, 1000, 0)))
    assert [speculation.draft_tokens(batch) for batch in (1, 2, 3)] == [5, 5, 0]
    assert Speculation(3, 0.5, by_batch=((8, 9, 1),)).draft_tokens(1) == 3


def test_a_draft_costs_time():
    def first_decode(cost: float) -> float:
        engine = speculating(0.0, draft_cost=cost)
        submit(engine, sequence(1, output=2))
        reports = run(engine)
        return reports[1].at - reports[0].at

    assert first_decode(0.5) == pytest.approx(1.5 * first_decode(0.0))


# --- invariants ----------------------------------------------------------------------------------------------------

ARRIVALS = st.lists(
    st.tuples(st.floats(0, 0.5), st.integers(1, 600), st.integers(1, 40), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=60)
@given(ARRIVALS, st.integers(1, 6), st.integers(700, 3000), st.sampled_from([0.0, 0.6]))
def test_every_sequence_ends_and_bounds_hold(arrivals, max_sequences: int, capacity: int, acceptance: float):
    config = replace(
        CONFIG,
        max_sequences=max_sequences,
        kv_capacity_tokens=capacity,
        speculation=Speculation(2 if acceptance else 0, acceptance),
    )
    engine, steps, kept, gone = Engine(config), [], [], []
    for key, (at, prompt, output, leaves) in enumerate(sorted(arrivals)):
        steps += engine.advance(at)
        item = sequence(key, prompt, output)
        engine.submit(item, at)
        steps += engine.advance(at)
        assert engine.running <= max_sequences
        assert 0 <= engine.kv_usage <= 1
        (gone if leaves else kept).append(item)
        if leaves:
            engine.abort(item, at)
    steps += run(engine, now=1.0)
    assert engine.idle
    assert all(item.written_tokens == item.output_tokens and item.finished_at is not None for item in kept)
    assert all(item.written_tokens <= item.output_tokens for item in gone)
    assert [report.at for report in steps] == sorted(report.at for report in steps)
    assert sorted(item.key for report in steps for item in report.finished) == [item.key for item in kept]
    written = sum(emission.tokens for report in steps for emission in report.emissions)
    assert written >= sum(item.output_tokens for item in kept)
