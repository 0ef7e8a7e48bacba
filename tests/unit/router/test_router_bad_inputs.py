"""Bad requests, each with its exact message: the field, the value, the fix."""

import pytest

from support.routing import asked, chat, ladder
from trimtab_router.core.errors import ApiError
from trimtab_router.core.parse import parse_body

EFFORTS = "none, minimal, low, medium, high, xhigh, max"
NO_HAND = {"manual": {"tierHeader": False, "maxBudget": 0}}

BODIES = {
    "model missing": (
        {"messages": [{"role": "user", "content": "x"}]},
        "model: must be one of auto, model-low, model-medium, model-high",
    ),
    "model not a text": (chat(model=3), "model: must be one of auto, model-low, model-medium, model-high"),
    "model unknown": (
        chat(model="gpt-9"),
        "model: 'gpt-9' does not exist; use one of auto, model-low, model-medium, model-high",
    ),
    "messages missing": ({"model": "auto"}, "messages: must be a non-empty array of messages"),
    "messages empty": ({"model": "auto", "messages": []}, "messages: must be a non-empty array of messages"),
    "messages a text": ({"model": "auto", "messages": "hi"}, "messages: must be a non-empty array of messages"),
    "message a text": (
        {"model": "auto", "messages": ["hi"]},
        "messages[0]: must be an object with role and content",
    ),
    "content a number": (
        {"model": "auto", "messages": [{"role": "user", "content": 5}]},
        "messages[0].content: must be a text or an array of parts",
    ),
    "prompt a number": ({"model": "auto", "prompt": 5}, "prompt: must be a text or a non-empty array"),
    "prompt of objects": ({"model": "auto", "prompt": [{}]}, "prompt[0]: must be a text or an array of tokens"),
    "stream a text": (chat(stream="yes"), 'stream: "yes" is not allowed; use true or false'),
    "max_tokens zero": (chat(max_tokens=0), "max_tokens: 0 is not allowed; use a whole number of at least 1"),
    "max_completion_tokens a fraction": (
        chat(max_completion_tokens=1.5),
        "max_completion_tokens: 1.5 is not allowed; use a whole number of at least 1",
    ),
    "thinking_token_budget below -1": (
        chat(thinking_token_budget=-2),
        "thinking_token_budget: -2 is not allowed; use a whole number of tokens, or -1 for no bound of your own",
    ),
    "thinking_token_budget true": (
        chat(thinking_token_budget=True),
        "thinking_token_budget: true is not allowed; use a whole number of tokens, or -1 for no bound of your own",
    ),
    "effort unknown": (
        chat(reasoning_effort="huge"),
        f'reasoning_effort: "huge" is not allowed; use one of {EFFORTS}',
    ),
    "effort a number": (chat(reasoning_effort=3), f"reasoning_effort: 3 is not allowed; use one of {EFFORTS}"),
    "budget zero": (chat(trimtab={"budget": 0}), "trimtab.budget: 0 is not allowed; use a whole number from 1 to 100"),
    "budget 101": (
        chat(trimtab={"budget": 101}),
        "trimtab.budget: 101 is not allowed; use a whole number from 1 to 100",
    ),
    "budget a text": (
        chat(trimtab={"budget": "abc"}),
        'trimtab.budget: "abc" is not allowed; use a whole number from 1 to 100',
    ),
    "trimtab a number": (chat(trimtab=50), 'trimtab: 50 is not allowed; use an object such as {"budget": 50}'),
    "trimtab misspelled": (chat(trimtab={"buget": 5}), "trimtab.buget: no such field; use trimtab.budget"),
    "thinking_budget": (
        chat(thinking_budget=5),
        "thinking_budget: no such field, the engine would ignore it; did you mean thinking_token_budget?",
    ),
    "thinking_token_bugdet": (
        chat(thinking_token_bugdet=5),
        "thinking_token_bugdet: no such field, the engine would ignore it; did you mean thinking_token_budget?",
    ),
    "max_token": (
        chat(max_token=5),
        "max_token: no such field, the engine would ignore it; did you mean max_tokens?",
    ),
    "reasoning-effort": (
        chat(**{"reasoning-effort": "low"}),
        "reasoning-effort: no such field, the engine would ignore it; did you mean reasoning_effort?",
    ),
    "enable_thinking at the top": (
        chat(enable_thinking=False),
        (
            "enable_thinking: no such field, the engine would ignore it; "
            "did you mean chat_template_kwargs.enable_thinking?"
        ),
    ),
    "thinking of another vendor": (
        chat(thinking={"type": "enabled", "budget_tokens": 9}),
        "thinking: no such field, the engine would ignore it; did you mean thinking_token_budget or reasoning_effort?",
    ),
    "a budget for the template": (
        chat(chat_template_kwargs={"thinking_token_budget": 5}),
        (
            "chat_template_kwargs.thinking_token_budget: the engine does not enforce a budget given here; "
            "set thinking_token_budget at the top of the body"
        ),
    ),
    "template arguments a text": (chat(chat_template_kwargs="x"), "chat_template_kwargs: must be an object"),
}

HEADERS = {
    "tier unknown": (
        {"x_trimtab_tier": "huge"},
        'x-trimtab-tier: "huge" is not allowed; use one of low, medium, high',
    ),
    "budget zero": (
        {"x_trimtab_budget": "0"},
        "x-trimtab-budget: 0 is not allowed; use a whole number from 1 to 100",
    ),
    "budget 101": (
        {"x_trimtab_budget": "101"},
        "x-trimtab-budget: 101 is not allowed; use a whole number from 1 to 100",
    ),
    "budget a text": (
        {"x_trimtab_budget": "abc"},
        'x-trimtab-budget: "abc" is not allowed; use a whole number from 1 to 100',
    ),
    "budget negative": (
        {"x_trimtab_budget": "-5"},
        'x-trimtab-budget: "-5" is not allowed; use a whole number from 1 to 100',
    ),
    "header misspelled": (
        {"x_trimtab_teir": "low"},
        "x-trimtab-teir: no such header; use one of x-trimtab-tier, x-trimtab-budget",
    ),
}


@pytest.mark.parametrize(("body", "message"), BODIES.values(), ids=BODIES)
def test_a_bad_body_is_refused_with_a_message(body, message):
    with pytest.raises(ApiError) as refusal:
        asked(body)
    assert refusal.value.message == message
    assert refusal.value.status == (404 if "does not exist" in message else 400)


@pytest.mark.parametrize(("headers", "message"), HEADERS.values(), ids=HEADERS)
def test_a_bad_header_is_refused_with_a_message(headers, message):
    with pytest.raises(ApiError) as refusal:
        asked(chat(), **headers)
    assert (refusal.value.status, refusal.value.message) == (400, message)


@pytest.mark.parametrize(
    ("body", "headers", "policy", "message"),
    [
        (
            chat(),
            {"x_trimtab_tier": "low"},
            NO_HAND,
            "x-trimtab-tier: the policy does not allow to choose a tier (manual.tierHeader is false); remove it",
        ),
        (
            chat(),
            {"x_trimtab_budget": "5"},
            NO_HAND,
            "x-trimtab-budget: budgets by hand are not allowed (the policy's manual.maxBudget is 0); remove it",
        ),
        (
            chat(trimtab={"budget": 5}),
            {},
            NO_HAND,
            "trimtab.budget: budgets by hand are not allowed (the policy's manual.maxBudget is 0); remove it",
        ),
        (
            chat(),
            {"x_trimtab_budget": "41"},
            {"manual": {"maxBudget": 40}},
            "x-trimtab-budget: 41 is not allowed; use a whole number from 1 to 40 (the policy's manual.maxBudget)",
        ),
        (
            chat(trimtab={"budget": 6}),
            {"x_trimtab_budget": "5"},
            {},
            "x-trimtab-budget: 5 differs from trimtab.budget; give one of the two",
        ),
        (
            chat(model="model-low"),
            {"x_trimtab_tier": "high"},
            {},
            "x-trimtab-tier: high is not served by the pool that model names; ask for one of the two",
        ),
    ],
    ids=["tier forbidden", "budget forbidden", "field forbidden", "above the limit", "two budgets", "two pools"],
)
def test_what_the_policy_forbids_is_refused_with_a_message(body, headers, policy, message):
    with pytest.raises(ApiError) as refusal:
        asked(body, ladder(**policy), **headers)
    assert (refusal.value.status, refusal.value.message) == (400, message)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "body: empty; send a JSON object"),
        (b"[1]", "body: must be a JSON object"),
        (
            b'{"a": ',
            "body: not valid JSON (unexpected end of data: line 1 column 7 (char 6)); send a JSON object",
        ),
        (
            b"\xff",
            (
                "body: not valid JSON (str is not valid UTF-8: surrogates not allowed: line 1 column 1 (char 0)); "
                "send a JSON object"
            ),
        ),
    ],
    ids=["empty", "array", "cut off", "not UTF-8"],
)
def test_a_body_that_is_no_object_is_refused_with_a_message(raw, message):
    with pytest.raises(ApiError) as refusal:
        parse_body(raw)
    assert (refusal.value.status, refusal.value.message) == (400, message)


def test_a_long_value_is_not_echoed_whole():
    with pytest.raises(ApiError) as refusal:
        asked(chat(reasoning_effort="x" * 10000))
    assert len(refusal.value.message) < 250


def test_fields_of_other_engines_pass():
    assert asked(chat(some_new_field=1, top_k=4)).body["some_new_field"] == 1


def test_efforts_are_checked_but_not_obeyed_where_the_policy_says_so():
    on = ladder(manual={"reasoningEffort": False})
    assert asked(chat(reasoning_effort="high"), on).facts.effort is None
    with pytest.raises(ApiError):
        asked(chat(reasoning_effort="huge"), on)
