"""Queries with several attempts, from the client's request to the last byte."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.attempts import Greedy, chat_stream, content_of, events_of, reasoning_of, strategic, text_stream
from support.routing import chat
from support.running import on_loop, request, running
from support.upstream import FakeEngine, die, hang, json_answer
from trimtab_router.shell.call import Call, Order
from trimtab_router.shell.request import Request

VOTE = {"type": "SelfConsistency", "samples": 5, "wave": 3, "stopPercent": 90}


def engine(*plan, default=None):
    made = FakeEngine(default)
    made.plan = list(plan)
    return made


@on_loop
async def test_samples_vote_and_the_account_is_the_sum():
    async with (
        engine(*(chat_stream(w) for w in ("4", "5", "4", "4", "4"))) as low,
        running(strategic(low, strategy=VOTE)) as router,
    ):
        response = await router.ask(chat())
        answer = response.json()
        assert response.headers["x-trimtab-strategy"] == "self-consistency"
        assert answer["choices"][0]["message"]["content"] == "4"
        assert answer["object"] == "chat.completion"
        used = answer["usage"]
        attempts = used["trimtab"]["attempts"]
        assert used["completion_tokens"] == sum(a["completion_tokens"] for a in attempts) == len(attempts)
        assert used["prompt_tokens"] == 9 * len(attempts)
        assert used["trimtab"]["ended"] in ("Decided", "CannotChange", "AllSamples")
        bodies = [got.body for got in low.got]
        assert {b["temperature"] for b in bodies} == {0.7}
        assert sorted(b["seed"] for b in bodies) == list(range(len(bodies)))
        assert router.worker.tally.tiers["low"].output_tokens == len(attempts)
        assert router.worker.tally.tiers["low"].inflight == 0


@on_loop
async def test_a_decided_vote_cuts_what_still_runs():
    vote = VOTE | {"samples": 3, "stopRule": "Window", "stopWindow": 2, "wave": 2}
    async with engine(chat_stream("4"), chat_stream("4")) as low, running(strategic(low, strategy=vote)) as router:
        assert (await router.ask(chat())).json()["usage"]["trimtab"]["ended"] == "Decided"
        assert len(low.got) == 2


@on_loop
async def test_a_streamed_vote_tells_how_it_goes_and_then_the_winner():
    async with engine(default=chat_stream("4", "2")) as low, running(strategic(low, strategy=VOTE)) as router:
        response = await router.ask(chat(stream=True, stream_options={"include_usage": True}))
        events = events_of(response.body)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert events[0] == ": trimtab sample 1 on tier low is complete"
        first = next(event for event in events if isinstance(event, dict))
        assert first["choices"][0]["delta"]["role"] == "assistant", "a comment before it does not stand for it"
        assert sum(router.worker.tally.tiers["low"].ttft.counts) == 1
        assert content_of(response.body) == "42"
        assert events[-1] == "data: [DONE]"
        assert events[-2]["usage"]["trimtab"]["strategy"] == "self-consistency"
        assert (await router.ask(chat())).status == 200


@on_loop
async def test_a_pass_through_is_no_strategy():
    async with engine() as low, running(strategic(low)) as router:
        response = await router.ask(chat())
        assert "x-trimtab-strategy" not in response.headers
        assert "stream" not in low.got[0].body


@pytest.mark.parametrize(
    ("field", "value"), [("n", 2), ("tools", [{"type": "function"}]), ("logprobs", True), ("temperature", 0)]
)
def test_what_needs_one_engine_gets_one_and_says_why(field, value):
    @on_loop
    async def test():
        async with engine() as low, running(strategic(low, strategy=VOTE)) as router:
            response = await router.ask(chat(**{field: value}))
            assert response.headers["x-trimtab-strategy"] == f"single; because={field}"
            assert low.got[0].body[field] == value

    test()


@on_loop
async def test_a_cascade_goes_up_when_the_first_answer_is_unsure():
    cascade = {"type": "Cascade", "samples": 1, "acceptPercent": 80}
    async with (
        engine(chat_stream("no", logprob=-2)) as low,
        engine(chat_stream("yes", logprob=-0.01)) as medium,
        running(strategic(low, medium=(medium,), strategy=cascade)) as router,
    ):
        answer = (await router.ask(chat())).json()
        assert answer["choices"][0]["message"]["content"] == "yes"
        assert answer["model"] == "model-medium"
        assert answer["choices"][0]["logprobs"] is None
        tiers = [a["tier"] for a in answer["usage"]["trimtab"]["attempts"]]
        assert tiers == ["low", "medium"]


@on_loop
async def test_forms_that_agree_are_taken_and_forms_that_differ_go_up():
    mixed = {"type": "MixedForm", "samples": 2}
    low, medium = engine(*[chat_stream("7")] * 2, chat_stream("7"), chat_stream("8")), engine(default=chat_stream("9"))
    async with low, medium, running(strategic(low, medium=(medium,), strategy=mixed)) as router:
        assert (await router.ask(chat())).json()["usage"]["trimtab"]["ended"] == "FormsAgree"
        answer = (await router.ask(chat())).json()
        assert answer["choices"][0]["message"]["content"] == "9"
        assert answer["usage"]["trimtab"]["ended"] == "FormsDisagree"
        assert "Give only the final answer" in str([got.body["messages"] for got in low.got])


@on_loop
async def test_the_verifier_chooses():
    best = {"type": "BestOfN", "samples": 2, "wave": 2, "acceptPercent": 90, "verifierPool": "pool-high"}
    scores = engine(chat_stream("bad. Score: 20"), chat_stream("Score: 60"))
    async with (
        engine(chat_stream("one"), chat_stream("two")) as low,
        scores,
        running(strategic(low, high=(scores,), strategy=best)) as router,
    ):
        answer = (await router.ask(chat("which?"))).json()
        used = answer["usage"]["trimtab"]
        assert used["ended"] == "BestScore"
        assert [a["role"] for a in used["attempts"]].count("verifier") == 2
        better = scores.got[1].body["messages"][0]["content"]
        assert answer["choices"][0]["message"]["content"] in better
        assert "which?" in better


@on_loop
async def test_objections_go_into_the_next_answer():
    refine = {"type": "Refine", "samples": 3, "acceptPercent": 90, "verifierPool": "pool-high"}
    scores = engine(chat_stream("a sign is wrong. Score: 20"), chat_stream("Score: 95"))
    async with (
        engine(chat_stream("-4"), chat_stream("4")) as low,
        scores,
        running(strategic(low, high=(scores,), strategy=refine)) as router,
    ):
        answer = (await router.ask(chat("what?"))).json()
        assert answer["choices"][0]["message"]["content"] == "4"
        assert answer["usage"]["trimtab"]["ended"] == "Accepted"
        assert "a sign is wrong" in low.got[1].body["messages"][-1]["content"]


@on_loop
async def test_a_short_draft_streams_as_it_comes():
    async with (
        engine(chat_stream("a", "b", thoughts=("t",))) as low,
        running(strategic(low, strategy={"type": "ShortDraft"})) as router,
    ):
        response = await router.ask(chat(stream=True))
        assert (reasoning_of(response.body), content_of(response.body)) == ("t", "ab")
        assert "minimal draft" in low.got[0].body["messages"][-1]["content"]


ESCALATION = {"maxSteps": 1, "windowTokens": 4, "patienceTokens": 2, "confidencePercent": 50}


@pytest.mark.parametrize("stream", [False, True])
def test_low_confidence_moves_up_before_anything_is_said(stream):
    @on_loop
    async def test():
        unsure = chat_stream(*"abcdefgh", logprob=-3)
        async with (
            engine(unsure) as low,
            engine(chat_stream("sure", logprob=0)) as medium,
            running(strategic(low, medium=(medium,), escalation=ESCALATION)) as router,
        ):
            response = await router.ask(chat(stream=stream))
            assert low.got[0].body["logprobs"] is True
            if stream:
                assert content_of(response.body) == "sure"
                assert 'logprobs":null' in response.body.decode()
            else:
                used = response.json()["usage"]["trimtab"]
                assert [a.get("signal") for a in used["attempts"]] == ["LowConfidence", None]
                assert used["ended"] == "LowConfidence"

    test()


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_whose_budget_is_spent_goes_on_where_it_was(stream):
    @on_loop
    async def test():
        thoughts = tuple(f"t{i} " for i in range(8))
        cut = chat_stream("early", thoughts=thoughts, ids=True)
        go_on = text_stream("t8 ", "t9 ", "</think>", "\n\n", "late")
        async with engine(cut, go_on) as low:
            content = strategic(low, escalation=ESCALATION)
            content["tiers"][0]["thinkingTokens"] = 8
            content["pools"][0]["thinkingEnd"] = "</think>"
            async with running(content) as router:
                response = await router.ask(chat(stream=stream, temperature=0.3))
                first, second = low.got
                assert first.body["return_token_ids"] is True
                assert second.line == "POST /v1/completions HTTP/1.1"
                assert second.body["prompt"] == [1, 2, 3, *range(100, 108)]
                assert second.body["thinking_token_budget"] == 16
                assert second.body["temperature"] == 0.3
                whole = "".join(thoughts) + "t8 t9 "
                if stream:
                    assert (reasoning_of(response.body), content_of(response.body)) == (whole, "late")
                else:
                    message = response.json()["choices"][0]["message"]
                    assert (message["reasoning"], message["content"]) == (whole, "late")
                    attempts = response.json()["usage"]["trimtab"]["attempts"]
                    assert [a["role"] for a in attempts] == ["answer", "continuation"]

    test()


@on_loop
async def test_without_a_signal_nothing_is_escalated():
    async with (
        engine(chat_stream(*"abcdefgh", logprob=-0.01)) as low,
        engine() as medium,
        running(strategic(low, medium=(medium,), escalation=ESCALATION)) as router,
    ):
        response = await router.ask(chat(stream=True))
        assert content_of(response.body) == "abcdefgh"
        assert medium.got == []


def of_tenant(**ceiling):
    """A ceiling of the tenant of requests that name none, below the policy's own."""
    return {"ceiling": {name: value * 2 for name, value in ceiling.items()}} | {
        "tenants": [{"name": "default", "ceiling": ceiling}]
    }


@pytest.mark.parametrize("bound", [{"ceiling": {"tokens": 100}}, of_tenant(tokens=100)], ids=["policy", "tenant"])
def test_a_ceiling_of_tokens_holds_over_all_attempts(bound):
    @on_loop
    async def test():
        async with engine(*(chat_stream(*[f"{i} "] * 30, finish="length") for i in range(4))) as low:
            vote = VOTE | {"stopRule": "AllSamples", "wave": 1}
            async with running(strategic(low, strategy=vote, **bound)) as router:
                answer = (await router.ask(chat())).json()
                caps = [got.body["max_completion_tokens"] for got in low.got]
                assert caps == [100, 70, 40]
                assert answer["usage"]["completion_tokens"] == 90
                assert answer["usage"]["trimtab"]["attempts"][-1]["ended"] == "CeilingReached"

    test()


@on_loop
async def test_a_tenants_ceiling_bounds_a_pool_by_name():
    async with engine() as low, running(strategic(low, **of_tenant(tokens=50))) as router:
        for own in ({}, {"max_tokens": 5000}, {"max_tokens": 20}, {"n": 2}):
            assert (await router.ask(chat(model="model-low", **own))).status == 200
        caps = [got.body.get("max_completion_tokens", got.body.get("max_tokens")) for got in low.got]
        assert caps == [50, 50, 20, 25]
        refused = await router.ask(chat(model="model-low", n=20))
        assert (refused.status, refused.json()["error"]["code"]) == (400, "ceiling_reached")
        assert "tenant default's ceiling leaves 2 tokens" in refused.message


@on_loop
async def test_a_ceiling_of_tokens_bounds_a_single_answer_too():
    async with engine() as low, running(strategic(low, ceiling={"tokens": 100})) as router:
        await router.ask(chat(max_tokens=5000))
        await router.ask(chat())
        await router.ask(chat(n=4))
        assert low.got[0].body["max_tokens"] == 100
        assert [got.body["max_completion_tokens"] for got in low.got[1:]] == [100, 25]


@on_loop
async def test_a_ceiling_that_the_prompt_alone_breaks_is_refused():
    async with engine() as low, running(strategic(low, ceiling={"costMicros": 1})) as router:
        response = await router.ask(chat("x" * 40000))
        assert response.status == 400
        assert "the policy's ceiling leaves 0 tokens" in response.message


@pytest.mark.parametrize(
    ("strategy", "bound", "model", "whose"),
    [
        ({}, {"ceiling": {"seconds": 1}}, "auto", "the policy's"),
        (VOTE, {"ceiling": {"seconds": 1}}, "auto", "the policy's"),
        ({}, of_tenant(seconds=1), "auto", "tenant default's"),
        (VOTE, of_tenant(seconds=1), "model-low", "tenant default's"),
    ],
    ids=["one answer", "votes", "tenant, one answer", "tenant, a pool by name"],
)
def test_a_ceiling_of_seconds_ends_what_hangs(strategy, bound, model, whose):
    @on_loop
    async def test():
        async with (
            engine(default=hang) as low,
            running(strategic(low, strategy=strategy, **bound)) as router,
        ):
            response = await router.ask(chat(model=model))
            assert response.status == 504
            assert f"{whose} ceiling" in response.message
            assert router.worker.exchanges == set()

    test()


@on_loop
async def test_a_client_that_leaves_ends_every_attempt():
    async with engine(default=hang) as low, running(strategic(low, strategy=VOTE)) as router:
        client = await (await router.open()).send(request(chat()))
        await router.until(lambda: len(low.got) == 3)
        client.writer.close()
        await asyncio.gather(*(got.client_gone.wait() for got in low.got))
        assert router.worker.tally.tiers["low"].inflight == 0
        assert router.worker.exchanges == set()


@on_loop
async def test_an_engine_that_dies_is_replaced():
    async with (
        engine(die, chat_stream("a"), default=chat_stream("a")) as low,
        engine(default=chat_stream("a")) as other,
        running(strategic(low, other, strategy=VOTE)) as router,
    ):
        assert (await router.ask(chat())).json()["choices"][0]["message"]["content"] == "a"


@on_loop
async def test_a_pool_without_replicas_leaves_the_next_tier():
    async with (
        engine(default=chat_stream("up")) as medium,
        running(strategic(medium=(medium,), strategy=VOTE)) as router,
    ):
        answer = (await router.ask(chat())).json()
        assert {a["tier"] for a in answer["usage"]["trimtab"]["attempts"]} == {"medium"}


@on_loop
async def test_an_engines_refusal_is_the_answer():
    refusal = json_answer(400, {"error": {"message": "bad top_p", "code": 400}})
    async with engine(default=refusal) as low, running(strategic(low, strategy=VOTE)) as router:
        response = await router.ask(chat())
        assert (response.status, response.message) == (400, "bad top_p")


@on_loop
async def test_an_answer_that_breaks_off_in_the_stream_ends_with_an_error():
    async with (
        engine(default=chat_stream("a", "b", end=False)) as low,
        running(strategic(low, strategy={"type": "ShortDraft"})) as router,
    ):
        response = await router.ask(chat(stream=True))
        assert "error" in events_of(response.body)[-1]
        assert "[DONE]" not in response.body.decode()


@on_loop
async def test_explain_names_the_strategy_and_the_ceiling():
    content = strategic(strategy=VOTE, ceiling={"tokens": 5000, "costMicros": 20}, escalation={"maxSteps": 2})
    async with running(content) as router:
        plan = (await router.ask(chat(), path="/v1/explain")).json()
        assert plan["strategy"] == "self-consistency"
        assert plan["budget"]["samples"] == 5
        assert plan["spending"]["ceiling"] == {
            "tokens": 5000,
            "seconds": None,
            "cost": 0.00002,
            "of": {"tokens": "policy", "cost": "policy"},
        }
        assert plan["spending"]["options"]["stop_percent"] == 90
        assert plan["spending"]["escalation"]["max_steps"] == 2


@on_loop
async def test_an_answer_that_breaks_off_is_made_again_where_nobody_has_seen_it():
    broken = chat_stream("lost", "lost", end=False)
    async with (
        engine(broken, default=chat_stream("whole")) as low,
        engine(broken, default=chat_stream("whole")) as other,
        running(strategic(low, other, strategy={"type": "ShortDraft"})) as router,
    ):
        statuses = [(await router.ask(chat())).status for _ in range(3)]
        answer = (await router.ask(chat())).json()
        assert statuses[-1] == 200
        assert answer["choices"][0]["message"]["content"] == "whole"


@on_loop
async def test_what_escalates_is_demand_of_the_next_tier():
    cascade = {"type": "Cascade", "samples": 1, "acceptPercent": 80}
    async with (
        engine(chat_stream("no", logprob=-2)) as low,
        engine(chat_stream("yes", logprob=0)) as medium,
        running(strategic(low, medium=(medium,), strategy=cascade)) as router,
    ):
        await router.ask(chat())
        tiers = router.worker.tally.tiers
        assert (tiers["low"].admitted, tiers["medium"].admitted, tiers["high"].admitted) == (1, 1, 0)
        assert tiers["medium"].output_expected > 0


@on_loop
async def test_an_answer_with_a_grammar_begins_again():
    thoughts = tuple(f"t{i} " for i in range(8))
    async with engine(chat_stream("early", thoughts=thoughts), chat_stream("{}", thoughts=("t",))) as low:
        content = strategic(low, escalation=ESCALATION)
        content["tiers"][0]["thinkingTokens"] = 8
        content["pools"][0]["thinkingEnd"] = "</think>"
        async with running(content) as router:
            answer = (await router.ask(chat(response_format={"type": "json_object"}))).json()
            assert "return_token_ids" not in low.got[0].body
            assert low.got[1].body["thinking_token_budget"] == 16
            assert low.got[1].body["response_format"] == {"type": "json_object"}
            assert answer["choices"][0]["message"]["content"] == "{}"


ACTS = st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from(["end", "end", "die", "busy"]))
KINDS = [
    {"type": "SelfConsistency", "samples": 6, "wave": 3, "stopRule": "AllSamples"},
    {"type": "Cascade", "samples": 2},
    {"type": "BestOfN", "samples": 3, "wave": 2, "verifierPool": "pool-high"},
    {"type": "MixedForm", "samples": 3},
    {"type": "Refine", "samples": 3, "verifierPool": "pool-high"},
    {"type": "Single"},
]


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTS, max_size=10), st.sampled_from(KINDS), st.integers(20, 400), st.booleans(), st.booleans())
def test_no_engine_writes_more_than_the_ceiling_together(acts, strategy, tokens, stream, leaves):
    @on_loop
    async def test():
        greedy = Greedy(acts)
        low, other, top = (engine(default=greedy.behave) for _ in range(3))
        escalation = {**ESCALATION, "maxSteps": 2}
        async with low, other, top:
            content = strategic(low, other, high=(top,), strategy=strategy, ceiling={"tokens": tokens})
            async with running(content | {"escalation": escalation}) as router:
                await router.ask_or_leave(chat(stream=stream), [low, other, top], leaves=leaves)
        assert greedy.written <= tokens

    test()


@on_loop
async def test_a_call_for_a_client_that_reads_too_slowly_waits_to_be_read():
    async with engine(default=chat_stream("a", "b")) as low, running(strategic(low)) as router:
        asked = Request()
        asked.headers[b"x-request-id"] = b"slow"
        texts: list[str] = []
        order = Order(pool="pool-low", key=0, path=b"/v1/chat/completions", body=b"{}")
        call = Call(router.worker, asked, order, lambda piece: bool(texts.append(piece.text)))
        call.pause()
        running_call = asyncio.create_task(call.run())
        await router.until(lambda: len(low.got) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert texts == []
        call.resume()
        assert await running_call
        assert "".join(texts) == "ab"
