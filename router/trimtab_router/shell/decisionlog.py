"""The decision log on its way out: one JSON line a record, written by a thread so that no request waits for a disk.

The queue, the files and the folder are bounded. What finds the queue full or the disk refusing is dropped and counted.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from trimtab_classifier.features import Query

STDOUT: Final = "-"
PATTERN: Final = "decisions-*.jsonl"
QUEUE_RECORDS: Final = 8192
FILES: Final = 8
"""Parts of the folder's bound that one file may have."""
CLOSE_SECONDS: Final = 2.0
COMPLAIN_SECONDS: Final = 60.0
_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where lines go. Only the log's thread calls it."""

    def write(self, line: bytes) -> None:
        """One line with its end; raises OSError."""

    def close(self) -> None:
        """No more lines."""


class StandardOutput:
    """Whole lines to the process's standard output: below PIPE_BUF a pipe keeps lines of several workers apart."""

    def write(self, line: bytes) -> None:
        """One line."""
        while line:
            line = line[os.write(1, line) :]

    def close(self) -> None:
        """Nothing to end."""


class Folder:
    """Files `decisions-PID-NUMBER.jsonl`, a new one when one is full; the oldest go when the folder is."""

    def __init__(self, path: Path, most_bytes: int, pid: int | None = None) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._name = f"decisions-{os.getpid() if pid is None else pid}-{time.time_ns()}"
        self._number = 0
        self._left = 0
        self._descriptor: int | None = None

    def write(self, line: bytes) -> None:
        """One line, in one system call."""
        descriptor = self._next() if self._descriptor is None or self._left < len(line) else self._descriptor
        written = os.write(descriptor, line)
        self._left -= written
        if written < len(line):
            raise OSError(f"{self._path}: only {written} of {len(line)} bytes were written")

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _next(self) -> int:
        self.close()
        self._number += 1
        self._make_room()
        name = f"{self._name}-{self._number:06d}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path / name, flags, 0o600)
        self._left = self._most_bytes // FILES
        return self._descriptor

    def _make_room(self) -> None:
        """Removes the oldest files until a new one fits the bound; other workers may do the same."""
        files = []
        for file in self._path.glob(PATTERN):
            try:
                found = file.stat()
            except FileNotFoundError:
                continue
            files.append((found.st_mtime_ns, found.st_size, file))
        room = self._most_bytes - self._most_bytes // FILES
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= room:
                return
            file.unlink(missing_ok=True)
            total -= size


class DecisionLog:
    """Takes records from the event loop and never blocks it."""

    def __init__(self, sink: Sink, *, capacity: int = QUEUE_RECORDS, clock: Callable[[], float] = time.time) -> None:
        self._sink = sink
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(capacity)
        self._key = os.urandom(16)
        self._complained_at = float("-inf")
        self._refused = 0
        self._thread = threading.Thread(target=self._run, name="decision log", daemon=True)
        self._lost = 0
        self.clock = clock
        self.written = 0
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records that found the queue full or could not be written."""
        return self._refused + self._lost

    def put(self, record: dict[str, Any]) -> bool:
        """False when the queue is full: the record is dropped."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._refused += 1
            return False
        return True

    def fingerprint(self, query: Query) -> str:
        """Sixteen hex digits. The key is this worker's alone, so that nobody can try guessed prompts on a log."""
        text = f"{query.system}\x00{query.text}".encode("utf-8", "replace")
        return blake2b(text, digest_size=8, key=self._key).hexdigest()

    def close(self) -> None:
        """Writes what waits, within a bound."""
        deadline = time.monotonic() + CLOSE_SECONDS
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._sink.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                self.written += 1
            except OSError as error:
                self._lost += 1
                self._complain(error)
        self._sink.close()

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained_at > COMPLAIN_SECONDS:
            self._complained_at = time.monotonic()
            _log.error("decision log: %s; records are dropped and counted", error)


def check(path: str) -> None:
    """Raises OSError when `path` is no folder in which files can be made."""
    if path == STDOUT:
        return
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".decisions-{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()


def open_log(path: str, most_bytes: int) -> DecisionLog:
    """The log of one worker: `-` is standard output, anything else a folder."""
    return DecisionLog(StandardOutput() if path == STDOUT else Folder(Path(path), most_bytes))
