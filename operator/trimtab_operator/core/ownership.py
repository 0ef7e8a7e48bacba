"""Whose a live object is, whether it is as desired, and which ones are no longer desired.

An object is ours when its controller reference has our owner's uid; a name or a label proves nothing. What is not ours
is never written to and never deleted.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from trimtab_operator.core import names

Manifest = Mapping[str, Any]
_SUFFIXES = {
    **{s: Decimal(1000) ** i for i, s in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), start=-3)},
    **{s: Decimal(1024) ** i for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def is_owned(live: Manifest, owner_uid: str) -> bool:
    """Whether `live` is controlled by the object with that uid."""
    references = live.get("metadata", {}).get("ownerReferences") or []
    return any(r.get("controller") and r.get("uid") == owner_uid for r in references)


def identity(manifest: Manifest) -> tuple[str, str]:
    """Kind and name: what a child is within the namespace of its owner."""
    return manifest["kind"], manifest["metadata"]["name"]


def needs_apply(desired: Manifest, live: Manifest | None) -> bool:
    """Whether applying `desired` would change anything.

    The digest tells a changed desire (also one that names fewer fields); the comparison tells a change by others.
    """
    if live is None:
        return True
    annotations = live["metadata"].get("annotations") or {}
    desired_digest = desired["metadata"]["annotations"][names.DIGEST_ANNOTATION]
    return bool(annotations.get(names.DIGEST_ANNOTATION) != desired_digest or not covers(live, desired))


def is_drift(desired: Manifest, live: Manifest | None) -> bool:
    """Whether somebody else changed the object: our desire is the one we applied, and it no longer holds."""
    if live is None:
        return False
    applied = (live["metadata"].get("annotations") or {}).get(names.DIGEST_ANNOTATION)
    return applied == desired["metadata"]["annotations"][names.DIGEST_ANNOTATION] and not covers(live, desired)


def covers(live: Any, desired: Any) -> bool:
    """Whether everything that `desired` says holds in `live`, which may say more (defaults, other writers)."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(covers(live.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        return _list_covers(live, desired)
    # Empty fields may come back as absent ones.
    return bool(live == desired or (not desired and not live) or _same_quantity(live, desired))


def prunable(live: Iterable[Manifest], desired: Iterable[Manifest], owner_uid: str) -> list[Manifest]:
    """Objects of the owner that are no longer desired; ones that end already are left alone."""
    wanted = {identity(manifest) for manifest in desired}
    return [
        manifest
        for manifest in live
        if is_owned(manifest, owner_uid)
        and identity(manifest) not in wanted
        and "deletionTimestamp" not in manifest["metadata"]
    ]


def replicas_claimed(deployment: Manifest) -> bool:
    """Whether the writer of replicas owns `.spec.replicas`; before that nobody may leave it out of an apply.

    A manager that stops naming a field it alone owns removes it, and the API server would default it to 1 replica.
    """
    entries = deployment["metadata"].get("managedFields") or []
    return any(
        entry.get("manager") == names.REPLICAS_MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in entries
    )


def _list_covers(live: Any, desired: list[Any]) -> bool:
    if not isinstance(live, list):
        return not desired and live is None
    if desired and all(isinstance(item, Mapping) and "name" in item for item in desired):
        by_name = {item.get("name"): item for item in live if isinstance(item, Mapping)}
        return all(covers(by_name.get(item["name"]), item) for item in desired)
    return len(live) == len(desired) and all(covers(a, b) for a, b in zip(live, desired, strict=True))


def _same_quantity(live: Any, desired: Any) -> bool:
    """`1Gi` and `1024Mi` are equal; the API server rewrites quantities."""
    if not isinstance(live, str) or not isinstance(desired, str):
        return False
    return (value := _quantity(desired)) is not None and value == _quantity(live)


def _quantity(text: str) -> Decimal | None:
    number = text.rstrip("numkMGTPEi")
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        return None
