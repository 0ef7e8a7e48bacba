"""Scripts alone: which attempts they ask for, told how each one ended."""

import pytest

from support.routing import ladder, planned
from trimtab_crds.strategyspec import Signal
from trimtab_router.core.events import EventReader, Piece, Splitter, read_event
from trimtab_router.core.http1 import FramingError
from trimtab_router.core.ladder import Rung
from trimtab_router.core.oneattempt import one_attempt
from trimtab_router.core.strategies.choose import script
from trimtab_router.core.strategies.script import Choice, Outcome, Query, instructed
from trimtab_router.core.strategies.verified import score

MESSAGES = [{"role": "user", "content": "q"}]


def query(tier="low", thinking=None, **changes):
    strategy = changes.pop("strategy", {})
    tiers = [
        {"name": n, "pool": f"pool-{n}", "thinkingTokens": t, "outputTokens": 100, "strategy": strategy}
        for n, t in {"low": thinking or 0, "medium": 1000, "high": 4000}.items()
    ]
    on = ladder(tiers=tiers, **changes)
    plan = planned({"model": "auto", "messages": MESSAGES}, on)
    name = plan.spending.strategy.verifier_pool
    verifier = None if name is None else Rung(-1, "verifier", on.config.pool(name), 0, 0, graded=False)
    return Query(plan, MESSAGES, "q", verifier)


def play(asked, answers):
    """Ends attempts in order as `answers` says; returns the choice and the attempts."""
    running, made, pending = script(asked), [], []
    wanted = next(running)
    try:
        while True:
            for attempt in wanted:
                made.append(attempt)
                pending.append(len(made) - 1)
            number = pending.pop(0)
            said = answers[number]
            how = said if isinstance(said, dict) else {"text": said} if said is not None else {"ended": "Failed"}
            wanted = running.send(Outcome(**{"number": number, "ended": "Complete"} | how))
    except StopIteration as stop:
        return stop.value, made


def shape(made):
    return [(a.role, a.rung.name) for a in made]


VOTE = {"type": "SelfConsistency", "samples": 5, "wave": 5, "stopPercent": 90}


@pytest.mark.parametrize(
    ("answers", "choice", "count"),
    [
        (["4", "4", "4"], Choice(0, "Decided"), 3),
        (["5", "4", "4", "4"], Choice(1, "CannotChange"), 4),
        (["1", "2", "3", "4", "the long text"], Choice(0, "AllSamples"), 5),
        ([None, None, None, None, None], Choice(-1, "NoAnswer"), 5),
        (["4", {"ended": "CeilingReached"}, "4"], Choice(0, "Running"), 3),
    ],
    ids=["agree", "lead", "differ", "all fail", "ceiling"],
)
def test_self_consistency(answers, choice, count):
    found, made = play(query(strategy=VOTE), answers + ["4"] * 5)
    assert (found.number, len(made)) == (choice.number, count)
    assert found.why == choice.why


def test_disagreement_goes_up_where_escalation_is_on():
    found, made = play(query(strategy=VOTE, escalation={"maxSteps": 1}), ["1", "2", "3", "4", "5", "6"])
    assert found == Choice(5, "Disagreement")
    assert shape(made)[-1] == ("escalation", "medium")
    found, _ = play(query(strategy=VOTE, escalation={"maxSteps": 1}), ["1", "2", "3", "4", "5", None])
    assert found.number >= 0


def test_mixed_forms():
    mixed = {"type": "MixedForm", "samples": 3}
    found, made = play(query(strategy=mixed), ["7", "8", "so the answer is 8"])
    assert found == Choice(2, "FormsAgree")
    assert next(a.thinking_tokens for a in made) == 0
    found, made = play(query(strategy=mixed), ["7", None, "8", "9"])
    assert found == Choice(3, "FormsDisagree")


@pytest.mark.parametrize(
    ("answers", "choice"),
    [
        (["a", "b", "Score: 90"], Choice(0, "Accepted")),
        (["a", "b", "Score: 10", "score 60", "c", "d", None, None], Choice(1, "BestScore")),
        (["a", "a", None, "no number", "b", "b", None, None], Choice(0, "NoScore")),
        ([None, None], Choice(-1, "NoAnswer")),
    ],
    ids=["good enough", "best", "no score", "all fail"],
)
def test_best_of_n(answers, choice):
    strategy = {"type": "BestOfN", "samples": 4, "wave": 2, "acceptPercent": 80, "verifierPool": "pool-high"}
    found, made = play(query(strategy=strategy), answers)
    assert found == choice
    assert {a.rung.pool.name for a in made if a.role == "verifier"} <= {"pool-high"}


@pytest.mark.parametrize(
    ("answers", "choice", "count"),
    [
        (["a", "Score: 90"], Choice(0, "Accepted"), 2),
        (["a", "Score: 50", "b", "Score: 40"], Choice(0, "BestScore"), 4),
        (["a", "Score: 50", None], Choice(0, "Failed"), 3),
        (["a", None], Choice(0, "NoScore"), 2),
        ([None], Choice(-1, "Failed"), 1),
    ],
)
def test_refine(answers, choice, count):
    strategy = {"type": "Refine", "samples": 2, "acceptPercent": 80, "verifierPool": "pool-high"}
    found, made = play(query(strategy=strategy), answers)
    assert (found, len(made)) == (choice, count)


@pytest.mark.parametrize(
    ("strategy", "answers", "choice", "tiers"),
    [
        ({"samples": 2}, ["4", "4"], Choice(0, "Accepted"), "low low"),
        ({"samples": 2}, ["4", "5", "6", "6"], Choice(2, "Accepted"), "low low medium medium"),
        ({"samples": 2}, ["1", "2", "3", "4", "5"], Choice(4, "LastTier"), "low low medium medium high"),
        ({"samples": 1}, [{"text": "4", "confidence": 0.9}], Choice(0, "Accepted"), "low"),
        (
            {"samples": 1},
            [{"text": "4", "confidence": 0.1}, {"text": "4", "confidence": 0.1}, None],
            Choice(1, "Failed"),
            "low medium high",
        ),
        ({"samples": 1, "verifierPool": "pool-high"}, ["4", "Score: 95"], Choice(0, "Accepted"), "low verifier"),
    ],
)
def test_cascade(strategy, answers, choice, tiers):
    found, made = play(query(strategy={"type": "Cascade", **strategy}), answers)
    assert found == choice
    assert [a.rung.name for a in made] == tiers.split()


def test_a_watched_answer_climbs_or_thinks_longer_at_most_as_often_as_allowed():
    asked = query(thinking=100, escalation={"maxSteps": 2, "budgetPercent": 300})
    spent = {"ended": "Cut", "signal": Signal.BUDGET_EXHAUSTED, "resumable": True}
    lost = {"ended": "Cut", "signal": Signal.REPETITION}
    found, made = play(asked, [spent, lost, "4"])
    assert found == Choice(2, "Repetition")
    assert shape(made) == [("answer", "low"), ("continuation", "low"), ("escalation", "medium")]
    assert (made[1].thinking_tokens, made[1].resumes) == (300, 0)
    assert [bool(a.watch) for a in made] == [True, True, False]


def test_a_thought_that_cannot_be_resumed_begins_again():
    spent = {"ended": "Cut", "signal": Signal.BUDGET_EXHAUSTED}
    _, made = play(query(thinking=100, escalation={"maxSteps": 1}), [spent, "4"])
    assert (made[1].role, made[1].resumes, made[1].thinking_tokens) == ("escalation", None, 200)


def test_a_continuation_whose_replica_is_gone_begins_again():
    spent = {"ended": "Cut", "signal": Signal.BUDGET_EXHAUSTED, "resumable": True}
    found, made = play(query(thinking=100, escalation={"maxSteps": 1}), [spent, None, "4"])
    assert found == Choice(2, "ReplicaLost")
    assert made[2].resumes is None


def test_a_continuation_that_breaks_off_in_its_answer_is_not_made_again():
    spent = {"ended": "Cut", "signal": Signal.BUDGET_EXHAUSTED, "resumable": True}
    broken = {"ended": "Failed", "begun": True}
    found, made = play(query(thinking=100, escalation={"maxSteps": 1}), [spent, broken])
    assert (found.number, len(made)) == (-1, 2)


def test_the_top_tier_only_thinks_longer():
    on = ladder(escalation={"maxSteps": 1})
    plan = planned({"model": "auto", "messages": MESSAGES}, on, x_trimtab_tier="high")
    (attempt,) = next(script(Query(plan, MESSAGES, "q")))
    assert attempt.watch == {Signal.BUDGET_EXHAUSTED}


@pytest.mark.parametrize(
    ("text", "expected"), [("Score: 70", 70), ("score 5. Score: **88**", 88), ("Score: 900", 100), ("good", None)]
)
def test_scores(text, expected):
    assert score(text) == expected


def test_instructions_reach_the_last_turn_of_the_user():
    assert instructed(MESSAGES, "x")[-1]["content"] == "q\n\nx"
    parts = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    assert instructed(parts, "x")[-1]["content"][-1] == {"type": "text", "text": "x"}
    assert instructed([{"role": "assistant", "content": "a"}], "x")[-1] == {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, ""),
        ({"messages": [], "n": 1, "tools": []}, ""),
        ({"messages": [], "n": 3}, "n"),
        ({"messages": [], "logprobs": True}, "logprobs"),
        ({"prompt": "x"}, "prompt"),
    ],
)
def test_fields_of_one_attempt(body, field):
    assert one_attempt(body) == field


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_come_out_whole_however_the_bytes_are_cut(size):
    payload = [b'data: {"choices":[{"text":"a"}]}\n\n', b": ping\n\ndata: [DO", b"NE]\n\n"]
    raw = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in payload) + b"0\r\n\r\n"
    reader = EventReader(chunked=True)
    events = [e for i in range(0, len(raw), size) for e in reader.feed(raw[i : i + size])]
    assert events == [b'data: {"choices":[{"text":"a"}]}', b": ping", b"data: [DONE]"]
    assert [read_event(e) for e in events] == [Piece(text="a"), None, None]


def test_events_that_are_errors_or_no_json():
    assert read_event(b'data: {"error":{"message":"no","code":500}}').error == "no"
    with pytest.raises(FramingError, match="not JSON"):
        read_event(b"data: {")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_mark_that_ends_reasoning_is_found_across_events(size):
    text = "a < b </thin k</think>\n\nThe answer </think> stays"
    splitter = Splitter("</think>")
    parts = [splitter.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join(r for r, _ in parts) == "a < b </thin k"
    assert "".join(c for _, c in parts) == "The answer </think> stays"
    unended = Splitter("</think>")
    assert unended.feed("x</th") == ("x", "")
    assert unended.rest() == "</th"
