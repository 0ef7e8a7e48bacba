"""Reads server-sent events of OpenAI-style streams."""

import json
from typing import Any

DONE = "[DONE]"


def events(text: str) -> list[Any]:
    """The events of a whole stream: parsed JSON, or the text of the final `[DONE]`. Asserts the framing."""
    assert text.endswith("\n\n"), "a stream ends with an empty line"
    blocks = text.removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), text
    data = [block.removeprefix("data: ") for block in blocks]
    return [item if item == DONE else json.loads(item) for item in data]


def joined(chunks: list[Any], field: str) -> str:
    """All pieces of one delta field, of all choices, in order."""
    return "".join(
        choice["delta"].get(field) or "" for chunk in chunks if chunk != DONE for choice in chunk.get("choices", [])
    )
