"""Leader election on a coordination.k8s.io/v1 Lease: one process works, the others wait.

As in client-go, no two clocks are compared: who waits measures by its own clock how long the record has not changed.
The holder stops writing when its last renewal was sent longer ago than the renew deadline, which is well before anybody
else may take over, and it gives the lease up on a clean exit so that a successor need not wait at all.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from trimtab_operator.core.kinds import LEASE, Kind
from trimtab_operator.shell.cluster import ClusterError, Manifest

logger = logging.getLogger(__name__)


class LeaseStore(Protocol):
    """The three calls that a lease needs."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object, or None."""
        ...

    async def create(self, kind: Kind, manifest: Manifest, *, timeout_seconds: float) -> Manifest:
        """Create it; a conflict is a ClusterError."""
        ...

    async def replace(self, kind: Kind, manifest: Manifest, *, timeout_seconds: float) -> Manifest:
        """Replace it if its resourceVersion is unchanged; else a ClusterError."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Names and times, in seconds: after `duration` without a sign of the holder somebody else takes over."""

    namespace: str
    name: str
    identity: str
    duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    period_seconds: float = 3.0


class Lease:
    """One candidate. `clock` is monotonic."""

    def __init__(self, store: LeaseStore, settings: LeaseSettings, clock: Callable[[], float]) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._renewed_at: float | None = None
        self._record: Manifest | None = None
        self._seen_version: str | None = None
        self._seen_at = 0.0

    def is_held(self) -> bool:
        """Whether this process may act now: its last renewal is younger than the renew deadline."""
        age = None if self._renewed_at is None else self._clock() - self._renewed_at
        return age is not None and age < self._settings.renew_deadline_seconds

    async def acquire(self) -> None:
        """Return when the lease is held; the caller bounds the wait by cancelling."""
        waiting_for: str | None = None
        while not await self._try():
            holder = _holder(self._record)
            if holder != waiting_for:
                logger.info("standing by: the lease %s is held by %s", self._settings.name, holder or "nobody yet")
                waiting_for = holder
            await asyncio.sleep(self._settings.period_seconds)
        logger.info("leading as %s", self._settings.identity)

    async def hold(self) -> None:
        """Renew until the lease is lost; then return. Meant to run beside the work."""
        while True:
            await asyncio.sleep(self._settings.period_seconds)
            # A process that slept too long has lost it, even if nobody took it: others may have acted since.
            if self.is_held():
                await self._try()
            if not self.is_held() or _holder(self._record) != self._settings.identity:
                self._renewed_at = None
                logger.error("the lease %s is lost", self._settings.name)
                return

    async def release(self) -> None:
        """Give the lease up, if it is held; failing that, it runs out by itself."""
        record, self._renewed_at = self._record, None
        if record is None or _holder(record) != self._settings.identity:
            return
        try:
            # The last renewal may have come through although nobody waited for its answer.
            record = await self._store.get(LEASE, self._settings.namespace, self._settings.name)
            if record is not None and _holder(record) == self._settings.identity:
                spec = {**record["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._store.replace(LEASE, {**record, "spec": spec}, timeout_seconds=self._timeout)
        except ClusterError as error:
            logger.warning("the lease was not given up and runs out: %s", error)

    @property
    def _timeout(self) -> float:
        return self._settings.renew_deadline_seconds / 2

    async def _try(self) -> bool:
        """Take or renew the lease if that is allowed now; False also when the API server did not answer."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                record = await self._store.get(LEASE, self._settings.namespace, self._settings.name)
            self._notice(record)
            if record is not None and not self._is_mine_to_take(record):
                return False
            self._record = await self._write(record)
        except (ClusterError, TimeoutError) as error:
            level = logging.DEBUG if isinstance(error, ClusterError) and error.status == 409 else logging.WARNING
            logger.log(level, "the lease was not renewed: %s", error)
            return False
        # Counted from before the request: a slow answer must not lengthen what others see.
        self._renewed_at = started
        return True

    def _notice(self, record: Manifest | None) -> None:
        version = record["metadata"]["resourceVersion"] if record else None
        if version != self._seen_version or self._record is None:
            self._seen_version, self._seen_at = version, self._clock()
        self._record = record

    def _is_mine_to_take(self, record: Manifest) -> bool:
        if _holder(record) in ("", None, self._settings.identity):
            return True
        return self._clock() - self._seen_at >= self._settings.duration_seconds

    async def _write(self, record: Manifest | None) -> Manifest:
        settings, now = self._settings, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old: dict[str, Any] = record["spec"] if record else {}
        mine = old.get("holderIdentity") == settings.identity
        spec = {
            "holderIdentity": settings.identity,
            "leaseDurationSeconds": round(settings.duration_seconds),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions", 0)) + (0 if mine or record is None else 1),
        }
        if record is None:
            meta = {"name": settings.name, "namespace": settings.namespace}
            body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec}
            return await self._store.create(LEASE, body, timeout_seconds=self._timeout)
        return await self._store.replace(LEASE, {**record, "spec": spec}, timeout_seconds=self._timeout)


def _holder(record: Manifest | None) -> str | None:
    return None if record is None else (record["spec"].get("holderIdentity") or "")
