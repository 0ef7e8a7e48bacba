"""The configuration file: watched, validated, swapped as a whole; the last good one is kept."""

import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from trimtab_crds.wire import RouterConfig
from trimtab_router.core.ladder import Ladder, compile_ladder
from trimtab_router.shell.endpoints import listed

_log = logging.getLogger(__name__)
_Stamp = tuple[int, int, int]


class ConfigFile:
    """One file. Kubernetes replaces a mounted ConfigMap by swapping a symlink: the inode tells as well as the time."""

    def __init__(self, path: str, apply: Callable[[Ladder], None]) -> None:
        self._path = Path(path)
        self._apply = apply
        self._seen: _Stamp | str | None = None
        self.valid = False
        """The file as it is now is what the router runs."""
        self.digest = ""
        self.problem = "not read yet"

    def poll(self) -> None:
        """Reads the file if it changed."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self.load()

    def load(self) -> None:
        """Reads the file; on an error the last good configuration stays."""
        try:
            ladder = read(self._path)
        except (OSError, ValueError) as error:
            self.valid, self.problem = False, _words(error)
            kept = f"keeping configuration {self.digest}" if self.digest else "waiting for a valid one"
            _log.error("%s: %s; %s", self._path, self.problem, kept)
            return
        self.valid, self.problem = True, ""
        if ladder.digest != self.digest:
            self.digest = ladder.digest
            self._apply(ladder)
            _log.info("%s: running configuration %s of policy %s", self._path, self.digest, ladder.policy)

    def _stamp(self) -> _Stamp | str:
        try:
            found = self._path.stat()
        except OSError as error:
            return str(error)
        return found.st_ino, found.st_mtime_ns, found.st_size


def read(path: Path) -> Ladder:
    """The ladder in the file; raises OSError or ValueError."""
    config = RouterConfig.model_validate_json(path.read_bytes())
    for pool in config.pools:
        try:
            listed(pool.addresses)
        except ValueError as error:
            raise ValueError(f"pools.{pool.name}.addresses: {pool.addresses} must be host:port texts") from error
    return compile_ladder(config)


def _words(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'document'}: {e['msg']}" for e in error.errors())
