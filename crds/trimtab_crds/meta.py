"""What both resources are made of: the frozen base model, cross-field rules and the standard condition.

A rule is declared once and holds in two places: as CEL in the CRD, where the API server checks it, and as a
predicate in Python, where `trimtab render`, the operator and the local mode check it. Both say the same sentence.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

GROUP = "trimtab.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"

_PLACEHOLDER = re.compile(r"\{([A-Za-z.]+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A cross-field rule of one object.

    `cel` is evaluated by the API server with `self` as the object; `holds` is the same predicate in Python.
    `message` names the field, the value and the fix; `{a.b}` in it stands for the value at that path.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str

    def as_schema(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        if not _PLACEHOLDER.search(self.message):
            return {"rule": self.cel, "message": self.message}
        # One `format` call: the API server cannot bound the cost of concatenating `string(...)`s and refuses the CRD.
        values = ", ".join(f"self.{path}" for path in _PLACEHOLDER.findall(self.message))
        template = _PLACEHOLDER.sub("%s", self.message.replace("%", "%%").replace("'", "\\'"))
        plain = _PLACEHOLDER.sub(lambda m: f"<{m.group(1)}>", self.message)
        return {"rule": self.cel, "messageExpression": f"'{template}'.format([{values}])", "message": plain}

    def sentence(self, obj: "Spec") -> str:
        """The message with the values of `obj`."""
        return _PLACEHOLDER.sub(lambda m: str(_value_at(obj, m.group(1))), self.message)


def _value_at(obj: Any, path: str) -> Any:
    for alias in path.split("."):
        fields = type(obj).model_fields
        obj = getattr(obj, next(name for name, field in fields.items() if (field.alias or name) == alias))
    return obj


class Spec(BaseModel):
    """Base of everything a user writes: camelCase in YAML, frozen, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [rule.sentence(self) for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self


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
    deletion_timestamp: str | None = None


class LocalReference(Spec):
    """A reference to an object in the same namespace."""

    name: str = Field(description="Name of the object, in the same namespace.", min_length=1, max_length=63)
