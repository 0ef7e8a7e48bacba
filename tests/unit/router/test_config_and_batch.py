"""The configuration file and its last good content; the classifier's batches and their deadline."""

import json
import logging

import pytest

from support.routing import BrokenScorer, FixedScorer, document, scores
from trimtab_classifier.features import Query
from trimtab_router.shell.batch import LARGE_BYTES, MAX_BATCH, Batch
from trimtab_router.shell.config import ConfigFile


def write(path, content):
    fresh = path.with_suffix(".new")
    fresh.write_text(content if isinstance(content, str) else json.dumps(content))
    fresh.replace(path)


def test_a_changed_file_is_applied_once(tmp_path):
    path, applied = tmp_path / "router.json", []
    write(path, document())
    config = ConfigFile(str(path), lambda on: applied.append(on.config.quality))
    config.poll()
    config.poll()
    write(path, document(quality=80))
    config.poll()
    write(path, document(quality=80))
    config.poll()
    assert applied == [50, 80]
    assert config.valid


def test_a_symlink_swap_is_a_change(tmp_path):
    for name, quality in (("one", 10), ("two", 90)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "router.json", document(quality=quality))
    data, link, applied = tmp_path / "..data", tmp_path / "router.json", []
    data.symlink_to("one")
    link.symlink_to("..data/router.json")
    config = ConfigFile(str(link), lambda on: applied.append(on.config.quality))
    config.poll()
    fresh = tmp_path / "..fresh"
    fresh.symlink_to("two")
    fresh.replace(data)
    config.poll()
    assert applied == [10, 90]


BAD = {
    "no JSON": ("{", "document: Invalid JSON: EOF while parsing an object at line 1 column 1"),
    "unknown tier": (
        document(classifier={"defaultTier": "huge"}),
        "document: Value error, classifier.defaultTier names tier 'huge', which is not in tiers: high, low, medium",
    ),
    "unknown field": (document(colour="red"), "colour: Extra inputs are not permitted"),
    "format of tomorrow": (document(format=2), "format: Input should be 1"),
    "an address without a port": (
        document({"low": {"addresses": ["10.0.0.1"]}}),
        "pools.pool-low.addresses: ['10.0.0.1'] must be host:port texts",
    ),
}


@pytest.mark.parametrize(("content", "problem"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named_and_the_last_good_one_stays(tmp_path, caplog, content, problem):
    path, applied = tmp_path / "router.json", []
    write(path, document())
    config = ConfigFile(str(path), applied.append)
    config.poll()
    digest = config.digest
    with caplog.at_level(logging.ERROR):
        write(path, content)
        config.poll()
    assert (config.valid, config.problem, config.digest, len(applied)) == (False, problem, digest, 1)
    assert f"keeping configuration {digest}" in caplog.text
    write(path, document())
    config.poll()
    assert config.valid


def test_a_missing_file_is_waited_for(tmp_path, caplog):
    path, applied = tmp_path / "router.json", []
    config = ConfigFile(str(path), applied.append)
    config.poll()
    config.poll()
    assert caplog.text.count("waiting for a valid one") == 1
    assert (config.valid, applied) == (False, [])
    write(path, document())
    config.poll()
    assert (config.valid, len(applied)) == (True, 1)


class Tick:
    """An event loop's call_soon and a clock, by hand."""

    def __init__(self):
        self.now = 0.0
        self.soon = []

    def clock(self):
        return self.now

    def call_soon(self, callback):
        self.soon.append(callback)

    def run(self):
        due, self.soon = self.soon, []
        for callback in due:
            callback()


class SlowScorer(FixedScorer):
    """Takes a second."""

    def __init__(self, tick):
        super().__init__()
        self.tick = tick

    def score(self, queries):
        self.tick.now += 1.0
        return super().score(queries)


def submitted(count, scorer, tick, size=100):
    batch, got = Batch(scorer, tick.call_soon, tick.clock), []
    for _ in range(count):
        batch.submit(Query("x"), size, got.append)
    return got


def test_the_requests_of_a_tick_are_one_batch():
    tick, scorer = Tick(), FixedScorer()
    got = submitted(5, scorer, tick)
    assert got == []
    tick.run()
    assert (got, scorer.batches, tick.soon) == ([scores()] * 5, [5], [])


def test_a_large_body_is_not_held():
    tick, scorer = Tick(), FixedScorer()
    assert submitted(2, scorer, tick, LARGE_BYTES + 1) == [scores()] * 2
    assert (scorer.batches, tick.soon) == ([1, 1], [])


def test_a_long_queue_is_scored_in_parts():
    tick, scorer = Tick(), FixedScorer()
    got = submitted(MAX_BATCH + 3, scorer, tick)
    tick.run()
    assert len(got) == MAX_BATCH
    tick.run()
    assert (len(got), scorer.batches, tick.soon) == (MAX_BATCH + 3, [MAX_BATCH, 3], [])


def test_a_query_that_waited_too_long_is_not_scored():
    tick, scorer = Tick(), FixedScorer()
    got = submitted(2, scorer, tick)
    tick.now = 0.06
    tick.run()
    assert (got, scorer.batches) == ([None, None], [])


def test_scores_that_come_too_late_are_not_used():
    tick = Tick()
    got = submitted(2, SlowScorer(tick), tick)
    tick.run()
    assert got == [None, None]


def test_a_broken_classifier_is_a_miss_and_is_said_once_a_minute(caplog):
    tick = Tick()
    batch, got = Batch(BrokenScorer(), tick.call_soon, tick.clock), []
    for _ in range(3):
        batch.submit(Query("x"), 1, got.append)
        tick.run()
    assert got == [None] * 3
    assert caplog.text.count("the classifier failed") == 1
    tick.now = 61.0
    batch.submit(Query("x"), 1, got.append)
    tick.run()
    assert caplog.text.count("the classifier failed") == 2
