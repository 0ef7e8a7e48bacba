"""What both resources are made of: the frozen base model, cross-field rules and the standard condition.

A rule is declared once and holds in two places: as CEL in the CRD, where the API server checks it, and as a
predicate in Python, where `trimtab render`, the operator and the local mode check it. Both say the same sentence.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

GROUP = "trimtab.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"

_PLACEHOLDER = re.compile(r"\{([A-Za-z.]+)\}")


@dataclass(frozen=True, slots=True)
class Word:
    """A value of a rule's sentence that no path leads to, such as the first entry of a list that breaks the rule."""

    cel: str
    of: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Rule:
    """A cross-field rule of one object.

    `cel` is evaluated by the API server with `self` as the object; `holds` is the same predicate in Python.
    `message` names the field, the value and the fix; `{a.b}` in it stands for the value at that path, `{word}` for
    the entry of `words`. Values are looked up only where the rule is broken, so they may be optional fields.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    words: Mapping[str, Word] = field(default_factory=dict)

    def as_schema(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        names = _PLACEHOLDER.findall(self.message)
        if not names:
            return {"rule": self.cel, "message": self.message}
        # One `format` call: the API server cannot bound the cost of concatenating `string(...)`s and refuses the CRD.
        values = ", ".join(self.words[name].cel if name in self.words else f"self.{name}" for name in names)
        template = _PLACEHOLDER.sub("%s", self.message.replace("%", "%%").replace("'", "\\'"))
        plain = _PLACEHOLDER.sub(lambda m: f"<{m.group(1)}>", self.message)
        return {"rule": self.cel, "messageExpression": f"'{template}'.format([{values}])", "message": plain}

    def sentence(self, obj: "Spec") -> str:
        """The message with the values of `obj`."""
        return _PLACEHOLDER.sub(lambda m: str(self._value(obj, m.group(1))), self.message)

    def _value(self, obj: "Spec", name: str) -> object:
        return self.words[name].of(obj) if name in self.words else _value_at(obj, name)


def _value_at(obj: Any, path: str) -> Any:
    for alias in path.split("."):
        fields = type(obj).model_fields
        obj = getattr(obj, next(name for name, info in fields.items() if (info.alias or name) == alias))
    return obj


class Spec(BaseModel):
    """Base of everything a user writes: camelCase in YAML, frozen, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        problems = _repeated(self) + [rule.sentence(self) for rule in self.rules if not rule.holds(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _repeated(obj: Spec) -> list[str]:
    """What the API server refuses in lists of type map and set: an entry whose key is there already."""
    found = []
    for name, info in type(obj).model_fields.items():
        schema = info.json_schema_extra
        if not isinstance(schema, dict) or "x-kubernetes-list-type" not in schema:
            continue
        alias, seen = info.alias or name, set()
        for index, item in enumerate(getattr(obj, name)):
            where, value = _identity(f"{alias}[{index}]", item, schema)
            if value in seen:
                found.append(f"{where} {value!r} is there twice; remove one of the entries or rename it")
            seen.add(value)
    return found


def _identity(where: str, item: Any, schema: Mapping[str, Any]) -> tuple[str, Any]:
    """Where the key of a list's item stands, and its value; a set's item is its own key."""
    keys = schema.get("x-kubernetes-list-map-keys")
    return (f"{where}.{keys[0]}", _value_at(item, keys[0])) if keys else (where, item)


class Status(BaseModel):
    """Base of everything we write: unknown fields are kept out, missing ones are fine."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Condition(Status):
    """A standard condition (Kubernetes API conventions, `metav1.Condition`)."""

    type: str = Field(description="What the condition is about, CamelCase.")
    status: str = Field(description="True, False or Unknown.")
    reason: str = Field(description="A stable CamelCase word for machines.")
    message: str = Field(description="A sentence for people: what is wrong and what to do.")
    last_transition_time: str = Field(description="When the status last changed, RFC 3339.")
    observed_generation: int = Field(description="The generation of the spec that this condition speaks of.")


class ObjectMeta(BaseModel):
    """The part of `metadata` that the core reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class LocalReference(Spec):
    """A reference to an object in the same namespace."""

    name: str = Field(description="Name of the object, in the same namespace.", min_length=1, max_length=63)
