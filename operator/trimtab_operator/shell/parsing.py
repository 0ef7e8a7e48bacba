"""Parsed resources, kept for as long as what they are parsed from stays the same.

Watches tell every change of a status, and a policy looks at all pools of its namespace: without this, a thousand pools
would be parsed a thousand times for each that changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trimtab_crds.load import Resource, SpecInvalid, load
from trimtab_operator.core.problems import Problem, spec_invalid

Manifest = Mapping[str, Any]
T = TypeVar("T")
#: Metadata that changes with every write, also of the status.
_VOLATILE = ("resourceVersion", "managedFields")
#: Names that were used once and are gone stay until the oldest ones have to go.
_MOST = 20_000


@dataclass(frozen=True, slots=True)
class _Entry:
    metadata: dict[str, Any]
    spec: Any
    resource: Resource | None
    problem: Problem | None
    made: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Parsed:
    """Results of parsing by kind, namespace and name."""

    _entries: dict[tuple[str, str, str], _Entry] = field(default_factory=dict)

    def of(self, live: Manifest) -> tuple[Resource | None, Problem | None]:
        """The resource, or what is wrong with its spec."""
        metadata = {key: value for key, value in live["metadata"].items() if key not in _VOLATILE}
        key = (live["kind"], metadata.get("namespace", ""), metadata["name"])
        entry = self._entries.get(key)
        if entry is None or entry.metadata != metadata or entry.spec != live.get("spec"):
            entry = _Entry(metadata, live.get("spec"), *_parse(live))
            self._entries[key] = entry
            if len(self._entries) > _MOST:
                self._entries.pop(next(iter(self._entries)))
        return entry.resource, entry.problem

    def once(self, resource: Resource, what: str, make: Callable[[], T]) -> T:
        """What follows from the resource alone, made once for as long as the resource stays the same."""
        entry = self._entries.get((resource.kind, resource.metadata.namespace, resource.metadata.name))
        if entry is None or entry.resource is not resource:
            return make()
        if what not in entry.made:
            entry.made[what] = make()
        made: T = entry.made[what]
        return made


def _parse(live: Manifest) -> tuple[Resource | None, Problem | None]:
    try:
        # The status is ours to write, never an input: an odd one must not stop us from correcting it.
        return load({key: value for key, value in live.items() if key != "status"}), None
    except SpecInvalid as invalid:
        return None, spec_invalid(invalid.problems)
