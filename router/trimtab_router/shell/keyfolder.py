"""API keys in files: watched, read again on change; the last good key of a file that went bad is kept.

Every file of the folder `DIR/TENANT` holds one key of that tenant, as Kubernetes mounts a Secret. What is no longer
there is no longer a key. Nothing here logs, keeps or reports a key: only names of files, and digests.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from trimtab_router.core.keys import MAX_CHARS, KeyRing, digest_of

_log = logging.getLogger(__name__)
_MAX_FILE_BYTES = 2 * MAX_CHARS
_Stamp = tuple[tuple[str, int, int, int], ...] | str


class KeyFolder:
    """The keys of one router. Kubernetes swaps the link `..data`, which shows in the inodes behind the names."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None
        self._tenants: tuple[str, ...] = ()
        self._stamps: dict[str, _Stamp] = {}
        self._keys: dict[str, dict[str, bytes]] = {}
        """Digests by tenant and file."""
        self._faults: dict[str, list[str]] = {}
        self.ring = KeyRing()
        self.problems: list[str] = []
        """Why requests of some tenant are refused, or a file of its folder is not used."""

    @property
    def counts(self) -> dict[str, int]:
        """Valid keys by tenant."""
        valid = list(self.ring.tenants.values())
        return {tenant: valid.count(tenant) for tenant in self._tenants}

    def configure(self, tenants: Iterable[str]) -> None:
        """The tenants that keys name from now on."""
        self._tenants = tuple(tenants)
        if not self._tenants:
            self.ring, self.problems = KeyRing(), []
        kept = set(self._tenants)
        for known in (self._stamps, self._keys, self._faults):
            for gone in known.keys() - kept:
                del known[gone]
        self._read(changed=True)

    def poll(self) -> None:
        """Reads what changed."""
        if self._tenants:
            self._read(changed=False)

    def _read(self, *, changed: bool) -> None:
        for tenant, folder in self._folders():
            stamp = _stamp(folder)
            if stamp != self._stamps.get(tenant):
                self._stamps[tenant] = stamp
                self._load(tenant, folder, stamp)
                changed = True
        if changed and self._tenants:
            self._apply()

    def _folders(self) -> list[tuple[str, Path]]:
        root = self._folder
        return [] if root is None else [(tenant, root / tenant) for tenant in self._tenants]

    def _load(self, tenant: str, folder: Path, stamp: _Stamp) -> None:
        before, now, faults = self._keys.get(tenant, {}), {}, []
        if isinstance(stamp, str):
            self._faults[tenant] = [f"{folder}: {stamp}; its last good keys stay"]
            return
        for name, *_ in stamp:
            try:
                now[name] = digest_of(_content(folder / name))
            except FileNotFoundError:
                continue  # it went away just now, which is the next change
            except (OSError, ValueError) as error:
                words = error.strerror if isinstance(error, OSError) else str(error)
                kept = name in before
                faults.append(f"{folder / name}: {words}{'; its last good key stays' if kept else ''}")
                if kept:
                    now[name] = before[name]
        self._keys[tenant], self._faults[tenant] = now, faults

    def _apply(self) -> None:
        before = self.ring
        self.ring = KeyRing.of({tenant: self._keys.get(tenant, {}).values() for tenant in self._tenants})
        if self.ring != before:
            _log.info("API keys by tenant: %s", ", ".join(f"{name} {count}" for name, count in self.counts.items()))
        problems = [fault for tenant in self._tenants for fault in self._faults.get(tenant, ())]
        problems += [f"tenants {a} and {b} have a key in common, which is refused" for a, b in self.ring.shared]
        problems += [self._without(tenant) for tenant, count in self.counts.items() if not count]
        for problem in problems:
            if problem not in self.problems:
                _log.error("API keys: %s", problem)
        self.problems = problems

    def _without(self, tenant: str) -> str:
        where = (
            "start the router with --keys DIR"
            if self._folder is None
            else f"no usable file in {self._folder / tenant}, which a missing or empty Secret leaves empty"
        )
        return f"tenant {tenant} has no API key, so its requests are refused ({where})"


def _stamp(folder: Path) -> _Stamp:
    """Every file as it is now; words where the folder cannot be read. What is not there has no files."""
    found = []
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".."))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        return error.strerror or str(error)
    for name in names:
        try:
            seen = (folder / name).stat()
        except FileNotFoundError:
            continue
        except OSError:
            found.append((name, 0, 0, 0))
            continue
        found.append((name, seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return tuple(found)


def _content(path: Path) -> bytes:
    """What a file holds, as far as a key may be long."""
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)
