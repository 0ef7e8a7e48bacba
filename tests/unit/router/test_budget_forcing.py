"""Thoughts that end too early and go on: the script alone, and from the request to the last byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.attempts import Greedy, chat_events, chat_stream, content_of, reasoning_of, strategic, text_stream
from support.routing import chat, ladder, planned, scores
from support.running import on_loop, request, running
from support.upstream import END, STREAM_HEAD, FakeEngine, die, event, hang, raw_answer
from trimtab_router.core.attempts import Forced, Thought, without
from trimtab_router.core.explain import plan_as_dict
from trimtab_router.core.strategies.choose import script
from trimtab_router.core.strategies.script import Choice, Outcome, Query
from trimtab_router.shell.tokens import tokens_of

MESSAGES = [{"role": "user", "content": "q"}]
TEXTS = {"Wait": [900, 901], "</think>": [999]}
FORCING = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 8, "continuations": 2}}


def play(endings, *, thinking=100, **forcing):
    """Ends the attempts as told; returns the choice and the attempts."""
    strategy = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 50, "continuations": 2, **forcing}}
    tiers = [
        {"name": "low", "pool": "pool-high", "thinkingTokens": thinking, "outputTokens": 100, "strategy": strategy},
        {"name": "high", "pool": "pool-low"},
    ]
    on = ladder(tiers=tiers, classifier={"defaultTier": "low"}, classes=[], context=[])
    running_, made = script(Query(planned({"model": "auto", "messages": MESSAGES}, on), MESSAGES, "q")), []
    wanted = next(running_)
    try:
        while True:
            (attempt,) = wanted
            made.append(attempt)
            how = {"ended": "Complete"} | endings[len(made) - 1]
            wanted = running_.send(Outcome(number=len(made) - 1, **how))
    except StopIteration as stop:
        return stop.value, made


EARLY = {"ended": "Cut", "early": True, "resumable": True}
FAILED = {"ended": "Failed"}


@pytest.mark.parametrize(
    ("endings", "choice", "attempts"),
    [
        ([{}], Choice(0, "Complete"), [("answer", None, 50)]),
        ([EARLY, {}], Choice(1, "Forced"), [("answer", None, 50), ("continuation", 0, 50)]),
        (
            [EARLY, EARLY, {}],
            Choice(2, "Forced"),
            [("answer", None, 50), ("continuation", 0, 50), ("continuation", 1, 0)],
        ),
        ([{"unforced": "NoTokenIds"}], Choice(0, "NoTokenIds"), [("answer", None, 50)]),
        ([EARLY, {"unforced": "NoRoom"}], Choice(1, "NoRoom"), [("answer", None, 50), ("continuation", 0, 50)]),
        ([FAILED], Choice(-1, "Failed"), [("answer", None, 50)]),
        ([{"ended": "CeilingReached"}], Choice(-1, "CeilingReached"), [("answer", None, 50)]),
        (
            [EARLY, FAILED, {}],
            Choice(2, "ReplicaLost"),
            [("answer", None, 50), ("continuation", 0, 50), ("continuation", 0, 0)],
        ),
        (
            [EARLY, FAILED | {"resumable": True}, {}],
            Choice(2, "ReplicaLost"),
            [("answer", None, 50), ("continuation", 0, 50), ("continuation", 1, 0)],
        ),
        (
            [EARLY, FAILED | {"unforced": "NoTokenizer"}, FAILED, {}],
            Choice(3, "NoTokenizer"),
            [("answer", None, 50), ("continuation", 0, 50), ("continuation", 0, 0), ("escalation", None, 0)],
        ),
        (
            [EARLY, FAILED | {"begun": True}],
            Choice(-1, "Failed"),
            [("answer", None, 50), ("continuation", 0, 50)],
        ),
        (
            [EARLY, FAILED, FAILED, FAILED],
            Choice(-1, "Failed"),
            [("answer", None, 50), ("continuation", 0, 50), ("continuation", 0, 0), ("escalation", None, 0)],
        ),
    ],
    ids=[
        *("long enough", "once", "at most as often as allowed", "cannot go on", "no room", "no answer", "no ceiling"),
        *("a lost replica", "a replica lost in the continuation", "anew", "lost in the answer", "nothing left"),
    ],
)
def test_the_script(endings, choice, attempts):
    found, made = play(endings)
    assert found == choice
    assert [(a.role, a.resumes, a.least_thinking_tokens) for a in made] == attempts
    assert all(bool(a.word) == (a.role == "continuation" and not a.anywhere) for a in made)


def test_the_budget_bounds_what_is_forced():
    _, (attempt,) = play([{}], thinking=20)
    assert (attempt.thinking_tokens, attempt.least_thinking_tokens) == (20, 20)


@pytest.mark.parametrize(
    ("ids", "end", "kept"),
    [
        ((1, 2, 9, 3), (9,), (1, 2)),
        ((1, 8, 9, 3), (8, 9), (1,)),
        ((1, 8, 3), (8, 9), (1, 8, 3)),
        ((), (9,), ()),
        ((1, 2), (), (1, 2)),
    ],
    ids=["one token", "several tokens", "not the whole mark", "nothing", "no mark"],
)
def test_the_end_of_a_thought_is_taken_away(ids, end, kept):
    assert without(ids, end) == kept
    assert Thought((5,), ids).going_on(Forced((7, 7), end)) == Thought((5,), (*kept, 7, 7))


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"count":2,"max_model_len":9,"tokens":[4,5],"token_strs":null}', (4, 5)),
        (b'{"tokens":["a"]}', ()),
        (b"[1]", ()),
        (b"<html>", ()),
    ],
    ids=["vllm", "no numbers", "no object", "no json"],
)
def test_answers_to_tokenize(body, tokens):
    assert tokens_of(body) == tokens


def test_explain_shows_what_is_forced_and_expects_nothing_of_it():
    tiers = [{"name": "low", "pool": "pool-high", "thinkingTokens": 100, "outputTokens": 100}]
    single = ladder(tiers=tiers, classifier={"defaultTier": "low"}, classes=[], context=[])
    tiers[0]["strategy"] = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 80, "text": "Hmm"}}
    forcing = ladder(tiers=tiers, classifier={"defaultTier": "low"}, classes=[], context=[])
    plain, forced = (plan_as_dict(planned({"model": "auto", "messages": MESSAGES}, on)) for on in (single, forcing))
    assert forced["strategy"] == "budget-forcing"
    assert forced["spending"]["options"]["forcing"] == {"min_thinking_tokens": 80, "continuations": 2, "text": "Hmm"}
    assert forced["budget"]["samples"] == 1
    assert forced["candidates"][0]["quality"] == plain["candidates"][0]["quality"]
    assert forced["candidates"][0]["expected_output_tokens"] == plain["candidates"][0]["expected_output_tokens"] + 30


def test_a_class_that_forces_makes_it_no_candidate_of_others_until_something_is_learned_of_it():
    tiers = [{"name": "low", "pool": "pool-high", "thinkingTokens": 100}]
    strategy = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 80}}
    classes = [{"name": "math", "tier": "low", "thinkingTokens": 60, "strategy": strategy}]
    on = ladder(tiers=tiers, classifier={"defaultTier": "low"}, classes=classes, context=[])
    found = plan_as_dict(planned({"model": "auto", "messages": MESSAGES}, on, scores(class_name="code")))
    assert [c["strategy"] for c in found["candidates"]] == ["single"]
    untried = [(u["strategy"], u["thinking_tokens"]) for u in found["unmeasured"]]
    assert untried == [("single", 60), ("budget-forcing", 100)]


def engine(*plan, default=None, texts=TEXTS):
    made = FakeEngine(default)
    made.plan, made.texts = list(plan), texts
    return made


def forcing(*low, strategy=FORCING, thinking=40, **how):
    content = strategic(*low, strategy=strategy, **how)
    content["tiers"][0]["thinkingTokens"] = thinking
    content["pools"][0]["thinkingEnd"] = "</think>"
    return content


def thought(count, *words):
    return chat_stream(*words, thoughts=tuple(f"t{i} " for i in range(count)), ids=True)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_thought_that_ends_too_early_goes_on_after_a_word(stream):
    @on_loop
    async def test():
        goes_on = text_stream(" so", " b", " c", "</think>", "\n\n", "late", first_id=200)
        async with engine(thought(4, "early"), goes_on) as low, running(forcing(low)) as router:
            response = await router.ask(chat(stream=stream, temperature=0.3, stream_options={"include_usage": True}))
            first, second = low.got
            assert first.body["return_token_ids"] is True
            assert second.line == "POST /v1/completions HTTP/1.1"
            assert second.body["prompt"] == [1, 2, 3, 100, 101, 102, 103, 900, 901]
            assert (second.body["thinking_token_budget"], second.body["temperature"]) == (40, 0.3)
            whole = "t0 t1 t2 t3 Wait so b c"
            if stream:
                assert (reasoning_of(response.body), content_of(response.body)) == (whole, "late")
            else:
                answer = response.json()
                message, used = answer["choices"][0]["message"], answer["usage"]
                assert (message["reasoning"], message["content"]) == (whole, "late")
                assert used["trimtab"]["ended"] == "Forced"
                attempts = used["trimtab"]["attempts"]
                assert [(a["role"], a.get("signal")) for a in attempts] == [
                    ("answer", "EndedEarly"),
                    ("continuation", None),
                ]
                assert used["completion_tokens"] == sum(a["completion_tokens"] for a in attempts)
                assert used["completion_tokens_details"]["reasoning_tokens"] == 4 + 3

    test()


@on_loop
async def test_it_is_forced_at_most_as_often_as_allowed_and_each_word_is_asked_once():
    again = [text_stream(" a", "</think>", "no", first_id=200 + 10 * i) for i in range(2)]
    async with engine(thought(2, "no"), *again, thought(2, "no"), *again) as low, running(forcing(low)) as router:
        for _ in range(2):
            answer = (await router.ask(chat())).json()
            message = answer["choices"][0]["message"]
            assert (message["reasoning"], message["content"]) == ("t0 t1 Wait aWait a", "no")
            assert len(answer["usage"]["trimtab"]["attempts"]) == 3
        assert low.got[2].body["prompt"] == [1, 2, 3, 100, 101, 900, 901, 200, 900, 901]
        assert [got.body["prompt"] for got in low.tokenized] == ["Wait", "</think>"]
        assert low.tokenized[0].body["add_special_tokens"] is False


@pytest.mark.parametrize(("count", "thinking"), [(8, 40), (6, 8)], ids=["it is long enough", "the budget is used up"])
def test_a_thought_that_is_not_cut_streams_on(count, thinking):
    @on_loop
    async def test():
        async with engine(thought(count, "a", "b")) as low, running(forcing(low, thinking=thinking)) as router:
            answer = (await router.ask(chat())).json()
            assert answer["choices"][0]["message"]["content"] == "ab"
            assert answer["usage"]["trimtab"]["ended"] == "Complete"
            assert len(low.got) == 1

    test()


@pytest.mark.parametrize(
    ("why", "behaviour", "how"),
    [
        ("NoTokenizer", thought(4, "a", "b"), {"texts": None}),
        ("NoTokenizer", thought(4, "a", "b"), {"texts": {"Wait": [], "</think>": [9]}}),
        ("NoTokenIds", chat_stream("a", "b", thoughts=("t",) * 4), {}),
        ("NoRoom", thought(4, "a", "b"), {"ceiling": {"tokens": 1200}}),
    ],
    ids=["no endpoint", "no tokens", "an engine that tells no ids", "a ceiling"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_where_a_thought_cannot_go_on_its_answer_is_taken(why, behaviour, how, stream):
    @on_loop
    async def test():
        settings = dict(how)
        async with (
            engine(behaviour, texts=settings.pop("texts", TEXTS)) as low,
            running(forcing(low, **settings)) as router,
        ):
            response = await router.ask(chat(stream=stream, stream_options={"include_usage": True}))
            assert len(low.got) == 1
            if stream:
                assert content_of(response.body) == "ab"
                assert f'"ended":"{why}"' in response.body.decode()
            else:
                assert response.json()["choices"][0]["message"]["content"] == "ab"
                assert response.json()["usage"]["trimtab"]["ended"] == why

    test()


@on_loop
async def test_an_answer_with_a_grammar_is_taken():
    async with engine(chat_stream("{}", thoughts=("t",) * 4)) as low, running(forcing(low)) as router:
        answer = (await router.ask(chat(response_format={"type": "json_object"}))).json()
        assert "return_token_ids" not in low.got[0].body
        assert answer["usage"]["trimtab"]["ended"] == "NoTokenIds"


@on_loop
async def test_an_end_that_shares_its_event_with_the_answer_is_taken_away_and_shown_once():
    choice = {"index": 0, "delta": {"reasoning": "t2 ", "content": "early"}, "token_ids": [102, 999, 555]}
    both = event({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5}})
    first = raw_answer(STREAM_HEAD, *chat_events(thoughts=("t0 ", "t1 "), ids=True), both, event("[DONE]") + END)
    merged = text_stream(" so</think>\n\nlate", first_id=200)
    async with engine(first, merged) as low, running(forcing(low)) as router:
        response = await router.ask(chat(stream=True))
        assert (reasoning_of(response.body), content_of(response.body)) == ("t0 t1 t2 Wait so", "late")
        assert low.got[1].body["prompt"] == [1, 2, 3, 100, 101, 102, 900, 901]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_thought_whose_replica_is_gone_goes_on_elsewhere(stream):
    @on_loop
    async def test():
        ends = text_stream("</think>", "late", first_id=300)
        lost = [die, die] if not stream else [die]  # nothing of the thought was read: it may try again
        async with engine(thought(4, "early"), *lost, ends) as low, running(forcing(low)) as router:
            response = await router.ask(chat(stream=stream, stream_options={"include_usage": True}))
            assert low.got[-1].body["prompt"] == [1, 2, 3, 100, 101, 102, 103]
            if stream:
                assert (reasoning_of(response.body), content_of(response.body)) == ("t0 t1 t2 t3 ", "late")
                assert '"ended":"ReplicaLost"' in response.body.decode()
            else:
                message = response.json()["choices"][0]["message"]
                assert (message["reasoning"], message["content"]) == ("t0 t1 t2 t3 ", "late")
                assert response.json()["usage"]["trimtab"]["ended"] == "ReplicaLost"

    test()


@on_loop
async def test_a_replica_that_dies_while_it_goes_on_loses_nothing_of_the_thought():
    half = text_stream(" so", " b", first_id=200, end=False)
    ends = text_stream(" c", "</think>", "late", first_id=300)
    async with engine(thought(4, "early"), half, ends) as low, running(forcing(low)) as router:
        response = await router.ask(chat(stream=True))
        assert (reasoning_of(response.body), content_of(response.body)) == ("t0 t1 t2 t3 Wait so b c", "late")
        assert low.got[2].body["prompt"] == [1, 2, 3, 100, 101, 102, 103, 900, 901, 200, 201]


@on_loop
async def test_an_answer_that_breaks_off_after_it_was_begun_is_not_made_again_in_vain():
    half = text_stream(" so", "</think>", "late", " an", first_id=200, end=False)
    once = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 8, "continuations": 1}}
    async with engine(thought(4, "early"), half) as low, running(forcing(low, strategy=once)) as router:
        response = await router.ask(chat(stream=True))
        assert '"content":" an"' in response.body.decode()
        assert "the engine closed the connection" in response.body.decode()
        assert len(low.got) == 2


@on_loop
async def test_a_pool_without_replicas_answers_on_another_tier_unforced():
    async with engine(thought(4, "other"), texts=None) as medium:
        content = forcing(medium=(medium,))
        content["pools"][1]["thinkingEnd"] = "</think>"
        content["pools"][1]["reasoning"] = True
        async with running(content) as router:
            answer = (await router.ask(chat())).json()
            assert answer["choices"][0]["message"]["content"] == "other"
            assert answer["usage"]["trimtab"]["ended"] == "OtherTier"


@on_loop
async def test_a_client_that_leaves_while_the_word_is_asked_for_ends_it():
    async with engine(thought(4, "early"), hang) as low, running(forcing(low)) as router:
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: len(low.got) == 2)
        client.writer.close()
        await router.until(lambda: not router.worker.exchanges)
        await router.until(low.got[1].client_gone.is_set)


ACTS = st.tuples(st.sampled_from([0.1, 0.5, 1.0, 1.0]), st.sampled_from(["end", "end", "end", "die", "busy"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTS, max_size=6), st.integers(20, 400), st.booleans(), st.booleans(), st.booleans())
def test_no_engine_writes_more_than_the_ceiling_together(acts, tokens, stream, leaves, tells):
    """A first attempt takes three eighths of the ceiling, so that a few more fit, and the last of them do not."""

    @on_loop
    async def test():
        greedy = Greedy(acts)
        low, other = (engine(default=greedy.behave, texts=TEXTS if tells else None) for _ in range(2))
        strategy = {"type": "BudgetForcing", "forcing": {"minThinkingTokens": 100, "continuations": 4}}
        async with low, other:
            content = forcing(low, other, strategy=strategy, thinking=tokens // 4, ceiling={"tokens": tokens})
            content["tiers"][0]["outputTokens"] = max(tokens // 8, 1)
            async with running(content) as router:
                await router.ask_or_leave(chat(stream=stream), [low, other], leaves=leaves)
        assert greedy.written <= tokens

    test()
