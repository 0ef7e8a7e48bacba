"""Seeded synthetic prompts for the classes and languages that the labelled sources lack."""

import random
import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final

from trimtab_classifier.examples import Example
from trimtab_classifier.features import Query

SOURCE: Final = "synthetic"
SEED: Final = 20_240_917
PER_CLASS: Final = 3_000
CODE_EXTRA: Final = 2_000

PRIORS: Final[dict[str, tuple[float, tuple[float, ...]]]] = {
    "chat": (0.0, (12, 30, 60, 110, 220)),
    "writing": (0.04, (120, 280, 450, 650, 1000)),
    "extraction": (0.05, (8, 25, 60, 110, 250)),
    "knowledge": (0.06, (30, 90, 180, 320, 550)),
    "commonsense": (0.02, (15, 40, 80, 140, 250)),
    "math": (0.12, (40, 90, 160, 260, 480)),
    "reasoning": (0.22, (60, 120, 200, 320, 550)),
    "code": (0.15, (80, 180, 320, 500, 900)),
}
"""Assumed gain of a stronger tier and answer lengths (tokens at 10, 30, 50, 70, 90 %) where nothing is measured."""

_SLOT: Final = re.compile(r"\{([^\s{}=:]+)\}")
_SYSTEM: Final = (
    "You are a helpful assistant.",
    "You are a helpful, concise assistant. Answer in the language of the user.",
    "You are a friendly assistant for the customers of Contoso. Be polite.",
    "Today is 2024-05-12. Think before you answer.",
    "Du bist ein hilfreicher Assistent.",
    "你是一个乐于助人的助手。",
    "You are ChatBot, a large language model. Follow the user's instructions carefully. Respond using markdown.",
)


@cache
def templates() -> dict[str, dict[str, list[str]]]:
    """The packaged templates: class, then language, then prompts."""
    loaded: dict[str, Any] = tomllib.loads(files("trimtab_classifier").joinpath("templates.toml").read_text("utf-8"))
    return loaded


def fill(template: str, rng: random.Random) -> str:
    """Replaces every slot by one of its values, which may have slots of their own; other braces stay."""
    slots = templates()["slots"]

    def value(match: re.Match[str]) -> str:
        choices = slots.get(match[1])
        return fill(rng.choice(choices), rng) if choices else match[0]

    return _SLOT.sub(value, template)


def _code_prompt(language: str, rng: random.Random) -> tuple[str, str]:
    """A prompt about code, and its template."""
    snippets = templates()["snippets"]
    lang, other = rng.sample(sorted(snippets), 2)
    names = {slot: rng.choice(templates()["slots"][slot]) for slot in ("a", "f", "C")}
    snippet, template = rng.choice(snippets[lang]), rng.choice(templates()["code"][language])
    code = _SLOT.sub(lambda match: names.get(match[1], match[0]), snippet)
    ask = fill(template.replace("{lang}", lang).replace("{other}", other).replace("{tag}", lang.lower()), rng)
    return ask.replace("{code}", code), f"{template}|{snippet}"


def _vary(text: str, rng: random.Random) -> str:
    """Case and punctuation as people type them."""
    roll = rng.random()
    if roll < 0.1:
        return text.lower()
    if roll < 0.15:
        return text.rstrip(".?!。？")
    if roll < 0.2:
        return f"{rng.choice(('Please: ', 'Hi! ', 'Quick question: '))}{text}"
    return text


def _example(label: str, text: str, template: str, rng: random.Random) -> Example:
    gain, tokens = PRIORS[label]
    system = rng.choice(_SYSTEM) if rng.random() < 0.3 else ""
    turns = (2 if system else 1) + (rng.choice((2, 4, 6)) if rng.random() < 0.2 else 0)
    schema = label == "extraction" and rng.random() < 0.3
    tools = rng.random() < 0.05
    query = Query(text, system=system, turns=turns, json_schema=schema, tools=tools)
    return Example(query, SOURCE, label=label, gain=gain, tokens=tokens, weight=0.5, group=template)


def generate(seed: int = SEED, per_class: int = PER_CLASS) -> list[Example]:
    """The same prompts for the same seed; every class in `PRIORS` is equally frequent, code more so."""
    rng = random.Random(seed)
    found: list[Example] = []
    for label in PRIORS:
        languages = sorted(templates()[label])
        # Half in English, the other half spread over the languages that have templates.
        for _ in range(per_class + (CODE_EXTRA if label == "code" else 0)):
            language = "en" if rng.random() < 0.5 else rng.choice(languages)
            if label == "code":
                text, template = _code_prompt(language, rng)
            else:
                template = rng.choice(templates()[label][language])
                text = fill(template, rng)
            found.append(_example(label, _vary(text, rng), template, rng))
    return found
