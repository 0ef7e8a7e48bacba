"""An API server in memory: server-side apply with field managers, preconditions and defaults, as far as we rely on it.

Held to the same contract suite as a real one (tests/contract/test_operator_cluster.py).
"""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab_operator.core.kinds import BY_NAME, EVENT, NODE_KINDS, POLICY, POOL, WORKLOADS, Kind
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.world import WATCHED, World, child_key

Manifest = dict[str, Any]
Path = tuple[str, ...]


class FakeCluster:
    """The `Cluster` port, plus `create` and `replace` for leases. `calls` has every write; `fail_next` raises once.

    `told` are Events of others, `not_served` and `forbidden` kinds that the cluster does not have or not give.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str | None, str], Manifest] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.events: list[Manifest] = []
        self.told: list[Manifest] = []
        self.not_served: set[Kind] = set()
        self.forbidden: set[Kind] = set()
        self.fail_next: dict[str, ClusterError] = {}
        self.fail_always: dict[str, ClusterError] = {}
        self._applied: dict[tuple[str, str | None, str, str], set[Path]] = {}
        self._numbers = itertools.count(1)

    # -- the port -----------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        self._maybe_fail("get")
        self._check_allowed(kind)
        found = self.objects.get((kind.kind, namespace, name))
        return copy.deepcopy(found)

    async def serves(self, kind: Kind) -> bool:
        return kind not in self.not_served

    async def list_all(self, kind: Kind, namespace: str | None, selector: str = "", fields: str = "") -> list[Manifest]:
        self._maybe_fail("list_all")
        if kind in self.not_served:
            raise ClusterError("list", 404, "the server could not find the requested resource")
        self._check_allowed(kind)
        if kind == EVENT:
            about = dict(part.split("=") for part in fields.split(",") if part)
            return [e for e in self.told if e["involvedObject"]["name"] == about["involvedObject.name"]]
        chosen = (m for (k, ns, _), m in self.objects.items() if k == kind.kind and namespace in (None, ns))
        return [copy.deepcopy(m) for m in chosen if _selected(m, selector)]

    async def apply(self, manifest: Mapping[str, Any], *, manager: str, force: bool = True) -> Manifest:
        self._maybe_fail("apply")
        if not force:
            self._refuse_conflicts(manifest, manager)
        return self._apply(manifest, manager, status=False)

    async def apply_status(self, manifest: Mapping[str, Any], *, manager: str) -> Manifest:
        self._maybe_fail("apply_status")
        return self._apply(manifest, manager, status=True)

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace_seconds: int | None = None
    ) -> None:
        live = self.objects.get((kind.kind, namespace, name))
        if live is not None and live["metadata"]["uid"] == uid:
            self.calls.append(("delete", kind.kind, name))
            del self.objects[kind.kind, namespace, name]

    async def create_event(self, event: Mapping[str, Any]) -> None:
        self._maybe_fail("create_event")
        self.events.append(dict(event))

    async def create(self, kind: Kind, manifest: Mapping[str, Any], *, timeout_seconds: float) -> Manifest:
        self._maybe_fail("create")
        key = (kind.kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        if key in self.objects:
            raise ClusterError("create", 409, "already exists")
        return self.put({**manifest, "apiVersion": kind.api_version, "kind": kind.kind})

    async def replace(self, kind: Kind, manifest: Mapping[str, Any], *, timeout_seconds: float) -> Manifest:
        self._maybe_fail("replace")
        key = (kind.kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        self._check_preconditions(manifest, self.objects.get(key))
        return self.put(dict(manifest))

    # -- what others do -----------------------------------------------------------------------------------

    def put(self, manifest: Mapping[str, Any]) -> Manifest:
        """Somebody creates or replaces an object as a whole."""
        made = copy.deepcopy(dict(manifest))
        scope = {} if BY_NAME[made["kind"]] in NODE_KINDS else {"namespace": "default"}
        meta = made["metadata"] = {**scope, **made["metadata"]}
        key = (made["kind"], meta.get("namespace"), meta["name"])
        old = self.objects.get(key)
        meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{next(self._numbers)}")
        self._store(key, old, made)
        return copy.deepcopy(self.objects[key])

    def change(
        self, kind: Kind, name: str, change: Mapping[str, Any], namespace: str | None = "default", manager: str = ""
    ) -> None:
        """Somebody merges fields into an object, under the name of a field manager if it is given."""
        live = copy.deepcopy(self.objects[kind.kind, namespace, name])
        if manager:
            self._take_over((kind.kind, namespace, name), manager, live, dict(change), set(_leaves(change)))
        self._store((kind.kind, namespace, name), self.objects[kind.kind, namespace, name], _merged(live, change))

    def remove(self, kind: Kind, name: str, namespace: str | None = "default") -> None:
        """Somebody deletes an object."""
        del self.objects[kind.kind, namespace, name]

    def one(self, kind: Kind, name: str, namespace: str | None = "default") -> Manifest:
        """The object of that name, which must exist."""
        return self.objects[kind.kind, namespace, name]

    def writes(self) -> list[tuple[str, str, str]]:
        """Every write since the last call."""
        calls, self.calls = self.calls, []
        return calls

    def world(self) -> World:
        """What watches that are up to date would know."""
        indices: dict[str, dict[Any, list[Manifest]]] = {kind.kind: {} for kind in WATCHED}
        for manifest in copy.deepcopy(list(self.objects.values())):
            kind, meta = BY_NAME[manifest["kind"]], manifest["metadata"]
            if kind not in WATCHED:
                continue
            key: Any = (meta["namespace"], meta["name"]) if kind in (POOL, POLICY) else child_key(meta)
            if key is not None:
                indices[kind.kind].setdefault(key, []).append(manifest)
        return World(indices)

    # -- how it works -------------------------------------------------------------------------------------

    def _apply(self, manifest: Mapping[str, Any], manager: str, *, status: bool) -> Manifest:
        meta = manifest["metadata"]
        key = (manifest["kind"], meta.get("namespace"), meta["name"])
        old = self.objects.get(key)
        self._check_preconditions(manifest, old)
        self.calls.append(("apply-status" if status else "apply", manifest["kind"], meta["name"]))
        wanted = copy.deepcopy(dict(manifest))
        fields = set(_leaves(wanted, ignored=("uid", "resourceVersion")))
        live: Manifest = copy.deepcopy(old) if old else {"metadata": {"uid": f"uid-{next(self._numbers)}"}}
        for path in self._applied.get((*key, manager), set()) - fields:
            if not any(path in paths for k, paths in self._applied.items() if k[:3] == key and k[3] != manager):
                _remove(live, path)
        self._take_over(key, manager, live, wanted, fields)
        if status:
            # The subresource replaces what we applied before as a whole: lists are ours alone.
            live["status"] = wanted["status"]
        else:
            live = _merged(live, wanted)
        self._store(key, old, live)
        return copy.deepcopy(self.objects[key])

    def _take_over(
        self, key: tuple[str, str | None, str], manager: str, live: Manifest, wanted: Manifest, fields: set[Path]
    ) -> None:
        """With force, a field whose value changes belongs to the new manager alone."""
        changed = {path for path in fields if _value(live, path) != _value(wanted, path)}
        for other, paths in self._applied.items():
            if other[:3] == key and other[3] != manager:
                paths.difference_update(changed)
        self._applied[*key, manager] = fields

    def _refuse_conflicts(self, manifest: Mapping[str, Any], manager: str) -> None:
        """What the API server answers to an apply without force that would change other managers' fields."""
        key = (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        live = self.objects.get(key, {})
        for (*owner, other), paths in self._applied.items():
            changed = [p for p in paths if _value(live, p) != _value(manifest, p) and _value(manifest, p) is not None]
            if tuple(owner) == key and other != manager and changed:
                field = ".".join(min(changed))
                raise ClusterError("apply", 409, f'Apply failed with 1 conflict: conflict with "{other}": .{field}')

    def _store(self, key: tuple[str, str | None, str], old: Manifest | None, new: Manifest) -> None:
        if BY_NAME[key[0]] in WORKLOADS:
            new["spec"].setdefault("replicas", 1)
        meta = new["metadata"]
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        meta["resourceVersion"] = old["metadata"]["resourceVersion"] if old else "0"
        meta["generation"] = old["metadata"].get("generation", 1) if old else 1
        if BY_NAME[key[0]] in WORKLOADS:
            meta["managedFields"] = list(self._managed_fields(key))
        if old == new:
            return
        meta["resourceVersion"] = str(next(self._numbers) + 100)
        if old is not None and old.get("spec") != new.get("spec"):
            meta["generation"] += 1
        self.objects[key] = new

    def _managed_fields(self, key: tuple[str, str | None, str]) -> Iterator[Manifest]:
        for (*owner, manager), paths in self._applied.items():
            if tuple(owner) == key and ("spec", "replicas") in paths:
                yield {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}

    def _check_preconditions(self, manifest: Mapping[str, Any], live: Manifest | None) -> None:
        meta = manifest["metadata"]
        for field, why in (("uid", "uid mismatch"), ("resourceVersion", "the object has been modified")):
            if field in meta and (live is None or live["metadata"][field] != meta[field]):
                raise ClusterError("apply", 409, why)

    def _check_allowed(self, kind: Kind) -> None:
        if kind in self.forbidden:
            raise ClusterError("any", 403, f"{kind.plural} is forbidden")

    def _maybe_fail(self, call: str) -> None:
        error = self.fail_next.pop(call, None) or self.fail_always.get(call)
        if error is not None:
            raise error


def _leaves(value: Any, path: Path = (), *, ignored: tuple[str, ...] = ()) -> Iterator[Path]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if key not in ignored:
                yield from _leaves(item, (*path, key), ignored=ignored)
    else:
        yield path


def _value(value: Any, path: Path) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _remove(value: Manifest, path: Path) -> None:
    *parents, last = path
    for key in parents:
        value = value.get(key, {})
    value.pop(last, None)


def _merged(live: Manifest, wanted: Mapping[str, Any]) -> Manifest:
    for key, item in wanted.items():
        if key in ("uid", "resourceVersion") and key in live:
            continue
        if isinstance(item, Mapping) and isinstance(live.get(key), dict):
            _merged(live[key], item)
        else:
            live[key] = copy.deepcopy(item)
    return live


def _selected(manifest: Manifest, selector: str) -> bool:
    """`a=b` and `a in (b,c)`, which is all that the operator asks with."""
    if not selector:
        return True
    key, _, values = selector.partition(" in ") if " in " in selector else selector.partition("=")
    return manifest["metadata"].get("labels", {}).get(key) in values.strip("()").split(",")
