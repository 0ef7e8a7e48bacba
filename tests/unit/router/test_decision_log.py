"""The decision log and `POST /v1/feedback`: what is written, what never is, and that nothing waits for it."""

import json
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.attempts import chat_stream, strategic
from support.routing import FixedScorer, chat, document, scores
from support.running import on_loop, running, with_engines
from support.upstream import FakeEngine, die, json_answer
from trimtab_classifier.features import Query
from trimtab_router.core.decisions import read_feedback
from trimtab_router.core.errors import ApiError
from trimtab_router.shell.decisionlog import FILES, DecisionLog, Folder, check

SECRET = "the launch code is 0000"
FEEDBACK = "/v1/feedback"


class Kept:
    """A sink that remembers; it may be made to wait or to refuse."""

    def __init__(self, *, gate: threading.Event | None = None, error: OSError | None = None) -> None:
        self.lines: list[bytes] = []
        self.closed = False
        self.entered = threading.Event()
        self._gate, self._error = gate, error

    def write(self, line: bytes) -> None:
        self.entered.set()
        if self._gate is not None:
            self._gate.wait(20)
        if self._error is not None:
            raise self._error
        self.lines.append(line)

    def close(self) -> None:
        self.closed = True

    def records(self):
        return [json.loads(line) for line in self.lines]


def kept_log(sink, **how):
    return DecisionLog(sink, clock=lambda: 1000.25, **how)


async def _served(*asks, behaviour=None, tenants=None, **how):
    """Records of requests to a router with one engine behind every tier."""
    sink = Kept()
    log = kept_log(sink)
    async with FakeEngine(behaviour) as engine:
        content = document(with_engines(low=[engine], medium=[engine], high=[engine]), tenants=tenants)
        async with running(content, log=log, **how) as router:
            answers = [await router.ask(body, **options) for body, options in asks]
    log.close()
    assert sink.closed
    return answers, sink


@on_loop
async def test_every_ended_request_is_a_line_without_its_text():
    score = scores(class_name="math", gain=0.25)
    ask = (chat(SECRET), {"x_request_id": "one", "authorization": "Bearer hidden"})
    _, sink = await _served(ask, scorer=FixedScorer(score))
    (found,) = sink.records()
    assert 0 <= found.pop("seconds") < 20
    assert len(found.pop("query")) == 16
    assert len(found.pop("config")) == 16
    tokens = found.pop("prompt_tokens")
    assert found.pop("cost") == pytest.approx((tokens * 0.0001 + 7 * 0.001) / 3600, rel=1e-3)
    assert found == {
        "kind": "decision",
        "time": 1000.25,
        "request_id": "one",
        "policy": "default/chat",
        "class": "math",
        "class_probability": 0.9,
        "gain": 0.25,
        "out_of_domain": 0.5,
        "tier": "high",
        "planned_tier": "high",
        "pool": "pool-high",
        "thinking_tokens": 4000,
        "output_tokens": 1000,
        "strategy": "single",
        "reason": "Gain",
        "outcome": "ok",
        "attempts": 1,
        "used_tokens": 7,
    }
    assert not any(word in b"".join(sink.lines) for word in (SECRET.encode(), b"Bearer", b"hidden"))


@on_loop
async def test_a_line_names_the_tenant_where_there_are_any_and_never_its_key():
    key = "acme-key-0123456789"
    with TemporaryDirectory() as folder:
        (Path(folder) / "acme").mkdir()
        (Path(folder) / "acme" / "laptop").write_text(key)
        tenants = [{"name": "acme", "keyed": True}, {"name": "default"}]
        asks = [(chat(), {"authorization": f"Bearer {key}"}), (chat(), {})]
        _, sink = await _served(*asks, tenants=tenants, keys=folder)
    assert [found["tenant"] for found in sink.records()] == ["acme", "default"]
    assert key not in b"".join(sink.lines).decode()


@on_loop
async def test_a_failed_request_is_a_line_too():
    _, sink = await _served((chat(), {}), behaviour=die)
    (found,) = sink.records()
    assert (found["outcome"], found["attempts"], found["used_tokens"]) == ("upstream_error", 2, 0)


@on_loop
async def test_by_hand_there_is_no_score():
    _, sink = await _served((chat(), {"x_trimtab_tier": "medium"}))
    (found,) = sink.records()
    assert (found["class"], found["gain"], found["reason"], found["tier"]) == ("unscored", None, "TierHeader", "medium")


@on_loop
async def test_feedback_follows_the_answer():
    answers, sink = await _served(
        (chat(), {"x_request_id": "one"}),
        ({"request_id": "one", "correct": True}, {"path": FEEDBACK}),
        ({"request_id": "one", "score": 0.25}, {"path": FEEDBACK}),
    )
    assert [a.status for a in answers] == [200, 202, 202]
    assert answers[2].json() == {"request_id": "one", "score": 0.25}
    assert sink.records()[1:] == [
        {"kind": "feedback", "time": 1000.25, "request_id": "one", "score": 1.0},
        {"kind": "feedback", "time": 1000.25, "request_id": "one", "score": 0.25},
    ]


@on_loop
async def test_a_router_without_a_log_says_so():
    async with running() as router:
        answer = await router.ask({"request_id": "one", "correct": True}, path=FEEDBACK)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "no_decision_log")
    assert "--decision-log" in answer.message


@on_loop
async def test_nobody_waits_for_a_disk_that_hangs_and_what_is_dropped_is_counted():
    gate = threading.Event()
    sink = Kept(gate=gate)
    log = kept_log(sink, capacity=1)
    async with FakeEngine() as engine:
        content = document(with_engines(low=[engine], medium=[engine], high=[engine]))
        async with running(content, log=log) as router:
            assert (await router.ask(chat())).status == 200
            await router.until(sink.entered.is_set)
            assert [(await router.ask(chat())).status for _ in range(5)] == [200] * 5
            refused = await router.ask({"request_id": "one", "correct": False}, path=FEEDBACK)
            report = router.worker.report()["tally"]["log"]
    gate.set()
    log.close()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert report == {"written": 0, "dropped": 5}
    assert (log.written, log.dropped) == (2, 5)


def test_a_disk_that_refuses_is_counted_and_the_log_lives_on(caplog):
    log = kept_log(Kept(error=OSError("no space left")))
    assert log.put({"n": 1})
    assert log.put({"n": 2})
    log.close()
    assert (log.written, log.dropped) == (0, 2)
    assert [r.getMessage() for r in caplog.records] == ["decision log: no space left; records are dropped and counted"]


BAD = {
    "nothing": ({}, "request_id: missing; send the x-request-id of the answer"),
    "no id": ({"correct": True}, "request_id: missing; send the x-request-id of the answer"),
    "an empty id": (
        {"request_id": "", "correct": True},
        'request_id: "" is not allowed; use the x-request-id of the answer, 1 to 128 characters',
    ),
    "a number for an id": (
        {"request_id": 5, "correct": True},
        "request_id: 5 is not allowed; use the x-request-id of the answer, 1 to 128 characters",
    ),
    "a line break in the id": (
        {"request_id": "a\nb", "correct": True},
        'request_id: "a\\nb" is not allowed; use the x-request-id of the answer, 1 to 128 characters',
    ),
    "no judgement": (
        {"request_id": "a"},
        "correct: missing; say true or false, or give score from 0 to 1",
    ),
    "two judgements": (
        {"request_id": "a", "correct": True, "score": 1},
        "correct: score is there, too; give one of the two",
    ),
    "a word": ({"request_id": "a", "correct": "yes"}, 'correct: "yes" is not allowed; use true or false'),
    "above 1": (
        {"request_id": "a", "score": 1.5},
        "score: 1.5 is not allowed; use a number from 0 (wrong) to 1 (right)",
    ),
    "below 0": (
        {"request_id": "a", "score": -0.1},
        "score: -0.1 is not allowed; use a number from 0 (wrong) to 1 (right)",
    ),
    "true for a score": (
        {"request_id": "a", "score": True},
        "score: true is not allowed; use a number from 0 (wrong) to 1 (right)",
    ),
    "another field": (
        {"request_id": "a", "correct": True, "prompt": "x"},
        "prompt: no such field; use request_id, correct, score",
    ),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_bad_feedback_names_field_value_and_fix(body, message):
    with pytest.raises(ApiError) as refusal:
        read_feedback(body)
    assert (refusal.value.status, refusal.value.message) == (400, message)


def test_files_are_bounded_and_the_oldest_go(tmp_path):
    most = 80 * FILES
    folder = Folder(tmp_path, most, pid=7)
    other = tmp_path / "notes.txt"
    other.write_text("x" * 5000)
    lines = [b"%039d\n" % n for n in range(100)]
    for line in lines:
        folder.write(line)
        assert sum(f.stat().st_size for f in tmp_path.glob("*.jsonl")) <= most
    folder.close()
    left = b"".join(f.read_bytes() for f in sorted(tmp_path.glob("*.jsonl")))
    assert left == b"".join(lines[-2 * FILES :])
    assert other.exists()


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match="file"):
        check(str(file / "log"))
    check(str(tmp_path / "new" / "log"))
    assert list((tmp_path / "new" / "log").iterdir()) == []


def test_hashes_tell_equal_queries_but_not_to_another_worker():
    one, two = kept_log(Kept()), kept_log(Kept())
    first, again, other = Query(SECRET), Query(SECRET), Query("hello")
    assert one.fingerprint(first) == one.fingerprint(again) != one.fingerprint(other)
    assert one.fingerprint(first) != two.fingerprint(first)
    one.close()
    two.close()


@on_loop
async def test_an_answer_of_the_engine_that_rejects_is_said():
    _, sink = await _served((chat(), {}), behaviour=json_answer(status=400, body={"error": {}}))
    assert sink.records()[0]["outcome"] == "rejected"


@on_loop
async def test_a_strategys_cost_is_that_of_all_its_attempts():
    sink = Kept()
    vote = {"type": "SelfConsistency", "samples": 2, "wave": 2, "stopRule": "AllSamples"}
    async with FakeEngine(chat_stream("4")) as low:
        async with running(strategic(low, strategy=vote), log=(log := kept_log(sink))) as router:
            used = (await router.ask(chat())).json()["usage"]
        log.close()
    (found,) = sink.records()
    assert (found["strategy"], found["attempts"]) == ("self-consistency", 2)
    assert found["used_tokens"] == used["completion_tokens"]
    assert found["cost"] == pytest.approx(used["trimtab"]["cost"])
    assert found["cost"] > 0
