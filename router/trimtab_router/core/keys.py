"""API keys: which tenant a request is of. Keys are known by their SHA-256 digests only, and looked up by them, so that
the time it takes says nothing of a key.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from trimtab_crds.planning import DEFAULT_TENANT
from trimtab_router.core.errors import ApiError, shown
from trimtab_router.core.ladder import Ladder
from trimtab_router.core.parse import TENANT_HEADER

MIN_CHARS: Final = 16
"""Shorter keys could be guessed."""
MAX_CHARS: Final = 512
_VISIBLE: Final = frozenset(range(0x21, 0x7F))
_HEADER: Final = "authorization"


def digest_of(text: bytes) -> bytes:
    """The digest of the key in a file; raises ValueError, whose words never have a part of it."""
    key = text.strip()
    if not MIN_CHARS <= len(key) <= MAX_CHARS:
        raise ValueError(f"has {len(key)} characters; a key has {MIN_CHARS} to {MAX_CHARS}")
    if not _VISIBLE.issuperset(key):
        raise ValueError("has characters that no key may have; use visible ASCII, and one key a file")
    return sha256(key).digest()


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Every key that is valid now."""

    tenants: Mapping[bytes, str] = field(default_factory=dict)
    """Names by the digests of their keys."""
    shared: tuple[tuple[str, str], ...] = ()
    """Pairs of tenants that have a key in common, which is refused: nobody knows whose it is."""

    @classmethod
    def of(cls, keys: Mapping[str, Iterable[bytes]]) -> "KeyRing":
        """From the digests of every tenant's keys."""
        found: dict[bytes, str] = {}
        shared: dict[tuple[str, str], set[bytes]] = {}
        for tenant, digests in keys.items():
            for digest in digests:
                owner = found.setdefault(digest, tenant)
                if owner != tenant:
                    shared.setdefault((owner, tenant), set()).add(digest)
        refused = set().union(*shared.values())
        return cls({d: t for d, t in found.items() if d not in refused}, tuple(shared))

    def tenant(self, key: bytes) -> str | None:
        """Whose key it is; None for an unknown one."""
        return self.tenants.get(sha256(key).digest())


def tenant_of(authorization: Sequence[bytes], asked: str | None, ring: KeyRing, ladder: Ladder) -> str:
    """The tenant of a request, on a ladder with keys; raises ApiError.

    `authorization` are the values of that header, `asked` that of `x-trimtab-tenant`, which may only repeat the key.
    """
    tenant = _by_key(authorization, ring) if authorization else _without_key(ladder)
    if asked is not None and asked != tenant:
        message = (
            f"{TENANT_HEADER}: {shown(asked)} is not the tenant that the API key names; remove the header"
            if authorization
            else f"{TENANT_HEADER}: {shown(asked)} is not for requests without an API key; send its key"
        )
        raise ApiError(403, message, param=TENANT_HEADER, code="not_allowed")
    return tenant


def _by_key(authorization: Sequence[bytes], ring: KeyRing) -> str:
    if len(authorization) > 1:
        raise _refused("there more than once; send one")
    scheme, _, key = authorization[0].strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise _refused("no Bearer token; send Authorization: Bearer KEY")
    tenant = ring.tenant(key.strip())
    if tenant is None:
        raise _refused("the API key is not known here; correct it or ask those who run this router for another")
    return tenant


def _without_key(ladder: Ladder) -> str:
    limits = ladder.tenants.get(DEFAULT_TENANT)
    if limits is None or limits.keyed:
        raise _refused("no API key; send Authorization: Bearer KEY")
    return DEFAULT_TENANT


def _refused(what: str) -> ApiError:
    """As OpenAI does; clients raise their AuthenticationError."""
    return ApiError(401, f"{_HEADER}: {what}", code="invalid_api_key")
