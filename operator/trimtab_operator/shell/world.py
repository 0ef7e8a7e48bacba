"""What the watches know: a read-only view of the indices, so that a pass over an object makes no list call.

Beside them, what was listed of LeaderWorkerSets (groups.py).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from trimtab_operator.core import names
from trimtab_operator.core.kinds import CHILDREN, LEADER_WORKER_SET, POD, POLICY, POOL, WORKLOADS, Kind

Manifest = Mapping[str, Any]
#: Namespace and name of one of our resources.
Key = tuple[str, str]
#: Namespace, label key and label value by which children belong to an owner.
ChildKey = tuple[str, str, str]
Index = Mapping[Any, Collection[Manifest]]

WATCHED: Final = (POOL, POLICY, *CHILDREN, POD)
_LABELS = {POOL.kind: names.POOL_LABEL, POLICY.kind: names.POLICY_LABEL}


class World:
    """Indices by kind: our resources by Key, children and pods by ChildKey. `indices` is filled when they exist."""

    def __init__(self, indices: dict[str, Index]) -> None:
        self.indices = indices
        self.groups: dict[ChildKey, list[Manifest]] | None = None
        """LeaderWorkerSets by their owner; None until all were listed once."""
        self._early: dict[ChildKey, list[Manifest]] = {}

    def one(self, kind: Kind, key: Key) -> Manifest | None:
        """Our resource of that key."""
        return next(iter(self.indices[kind.kind].get(key, ())), None)

    def all(self, kind: Kind, namespace: str | None = None) -> list[Manifest]:
        """All our resources of a kind, of one namespace or of all."""
        index = self.indices[kind.kind]
        return [m for key in index if namespace in (None, key[0]) for m in index[key]]

    def children(self, owner: Kind, key: Key) -> list[Manifest]:
        """Objects that carry the owner's label; whose they are, ownership.py says."""
        return [m for kind in (*CHILDREN, LEADER_WORKER_SET) for m in self._by_owner(kind, owner, key)]

    def workloads(self, owner: Kind, key: Key) -> list[Manifest]:
        """Deployments and LeaderWorkerSets that carry the owner's label."""
        return [m for kind in WORKLOADS for m in self._by_owner(kind, owner, key)]

    def workload(self, owner: Kind, key: Key, name: str) -> Manifest | None:
        """The owner's Deployment or LeaderWorkerSet of that name."""
        return next((m for m in self.workloads(owner, key) if m["metadata"]["name"] == name), None)

    def pods(self, owner: Kind, key: Key) -> list[Manifest]:
        """Pods that carry the owner's label."""
        return list(self._by_owner(POD, owner, key))

    def versions(self, kind: Kind) -> dict[str, str]:
        """uid to resourceVersion of everything known of a kind."""
        metas = (m["metadata"] for values in self.indices[kind.kind].values() for m in values)
        return {meta["uid"]: meta["resourceVersion"] for meta in metas}

    def know_groups(self, key: ChildKey, found: Iterable[Manifest]) -> None:
        """LeaderWorkerSets are not watched: these were listed for an owner."""
        self._known_groups()[key] = list(found)

    def _known_groups(self) -> dict[ChildKey, list[Manifest]]:
        return self._early if self.groups is None else self.groups

    def _by_owner(self, kind: Kind, owner: Kind, key: Key) -> Iterator[Manifest]:
        child_key = (key[0], _LABELS[owner.kind], names.label_value(key[1]))
        index: Index = self.indices[kind.kind] if kind != LEADER_WORKER_SET else self._known_groups()
        yield from index.get(child_key, ())


def child_key(meta: Mapping[str, Any]) -> ChildKey | None:
    """The ChildKey that an object's labels give; None for an object that is nobody's child."""
    labels = meta.get("labels") or {}
    for label in (names.POOL_LABEL, names.POLICY_LABEL):
        if label in labels:
            return meta["namespace"], label, labels[label]
    return None


def wake_key(kind: Kind, key: Key) -> tuple[str, str, str]:
    """Where watch events of an object and of its children wake its loop: children only know the label value."""
    return kind.kind, key[0], names.label_value(key[1])


def rebalance_key(key: Key) -> tuple[str, str, str]:
    """Where a policy's rebalance loop is woken."""
    return "rebalance", *key
