"""What is read of a request, and what is sent on."""

import orjson
import pytest

from support.routing import asked, chat, ladder, planned
from trimtab_router.core.rewrite import rewrite

IMAGE = {"type": "image_url", "image_url": {"url": "data:..."}}


def test_the_last_question_and_the_first_system_prompt_are_read():
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "system", "content": "ignored"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, IMAGE, "three"]},
        {"role": "tool", "content": "result"},
    ]
    query = asked(chat(messages=messages, tools=[{"type": "function"}])).reading.query
    assert (query.text, query.system, query.turns, query.tools) == ("two\nthree", "be brief", 6, True)


def test_without_a_user_the_last_message_is_read():
    assert asked(chat(messages=[{"role": "assistant", "content": "hm"}])).reading.query.text == "hm"


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (chat("x" * 400), 104),
        (chat("数" * 400), 304),
        (chat(messages=[{"role": "user", "content": "x" * 40}] * 3), 42),
        (chat(messages=[{"role": "user", "content": [IMAGE]}]), 1028),
        (chat("x" * 400, tools=[{"name": "y" * 387}]), 204),
        ({"model": "auto", "prompt": "x" * 400}, 100),
        ({"model": "auto", "prompt": ["x" * 40, "x" * 400]}, 100),
        ({"model": "auto", "prompt": [1, 2, 3]}, 3),
        ({"model": "auto", "prompt": [[1, 2], [1, 2, 3, 4]]}, 4),
    ],
    ids=["latin", "chinese", "messages", "image", "tools", "prompt", "prompts", "tokens", "token arrays"],
)
def test_prompt_tokens_are_estimated(body, tokens):
    assert asked(body).facts.prompt_tokens == tokens


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ({}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, True),
        ({"structured_outputs": {"regex": "a"}}, True),
        ({"guided_json": {}}, True),
    ],
)
def test_structured_output_is_noticed(extra, wanted):
    assert asked(chat(**extra)).facts.json_schema is wanted


def test_equal_beginnings_have_equal_keys():
    one, two = asked(chat("a" * 300 + "x")), asked(chat("a" * 300 + "y"))
    other = asked(chat("b" * 300))
    assert one.reading.prefix == two.reading.prefix != other.reading.prefix


def test_a_lone_surrogate_is_read():
    assert asked(chat("\ud800 hi")).facts.prompt_tokens == 5


def sent(body, on=None, **headers):
    on = on or ladder()
    raw, dropped = rewrite(asked(body, on, **headers), planned(body, on, **headers))
    return orjson.loads(raw), dropped


def test_a_tier_without_thinking_says_so_twice():
    body, dropped = sent(chat("hello", temperature=0.5))
    assert body == {
        **chat("hello", temperature=0.5),
        "model": "model-low",
        "thinking_token_budget": 0,
        "chat_template_kwargs": {"enable_thinking": False},
        "max_completion_tokens": 1000,
    }
    assert dropped == ()


def test_a_thinking_tier_gets_its_budget_and_a_cap():
    body, _ = sent(chat(), x_trimtab_tier="high")
    assert (body["thinking_token_budget"], body["max_completion_tokens"]) == (4000, 5000)
    assert "chat_template_kwargs" not in body


def test_completions_are_capped_with_their_own_field():
    body, _ = sent({"model": "auto", "prompt": "x"})
    assert (body["max_tokens"], body["thinking_token_budget"]) == (1000, 0)
    assert body.keys() == {"model", "prompt", "max_tokens", "thinking_token_budget"}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_clients_cap_stays_as_it_is(field):
    body, _ = sent(chat(**{field: 77}))
    assert body[field] == 77
    assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1


def test_no_cap_is_added_where_the_context_is_the_tighter_bound():
    on = ladder({"low": {"contextTokens": 2000}})
    assert "max_completion_tokens" in sent(chat("x" * 3000), on)[0]
    assert "max_completion_tokens" not in sent(chat("x" * 3500), on)[0]


def test_a_pool_without_reasoning_gets_no_budget():
    on = ladder({"low": {"reasoning": False}})
    body, _ = sent(chat(thinking_token_budget=50), on)
    assert "thinking_token_budget" not in body
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_clients_template_arguments_win():
    body, _ = sent(chat(chat_template_kwargs={"enable_thinking": True, "x": 1}))
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "x": 1}


def test_the_routers_own_field_is_not_sent_on():
    assert "trimtab" not in sent(chat(trimtab={"budget": 40}))[0]


def test_fields_that_the_pool_refuses_are_left_out_and_named():
    on = ladder({"low": {"dropsSampling": ["min_p", "logit_bias"]}})
    body, dropped = sent(chat(min_p=0.1), on)
    assert dropped == ("min_p",)
    assert "min_p" not in body


@pytest.mark.parametrize(
    ("on", "kept", "named"),
    [
        (ladder(), True, ()),
        (ladder({"low": {"reasoning": False}}), False, ()),
        (ladder(manual={"reasoningEffort": False}), False, ("reasoning_effort",)),
        (ladder(manual={"maxBudget": 0}), False, ("reasoning_effort",)),
    ],
    ids=["obeyed", "no reasoning", "forbidden", "no budgets"],
)
def test_effort_is_sent_to_engines_that_think_where_the_policy_obeys_it(on, kept, named):
    body, dropped = sent(chat(reasoning_effort="low"), on)
    assert ("reasoning_effort" in body, dropped) == (kept, named)


def test_a_pool_by_name_gets_the_body_as_it_is():
    given = chat(model="model-high", thinking_token_budget=-1, reasoning_effort="low")
    assert sent(given) == ({**given, "thinking_token_budget": 1320}, ())
    given = chat(model="model-high", thinking_token_budget=77)
    assert sent(given) == (given, ())
    given = chat(model="model-high")
    assert sent(given) == (given, ())
